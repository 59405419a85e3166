"""What micro-batches tell each other besides gradients: class counts, and what is logged."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage, get_event_storage

from iou_balanced import balance
from iou_balanced.engine import Trainer
from iou_balanced.engine.micro_batch_storage import mean_of_parts
from iou_balanced.losses import BalanceOriented, ConstantSchedule
from iou_balanced.modeling.normalizer import whole_batch

from ..modeling.centernet.test_centernet import small_centernet
from ..modeling.detector_mixin import make_input, without_boxes
from ..modeling.foveabox.foveabox_models import small_foveabox
from ..modeling.rcnn.rcnn_models import small_faster_rcnn
from .test_accumulation import assert_same_training, batches, plain_retinanet, train


def with_class_weights(config, **kwargs):
    """Class weights that depend on the objects of an image, a process or the whole batch."""

    def make():
        model = config()
        model.class_balance = L(BalanceOriented)(
            num_classes=3, schedule=L(ConstantSchedule)(), class_counts=[90, 30, 10], **kwargs
        )
        return model

    return make


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (with_class_weights(small_centernet, eta=0.8), 4),
        (with_class_weights(small_centernet, eta=0.8, count_over="process"), 4),
        (with_class_weights(plain_retinanet, eta=0.999, count_over="process"), 2),
        (with_class_weights(plain_retinanet, count_over="batch", counted="locations"), 4),
        (with_class_weights(small_foveabox, eta=0.5, count_over="process", counted="locations"), 2),
    ],
)
def test_class_weights_are_those_of_the_whole_batch(config, steps):
    data = batches()
    expected = train(config, 1, data)
    assert all(x.norm() > 0 for x in expected[0][0])
    assert_same_training(train(config, steps, data), expected, tolerance=1e-3)


def faster_rcnn(**kwargs):
    return balance(
        small_faster_rcnn(),
        eta=None,
        lam=None,
        class_balance=L(BalanceOriented)(schedule=None, class_counts=[60, 30, 10], **kwargs),
    )


def test_class_weights_of_a_model_that_counts_no_positives():
    """An R-CNN's weights know the objects of the whole batch, although its losses are averaged."""
    model = instantiate(faster_rcnn(count_over="process")).train()
    class_balance = model.roi_heads.box_predictor.class_balance
    parts = [batches()[0][:2], batches()[0][2:]]
    expected = class_balance.batch_counts(
        [x["instances"].gt_classes for part in parts for x in part], torch.zeros(4, 0)
    )
    with whole_batch(model, parts) as weight:
        assert weight == 0.5
        for part in parts:
            counts = class_balance.batch_counts([], torch.zeros(len(part), 0))
            assert torch.equal(counts, expected[:2])


def test_class_weights_that_would_need_the_samples_of_all_micro_batches():
    model = instantiate(faster_rcnn(count_over="batch", counted="locations"))
    parts = [[x] for x in batches()[0]]
    message = r"counted='instances' or .* counted='locations' and count_over='batch': the batch"
    with pytest.raises(ValueError, match=message), whole_batch(model, parts):
        pass


def test_what_is_logged_is_of_the_whole_batch():
    """Not of the last micro-batch: the second of two has fewer objects than the first."""
    data = [[make_input(), make_input(), without_boxes(), make_input([[40, 30, 56, 48]], [1])]]
    config = with_class_weights(small_centernet, eta=0.8)
    logged, tables = [], []
    for steps in (1, 2):
        model = instantiate(config()).train()
        model.class_balance.set_iteration(50, 100)
        parts = [data[0][i : i + 4 // steps] for i in range(0, 4, 4 // steps)]
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        trainer = Trainer(model, parts, optimizer, accumulation_steps=steps)
        trainer.iter = 0
        with EventStorage() as trainer.storage:
            trainer.run_step()
        logged.append(trainer.storage.latest()["num_objects"])
        assert len(trainer.storage.history("num_objects").values()) == 1
        assert model.class_balance.weights_in_force.is_one_table  # as it is logged
        tables.append(model.class_balance.weights_in_force.own)
    assert logged[0] == logged[1] == ((2 * len(data[0][0]["instances"]) + 1) / 4, 0)
    assert tables[0].shape == (4, 3)
    assert torch.equal(*tables)


def test_images_of_micro_batches_are_logged_too():
    with EventStorage(7) as storage:
        with mean_of_parts():
            get_event_storage().put_image("drawing", torch.zeros(3, 4, 4))
            get_event_storage().put_scalar("constant", 2.0, smoothing_hint=False)
            assert get_event_storage().iter == 7
        assert [x[0] for x in storage._vis_data] == ["drawing"]
        assert storage.latest() == {"constant": (2.0, 7)}
        assert storage.smoothing_hints() == {"constant": False}
