"""w_loc of "auto" in detectors: absurd first batches, what `balance` and yaml pass on, parts."""

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.utils.events import EventStorage

from iou_balanced import balance
from iou_balanced.engine import Trainer
from iou_balanced.losses import GIoULoss
from iou_balanced.losses.localization import MEASURE_ITERATIONS

from .centernet.test_centernet import small_centernet
from .detector_mixin import (
    build,
    check_finite,
    make_input,
    small_retinanet,
    training_step,
    without_boxes,
)
from .rcnn.rcnn_models import small_cascade_mask_rcnn, small_faster_rcnn
from .test_fcos import small_fcos
from .yaml.test_yaml import small_yaml


def below_a_pixel():
    """As Detectron2's own tests of models make them: boxes in [0, 1] pixels."""
    corner, size = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0)) * 0.5
    boxes = torch.cat([corner, corner + size], dim=1)
    return make_input(boxes.tolist(), [0, 1, 2])


@pytest.mark.parametrize("kwargs", [{"weight": "auto"}, {"measure_iterations": 1}])
def test_boxes_below_a_pixel_in_the_first_batch(kwargs):
    """The next ordinary batch has the loss that a plain detector has."""
    model, plain = (
        build(balance(small_retinanet(), eta=None, **kwargs)),
        build(balance(small_retinanet(), eta=None, lam=None, beta=1 / 9)),
    )
    total, weighted = sums_of(model, [below_a_pixel()])
    assert total / weighted > 1e5  # what the first iteration would have given
    for i in range(MEASURE_ITERATIONS + 2):
        batch = [below_a_pixel()] if i == 0 else [make_input(), make_input()]
        losses, expected = training_step(model, batch), training_step(plain, batch)
        # The same sum while it is measured; then about, because every batch has another ratio.
        tolerance = 1e-3 if model.box_loss.w_loc is None else 0.1
        assert losses["loss_box_reg"].item() == pytest.approx(
            expected["loss_box_reg"].item(), rel=tolerance
        )
        check_finite(model, losses)
    assert 1 < model.box_loss.w_loc < 10


def sums_of(model, batch):
    """The two sums that a call of the box loss would measure."""
    seen = []
    measurement = model.box_loss._measurement
    measurement.add = lambda sums: seen.append(sums.tolist())
    training_step(model, batch)
    del measurement.add
    model.loss_normalizer.average = None
    return seen[0]


class TestBalance:
    def test_passes_it_on(self):
        node = balance(small_retinanet(), measure_from=500, measure_iterations=3).box_loss
        assert (node.measure_from, node.measure_iterations) == (500, 3)
        assert repr(instantiate(node)).endswith(
            "measure_from=500, measure_iterations=3, max_weight=20.0)"
        )

    def test_to_every_stage_and_to_none_that_has_a_number(self):
        model = balance(small_cascade_mask_rcnn(), rpn=True, measure_from=7)
        nodes = [*model.roi_heads.box_predictors, model.proposal_generator]
        assert [x.box_loss.measure_from for x in nodes] == [7] * 4
        model = balance(small_faster_rcnn(), weight=2.4, rpn=True, measure_from=7)
        assert model.proposal_generator.box_loss.measure_from == 7
        assert "measure_from" not in model.roi_heads.box_predictor.box_loss

    def test_leaves_the_defaults_to_the_loss(self):
        assert not [k for k in balance(small_retinanet()).box_loss if k.startswith("measure")]
        # Twice is once: what was given before does not stay.
        model = balance(small_retinanet(), measure_from=5)
        assert "measure_from" not in balance(model).box_loss

    @pytest.mark.parametrize(
        ("config", "kwargs", "got"),
        [
            (small_retinanet, {"weight": 3.0}, "3.0"),
            (small_retinanet, {"normalize": True}, "1.0"),
            (small_retinanet, {"lam": None}, "None"),
            (small_centernet, {}, "1.0"),
            (small_fcos, {}, "1.0"),
            (small_faster_rcnn, {"weight": 3.0}, "3.0"),
        ],
    )
    def test_refuses_it_where_nothing_is_measured(self, config, kwargs, got):
        model = config()
        before = set(model)
        message = rf"`weight` to be 'auto' with measure_from, .* the box loss has {got}$"
        with pytest.raises(ValueError, match=message):
            balance(model, measure_from=5, **kwargs)
        assert set(model) == before

    def test_bad_values(self):
        with pytest.raises(ValueError, match=r"`measure_iterations` to be .* but got 0"):
            balance(small_retinanet(), measure_iterations=0)


class TestYaml:
    KEY = "MODEL.IOU_BALANCED"

    def test_passes_it_on(self):
        from detectron2.modeling import build_model

        cfg = small_yaml(
            f"{self.KEY}.LOC_MEASURE_FROM", 500, f"{self.KEY}.LOC_MEASURE_ITERATIONS", 3
        )
        assert "measure_from=500, measure_iterations=3" in repr(build_model(cfg).box_loss)
        assert f"measure_iterations={MEASURE_ITERATIONS}" in repr(
            build_model(small_yaml()).box_loss
        )

    def test_a_number_is_not_measured(self):
        from detectron2.modeling import build_model

        cfg = small_yaml(f"{self.KEY}.LOC_MEASURE_FROM", 500, f"{self.KEY}.LOC_WEIGHT", 3.0)
        with pytest.raises(ValueError, match=r"`weight` to be 'auto' with measure_from"):
            build_model(cfg)


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("amp_dtype", [None, "bfloat16"])
def test_micro_batches_measure_the_whole_batch(iterations, amp_dtype):
    """As one batch does, also where a micro-batch has no object, and in mixed precision."""
    few = [[40, 30, 56, 48]]
    torch.manual_seed(5)
    data = [[make_input(), without_boxes(), make_input(few, [1]), make_input()] for _ in range(2)]
    weights = []
    for steps in (1, 2, 4):
        model = build(balance(small_retinanet(), eta=None, measure_iterations=iterations))
        parts = [x[i : i + 4 // steps] for x in data for i in range(0, 4, 4 // steps)]
        trainer = Trainer(
            model,
            parts,
            torch.optim.SGD(model.parameters(), lr=0.0),
            accumulation_steps=steps,
            amp_dtype=amp_dtype,
        )
        with EventStorage() as trainer.storage:
            for trainer.iter in range(iterations):
                assert model.box_loss.w_loc is None
                trainer.run_step()
        weights.append(model.box_loss.w_loc)
    assert weights[0] > 1
    assert weights[1:] == pytest.approx(weights[:1] * 2, rel=1e-3 if amp_dtype else 1e-6)


def test_a_box_loss_without_measurement_takes_part_in_accumulation():
    model = small_retinanet()
    balance(model, eta=None, lam=None)
    model.box_loss = LazyCall(GIoULoss)()
    model = build(model)
    trainer = Trainer(
        model,
        [[make_input()], [make_input()]],
        torch.optim.SGD(model.parameters(), lr=0.0),
        accumulation_steps=2,
    )
    trainer.iter = 0
    with EventStorage() as trainer.storage:
        trainer.run_step()
    assert trainer.storage.latest()["loss_box_reg"][0] > 0
