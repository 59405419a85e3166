"""Every classification loss on every detector that takes it, and the reasons of the others."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.utils.events import EventStorage

from iou_balanced.losses import (
    CorrelationLoss,
    IoUAwareBCELoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    TaskAlignedBCELoss,
    VarifocalLoss,
    task_aligned_bce_loss,
)
from iou_balanced.modeling import balance
from iou_balanced.modeling.positives import objects_of_positives

from .centernet.test_centernet import small_centernet
from .detector_mixin import build, check_finite, make_input, small_retinanet, training_step
from .foveabox.foveabox_models import small_foveabox
from .rcnn.rcnn_models import small_faster_rcnn
from .ssd.ssd_models import small_ssd
from .test_fcos import small_fcos

DETECTORS = {"retinanet": small_retinanet, "fcos": small_fcos, "foveabox": small_foveabox}
QUALITY = [
    *(QualityFocalLoss, VarifocalLoss, MatchabilityAwareLoss, IoUAwareBCELoss, TaskAlignedBCELoss)
]
# In each image two objects of a class, and a third of another class with the box of the first.
BOXES = [[8, 12, 60, 70], [40, 30, 90, 62], [8, 12, 60, 70]]
CLASSES = [1, 1, 2]


@pytest.fixture(scope="module", params=DETECTORS)
def trained(request):
    """A model after a step with task-aligned BCE and correlation, and what its losses got."""
    config = balance(DETECTORS[request.param](), cls="task_aligned", correlation=0.3, lam=None)
    config.cls_loss.iou_gradient = True
    model = build(config)
    got = {}
    sum_losses = model.sum_losses

    def keep(*args):
        got["args"] = args[:5]  # FCOS gives where the positives are as well
        return sum_losses(*args)

    model.sum_losses = keep
    batch = [make_input(BOXES, CLASSES), make_input(BOXES[:2], CLASSES[:2])]
    losses = training_step(model, batch)
    check_finite(model, losses)
    model.sum_losses = sum_losses
    return model, got["args"]


def step_of(model, args, cls_loss):
    """The classification loss, and the gradients of logits and deltas."""
    anchors, logits, labels, deltas, boxes = args
    logits, deltas = ([x.detach().requires_grad_() for x in part] for part in (logits, deltas))
    kept, model.cls_loss = model.cls_loss, cls_loss
    try:
        with EventStorage():
            loss = model.sum_losses(anchors, logits, labels, deltas, boxes)[0]
    finally:
        model.cls_loss = kept
    grads = torch.autograd.grad(loss, [*logits, *deltas], allow_unused=True)
    return loss, grads[: len(logits)], grads[len(logits) :]


def test_every_member_trains_a_detector(trained):
    model, args = trained
    for loss in [*(x(eta=eta) for x in QUALITY for eta in (0.0, 1.5)), CorrelationLoss()]:
        value, of_logits, of_deltas = step_of(model, args, loss)
        assert value.isfinite() and value > 0
        assert all(x.isfinite().all() for x in of_logits) and any(x.any() for x in of_logits)
        assert all(x is None for x in of_deltas)  # nothing flows into an IoU


def test_iou_has_gradient_where_the_correlation_asks_for_it(trained):
    model, args = trained
    plain = step_of(model, args, CorrelationLoss(loss=VarifocalLoss()))
    asked = step_of(model, args, CorrelationLoss(loss=VarifocalLoss(), iou_gradient=True))
    assert plain[0].item() == pytest.approx(asked[0].item())
    assert all(torch.equal(*pair) for pair in zip(plain[1], asked[1], strict=True))
    assert any(x is not None and x.any() for x in asked[2])


def test_objects_are_those_of_the_assignment(trained):
    """By image, class and box, one by one."""
    model, args = trained
    _, logits, labels, _, boxes = args
    labels = torch.stack(labels)
    mask = (labels >= 0) & (labels != model.num_classes)
    images, anchors = mask.nonzero(as_tuple=True)
    objects = objects_of_positives(
        images, labels[images, anchors], torch.stack(boxes)[images, anchors]
    ).tolist()
    keys = [
        (n, labels[n, r].item(), tuple(boxes[n][r].tolist())) for n, r in mask.nonzero().tolist()
    ]
    assert len(keys) > 5
    assert all(
        (a == b) == (keys[i] == keys[j])
        for i, a in enumerate(objects)
        for j, b in enumerate(objects[: i + 1])
    )
    # And they arrive at the loss.
    seen = {}

    class Spy(TaskAlignedBCELoss):
        def forward(self, pred_logits, gt_labels, pos_iou, *, pos_object, class_weight=None):
            seen.update(pos_iou=pos_iou, pos_object=pos_object)
            return super().forward(
                pred_logits, gt_labels, pos_iou, pos_object=pos_object, class_weight=class_weight
            )

    loss = step_of(model, args, Spy())[0]
    assert seen["pos_object"].tolist() == objects
    expected = task_aligned_bce_loss(
        torch.cat(logits, dim=1),
        labels,
        seen["pos_iou"],
        pos_object=torch.tensor([keys.index(key) for key in keys]),
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [*QUALITY, CorrelationLoss])
def test_softmax_and_heat_maps_refuse_the_losses_themselves(loss):
    """As the command line puts them there."""
    for make, text in [
        (small_ssd, r"`cls_loss` to be a softmax loss"),
        (small_centernet, r"`cls_loss` to be a loss of heat maps"),
    ]:
        config = balance(make(), eta=None, lam=None)
        config.cls_loss = L(loss)()
        with pytest.raises(ValueError, match=rf"{text}.*{loss.__name__}"):
            build(config)


def test_box_head_and_rpn_refuse_what_they_cannot_use():
    config = balance(small_faster_rcnn(), eta=None, lam=None)
    config.roi_heads.box_predictor.cls_loss = L(VarifocalLoss)()
    with pytest.raises(ValueError, match=r"`cls_loss` to be a softmax loss.*VarifocalLoss"):
        build(config)
    config = balance(small_faster_rcnn(), eta=None, lam=None, rpn=True)
    config.proposal_generator.cls_loss = L(TaskAlignedBCELoss)()
    with pytest.raises(ValueError, match=r"needs no objects.*TaskAlignedBCELoss"):
        build(config)
