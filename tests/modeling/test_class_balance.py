"""Every detector with a `class_balance`."""

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import nn

from iou_balanced import balance
from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    ConstantSchedule,
    Equalization,
    QualityFocalLoss,
)
from iou_balanced.modeling import BalancedFastRCNNOutputLayers

from .detector_mixin import (
    BOXES,
    CLASSES,
    NUM_CLASSES,
    DetectorMixin,
    build,
    check_finite,
    gradients,
    make_input,
    small_retinanet,
    training_step,
    without_boxes,
)
from .foveabox.foveabox_models import small_foveabox
from .rcnn.rcnn_models import make_mask_input, small_cascade_mask_rcnn, small_faster_rcnn
from .ssd.ssd_models import small_ssd
from .test_fcos import small_fcos

COUNTS, IMAGES = [60, 30, 10], [40, 25, 8]
MODELS = {
    "retinanet": small_retinanet,
    "fcos": small_fcos,
    "foveabox": small_foveabox,
    "ssd": small_ssd,
    "faster_rcnn": small_faster_rcnn,
    "cascade": small_cascade_mask_rcnn,
}
SOFTMAX = ("ssd", "faster_rcnn", "cascade")
every_detector = pytest.mark.parametrize("name", MODELS)
iou_balanced = pytest.mark.parametrize("eta", [None, 1.5], ids=["plain", "iou"])


def batch_of(name):
    make = make_mask_input if name == "cascade" else make_input
    return [make(), make(BOXES[:1] * 2, [2, 2]), make([], [])]


def bofl(**settings):
    schedule = L(ConstantSchedule)()
    return L(BalanceOriented)(class_counts=COUNTS, schedule=schedule, **settings)


def losses_and_gradients(name, class_balance=None, eta=None):
    config = balance(MODELS[name](), eta=eta, lam=None, beta=None, class_balance=class_balance)
    model = build(config)
    for module in model.modules():
        if isinstance(module, BalanceOriented):
            module.set_iteration(0, 10)
    batch = batch_of(name)
    losses = training_step(model, batch)
    check_finite(model, losses)
    return losses, gradients(model)


class Recorder(nn.Module):
    """Passes everything on to a loss, and keeps what it was called with."""

    def __init__(self, loss):
        super().__init__()
        self.loss, self.calls = loss, []
        for name in ("needs_pos_iou", "takes_levels", "reduction", "is_softmax"):
            if hasattr(loss, name):
                setattr(self, name, getattr(loss, name))

    def forward(self, pred_logits, gt_labels, *args, class_weight=None):
        self.calls.append((gt_labels, class_weight))
        return self.loss(pred_logits, gt_labels, *args, class_weight=class_weight)


@every_detector
@iou_balanced
def test_neutral_weights_change_nothing(name, eta):
    plain, plain_grads = losses_and_gradients(name, eta=eta)
    ours, grads = losses_and_gradients(name, bofl(eta=1.0, intensity=0.0), eta=eta)
    for key, loss in plain.items():
        assert ours[key].item() == pytest.approx(loss.item(), rel=1e-6), key
    for key, grad in plain_grads.items():
        torch.testing.assert_close(grads[key], grad, rtol=1e-4, atol=1e-6, msg=key)


@every_detector
@iou_balanced
def test_only_the_classification_changes(name, eta):
    plain, _ = losses_and_gradients(name, eta=eta)
    ours, _ = losses_and_gradients(name, bofl(), eta=eta)
    changed = {key for key in plain if ours[key].item() != pytest.approx(plain[key].item())}
    expected = {key for key in plain if "cls" in key and "rpn" not in key}
    assert changed == expected and expected


@every_detector
@pytest.mark.parametrize("count_over", ["image", "process"])
def test_counts_the_objects_of_the_batch(name, count_over):
    """Which is not what its anchors or proposals are labelled with."""
    config = balance(MODELS[name](), eta=None, lam=None, class_balance=bofl(count_over=count_over))
    model = build(config)
    heads = [m for m in model.modules() if hasattr(m, "class_balance")]
    for head in heads:
        head.cls_loss = Recorder(head.cls_loss)
        head.class_balance.set_iteration(0, 10)
    training_step(model, batch_of(name))
    counts = torch.tensor([[1, 1, 1], [0, 0, 2], [0, 0, 0]])  # CLASSES, twice 2, none
    if count_over == "process":
        counts = counts.sum(dim=0).expand(3, -1)
    alpha = torch.tensor([100 / 180, 100 / 90, 100 / 30])
    expected = alpha * 0.8**counts
    assert len(heads) == (3 if name == "cascade" else 1)
    for head in heads:
        ((labels, weights),) = head.cls_loss.calls
        if isinstance(head, BalancedFastRCNNOutputLayers):  # 32 proposals of an image at most
            assert weights.shape == (len(labels), NUM_CLASSES)
            weights = weights[[0, len(labels) // 2, -1]]
        torch.testing.assert_close(weights, expected)


@every_detector
def test_counting_locations(name):
    config = balance(
        MODELS[name](), eta=None, lam=None, class_balance=bofl(eta=0.5, counted="locations")
    )
    model = build(config)
    heads = [m for m in model.modules() if hasattr(m, "class_balance")]
    for head in heads:
        head.class_balance.set_iteration(0, 10)
    head = heads[0]
    head.cls_loss = Recorder(head.cls_loss)
    training_step(model, batch_of(name)[:1])
    ((labels, weights),) = head.cls_loss.calls
    counts = torch.tensor([(labels == k).sum() for k in range(NUM_CLASSES)])
    assert counts.sum() > 0
    expected = torch.tensor([100 / 180, 100 / 90, 100 / 30]) * 0.5**counts
    torch.testing.assert_close(weights[0], expected)


@every_detector
@pytest.mark.parametrize("kind", ["cbl", "cbl_class_wise", "eql"])
def test_rivals(name, kind):
    class_balance = {
        "cbl": L(ClassBalanced)(class_counts=COUNTS),
        "cbl_class_wise": L(ClassBalanced)(class_counts=COUNTS, beta=None, per_sample=False),
        "eql": L(Equalization)(image_counts=IMAGES, tail_ratio=0.45),
    }[kind]
    if kind == "eql" and name in SOFTMAX:
        with pytest.raises(ValueError, match=r"`cls_loss` to be a sigmoid loss.*Equalization"):
            build(balance(MODELS[name](), eta=None, lam=None, class_balance=class_balance))
        return
    plain, _ = losses_and_gradients(name)
    ours, _ = losses_and_gradients(name, class_balance)
    key = next(key for key in plain if "cls" in key and "rpn" not in key)
    assert ours[key].item() != pytest.approx(plain[key].item(), rel=1e-7)


@every_detector
def test_without_objects(name):
    """Of a class that no image has n is 0; of images without objects every n is."""
    model = build(balance(MODELS[name](), class_balance=bofl()))
    for module in model.modules():
        if isinstance(module, BalanceOriented):
            module.set_iteration(0, 10)
    empty = make_mask_input([], []) if name == "cascade" else without_boxes()
    check_finite(model, training_step(model, [empty]))


@every_detector
def test_evaluation_needs_no_counts(name):
    node = L(BalanceOriented)(schedule=L(ConstantSchedule)())
    model = build(balance(MODELS[name](), class_balance=node)).eval()
    with torch.no_grad():
        model([{"image": make_input()["image"], "height": 96, "width": 112}])


@every_detector
def test_training_without_counts_says_so(name):
    model = build(balance(MODELS[name](), class_balance=L(BalanceOriented)(schedule=None)))
    with pytest.raises(RuntimeError, match=r"BalanceOriented does not know how frequent"):
        training_step(model, batch_of(name))


def test_quality_focal_loss_with_class_weights():
    config = balance(small_fcos(), eta=None, lam=None, class_balance=bofl())
    config.cls_loss = L(QualityFocalLoss)(beta=2.0)
    model = build(config)
    model.class_balance.set_iteration(0, 10)
    check_finite(model, training_step(model, [make_input(), without_boxes()]))


def test_stages_of_a_cascade_have_their_own():
    predictors = build(
        balance(small_cascade_mask_rcnn(), class_balance=bofl())
    ).roi_heads.box_predictor
    assert len({id(predictor.class_balance) for predictor in predictors}) == 3


class TestRetinaNetWithClassBalancedLoss(DetectorMixin):
    config = staticmethod(
        lambda: balance(small_retinanet(), class_balance=L(ClassBalanced)(class_counts=COUNTS))
    )
    stock_config = staticmethod(small_retinanet)


class TestFasterRCNNWithClassBalancedLoss(DetectorMixin):
    config = staticmethod(
        lambda: balance(small_faster_rcnn(), class_balance=L(ClassBalanced)(class_counts=COUNTS))
    )
    stock_config = staticmethod(small_faster_rcnn)


class TestFCOSWithEqualizationLoss(DetectorMixin):
    config = staticmethod(
        lambda: balance(
            small_fcos(), class_balance=L(Equalization)(image_counts=IMAGES, tail_ratio=0.45)
        )
    )
    stock_config = staticmethod(small_fcos)


def test_the_batch_has_what_the_tests_say():
    assert CLASSES == [0, 2, 1]
