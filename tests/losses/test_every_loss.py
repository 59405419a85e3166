"""What all losses promise: nothing to do, half precision, callers' tensors, bad arguments."""

import pytest
import torch

from iou_balanced import losses as L
from iou_balanced.losses import cross_entropy, sigmoid_scores
from iou_balanced.losses.fused import core, eager

K = 4
REDUCTIONS = ["sum", "mean", "none"]
LABELS = torch.tensor([[0, 4, -1, 2, 1], [-1, 3, 4, 4, -1]])
LABELS_BY_SITUATION = {
    "full": LABELS,
    "no rows": LABELS[:, :0],
    "no images": LABELS[:0],
    "no positives": LABELS.where((LABELS < 0) | (LABELS == K), K),
    "all ignored": torch.full_like(LABELS, -1),
}


def inputs(name, situation="full"):
    """The arguments of the loss `name`, the predictions first."""
    labels = LABELS_BY_SITUATION[situation]
    pos_iou = torch.rand(int(((labels >= 0) & (labels < K)).sum()))
    if "focal" in name:
        arguments = [torch.randn(*labels.shape, K), labels]
    elif "cross_entropy" in name:
        arguments = [torch.randn(labels.numel(), K + 1), labels.flatten()]
    elif "boxes" in name:
        corner = torch.rand(2, len(pos_iou), 2) * 20
        arguments = list(torch.cat([corner, corner + 5 + torch.rand_like(corner) * 20], dim=2))
    else:
        arguments = [torch.randn(len(pos_iou), 4), torch.randn(len(pos_iou), 4)]
    return arguments if name in PLAIN else [*arguments, pos_iou]


def eq7(*args, **kwargs):
    return L.iou_balanced_smooth_l1_loss(*args, normalize=True, **kwargs)


def weighted_focal(logits, *args, **kwargs):
    weight = torch.linspace(0.5, 2, logits.shape[0] * K).reshape(-1, K)
    return L.iou_balanced_focal_loss(logits, *args, class_weight=weight, **kwargs)


RATIO = torch.tensor([0.8, 1.0, 0.9, 0.95])
PLAIN = {
    "focal": L.sigmoid_focal_loss,
    "cross_entropy": lambda *args, **kwargs: L.SoftmaxCrossEntropyLoss(**kwargs)(*args),
    "equalized_focal": lambda *args, **kwargs: L.equalized_focal_loss(*args, RATIO, **kwargs),
    "equalization_v2 focal": lambda *args, **kw: L.equalization_loss_v2(*args, RATIO, **kw),
    "module equalized_focal": lambda *args, **kw: L.EqualizedFocalLoss(**kw)(*args),
    "module equalization_v2 focal": lambda *args, **kw: L.EqualizationLossV2(**kw)(*args),
    "seesaw cross_entropy": lambda *args, **kw: L.seesaw_loss(*args, 10 * RATIO, **kw),
    "module seesaw cross_entropy": lambda *args, **kw: L.SeesawLoss(**kw)(*args),
    "smooth_l1": lambda *args, **kwargs: L.SmoothL1Loss(beta=0.1, **kwargs)(*args),
    "boxes GIoU": lambda *args, **kwargs: L.GIoULoss(**kwargs)(*args),
    "boxes DIoU": lambda *args, **kwargs: L.DIoULoss(**kwargs)(*args),
    "boxes CIoU": lambda *args, **kwargs: L.CIoULoss(**kwargs)(*args),
}
LOSSES = PLAIN | {
    "iou_balanced_focal": L.iou_balanced_focal_loss,
    "iou_balanced_focal, class weights": weighted_focal,
    "varifocal": L.varifocal_loss,
    "quality_focal": L.quality_focal_loss,
    "focal, matchability-aware": L.matchability_aware_loss,
    "focal, IoU-aware": L.iou_aware_bce_loss,
    "module varifocal with eta": lambda *args, **kw: L.VarifocalLoss(eta=1.5, **kw)(*args),
    "iou_balanced_cross_entropy": L.iou_balanced_cross_entropy,
    "iou_balanced_smooth_l1": L.iou_balanced_smooth_l1_loss,
    "iou_balanced_smooth_l1, Eq. 7": eq7,
    "module focal": lambda *args, **kwargs: L.IoUBalancedFocalLoss(**kwargs)(*args),
    "module cross_entropy": lambda *args, **kw: L.IoUBalancedCrossEntropyLoss(**kw)(*args),
    "module smooth_l1 auto": lambda *args, **kw: L.IoUBalancedSmoothL1Loss(weight="auto", **kw)(
        *args
    ),
    "balanced boxes GIoU": lambda *args, **kw: L.IoUBalancedGIoULoss(**kw)(*args),
    "balanced boxes GIoU auto": lambda *args, **kw: L.IoUBalancedGIoULoss(weight="auto", **kw)(
        *args
    ),
    "balanced boxes DIoU": lambda *args, **kw: L.IoUBalancedDIoULoss(normalize=True, **kw)(*args),
    "balanced boxes CIoU": lambda *args, **kw: L.IoUBalancedCIoULoss(**kw)(*args),
}
IS_LOCALIZATION = {x for x in LOSSES if "smooth_l1" in x or "boxes" in x}
HAVE_BACKENDS = [x for x in LOSSES if x not in IS_LOCALIZATION and "cross_entropy" not in x]
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("situation", list(LABELS_BY_SITUATION)[1:])
def test_nothing_to_do_is_a_zero_attached_to_the_graph(name, situation, reduction):
    pred, *rest = inputs(name, situation)
    pred.requires_grad_()
    loss = LOSSES[name](pred, *rest, reduction=reduction)
    assert loss.requires_grad and loss.isfinite().all()
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    assert grad.shape == pred.shape and grad.isfinite().all()
    if situation != "no positives" or name in IS_LOCALIZATION:
        assert loss.sum() == 0 and (grad == 0).all()
    assert loss.dim() == 0 or reduction == "none"


@pytest.mark.parametrize("name", HAVE_BACKENDS)
@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_an_ignored_row_costs_nothing_whatever_its_logits_are(name, dtype, reduction, value):
    """The softmax ones are PyTorch's, whose gradient of such a row is no number."""
    pred, labels, *rest = inputs(name)
    ignored = labels < 0
    found = []
    for other in (0.0, value):
        logits = pred.clone()
        logits[ignored] = other
        logits = logits.to(dtype).requires_grad_()
        loss = LOSSES[name](logits, labels, *rest, reduction=reduction)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        found.append((loss, grad))
    for expected, got in zip(*found, strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert (found[1][1][ignored] == 0).all()


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(name, dtype, reduction):
    pred, *rest = inputs(name)
    rest = [x.to(dtype) if x.is_floating_point() else x for x in rest]
    half = pred.to(dtype).requires_grad_()
    loss = LOSSES[name](half, *rest, reduction=reduction)
    assert loss.dtype == torch.float32
    single = half.detach().float().requires_grad_()
    rest = [x.float() if x.is_floating_point() else x for x in rest]
    expected = LOSSES[name](single, *rest, reduction=reduction)
    assert torch.equal(loss, expected)
    (grad,) = torch.autograd.grad(loss.sum(), half)
    (expected_grad,) = torch.autograd.grad(expected.sum(), single)
    assert grad.dtype == dtype
    # One rounding at the end, at most one more on the way.
    torch.testing.assert_close(grad.float(), expected_grad, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", [x for x in LOSSES if x not in IS_LOCALIZATION])
def test_loss_scaling_reaches_small_gradients_in_float16(name):
    # A well-classified background score has a gradient of about 3e-8, which float16 rounds to 0
    # or to 6e-8. That is what GradScaler multiplies the loss for: the product has to be rounded,
    # not its first factor.
    pred, *rest = inputs(name)
    half = (pred - 6).half().requires_grad_()
    single = half.detach().float().requires_grad_()
    (2.0**12 * LOSSES[name](half, *rest)).backward()
    (2.0**12 * LOSSES[name](single, *rest)).backward()
    torch.testing.assert_close(half.grad.float(), single.grad, rtol=4e-3, atol=2e-7)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_float64_stays_float64(name, reduction):
    pred, *rest = inputs(name)
    pred = pred.double().requires_grad_()
    rest = [x.double() if x.is_floating_point() else x for x in rest]
    loss = LOSSES[name](pred, *rest, reduction=reduction)
    assert loss.dtype == torch.float64
    loss.sum().backward()
    assert pred.grad.dtype == torch.float64


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_callers_tensors_are_not_touched(name, dtype):
    arguments = [x.to(dtype) if x.is_floating_point() else x for x in inputs(name)]
    copies = [x.clone() for x in arguments]
    pred = arguments[0].requires_grad_()
    for reduction in REDUCTIONS:
        loss = LOSSES[name](*arguments, reduction=reduction)
        before = loss.detach().clone()
        scale = torch.full_like(loss, 2)
        torch.autograd.grad(loss, pred, scale)
        assert torch.equal(loss, before) and (scale == 2).all()
    for argument, copy in zip(arguments, copies, strict=True):
        assert torch.equal(argument.detach(), copy)


@every_loss
def test_backward_twice_gives_the_same(name):
    pred, *rest = inputs(name)
    pred.requires_grad_()
    loss = LOSSES[name](pred, *rest)
    (first,) = torch.autograd.grad(3 * loss, pred, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, pred)
    assert torch.equal(first, second)


@every_loss
def test_a_nan_prediction_is_not_hidden(name):
    pred, *rest = inputs(name)
    pred[(0,) * pred.dim()] = float("nan")  # a positive
    assert not LOSSES[name](pred, *rest).isfinite()


@every_loss
def test_unknown_reduction(name):
    with pytest.raises(ValueError, match=r"`reduction` to be one of .* but got 'total'"):
        LOSSES[name](*inputs(name), reduction="total")


@pytest.mark.parametrize("name", [x for x in LOSSES if x not in IS_LOCALIZATION])
def test_bad_labels(name):
    pred, labels, *rest = inputs(name)
    one_hot = torch.zeros_like(pred)
    with pytest.raises(ValueError, match=r"`gt_labels` to hold class indices .* torch\.float32"):
        LOSSES[name](pred, one_hot, *rest)
    shape = r"\(2, 5\)" if pred.dim() == 3 else r"\(10,\)"
    with pytest.raises(ValueError, match=rf"`gt_labels` to have the shape .* {shape}, but got"):
        LOSSES[name](pred, labels[..., :-1], *rest)


@pytest.mark.parametrize("name", [x for x in LOSSES if x not in PLAIN])
def test_bad_pos_iou(name):
    *arguments, pos_iou = inputs(name)
    for wrong in [pos_iou[:-1], pos_iou[:, None], pos_iou[:0]]:
        with pytest.raises(ValueError, match=r"Expected argument `pos_iou` .*\(4,\), but got"):
            LOSSES[name](*arguments, wrong)
    with pytest.raises(ValueError, match=r"Expected argument `pos_iou`.*None"):
        LOSSES[name](*arguments, None)


@pytest.mark.parametrize("name", [x for x in LOSSES if x not in PLAIN and x not in IS_LOCALIZATION])
def test_ious_outside_of_their_range(name):
    *arguments, pos_iou = inputs(name)
    for value in (-0.5, 1.5):
        wrong = pos_iou.clone()
        wrong[2] = value
        with pytest.raises(ValueError, match=rf"IoUs in \[0, 1\], but got {value} for positive 2"):
            LOSSES[name](*arguments, wrong)


@pytest.mark.parametrize("name", HAVE_BACKENDS)
def test_the_backend_arrives(name, monkeypatch):
    asked = []
    monkeypatch.setattr(core, "choose", lambda *args: asked.append(args[2]) or eager)
    LOSSES[name](*inputs(name), backend="triton")
    assert asked == ["triton"]


@pytest.mark.parametrize("name", [x for x in LOSSES if x not in IS_LOCALIZATION])
def test_the_number_of_positives_arrives(name, monkeypatch):
    """It spares the wait for a GPU; where there is `pos_iou`, its length is that number."""
    asked, arguments = [], inputs(name)
    for module in (sigmoid_scores, cross_entropy):
        find = module.find
        monkeypatch.setattr(
            module, "find", lambda mask, n, find=find: asked.append(n) or find(mask, n)
        )
    if name in PLAIN and "cross_entropy" in name:
        pytest.skip("looks for no positives")
    loss = {
        "module equalized_focal": L.EqualizedFocalLoss(),
        "module equalization_v2 focal": L.EqualizationLossV2(),
    }.get(name, LOSSES[name])
    loss(*arguments, **({"num_positives": 4} if name in PLAIN else {}))
    if name == "iou_balanced_focal":
        L.correlation_loss(*arguments)
    assert set(asked) == {4}


@pytest.mark.parametrize("bad", [(K + 1,), (1, K), (3, K), (2, 5, K), ()])
@pytest.mark.parametrize("name", ["focal", "iou_balanced_focal"])
def test_bad_class_weight(name, bad):
    with pytest.raises(ValueError, match=r"`class_weight` to have a shape \(K,\) or \(N, K\)"):
        LOSSES[name](*inputs(name), class_weight=torch.ones(bad))


@pytest.mark.parametrize(
    "name, argument",
    [
        ("focal", "gamma"),
        ("iou_balanced_focal", "gamma"),
        ("iou_balanced_focal", "eta"),
        ("iou_balanced_cross_entropy", "eta"),
        ("iou_balanced_smooth_l1", "lam"),
        ("iou_balanced_smooth_l1", "beta"),
        ("module focal", "eta"),
        ("module focal", "gamma"),
        ("module cross_entropy", "eta"),
        ("module smooth_l1 auto", "lam"),
        ("module smooth_l1 auto", "beta"),
    ],
)
@pytest.mark.parametrize("value", [-0.5, float("nan")])
def test_negative_hyperparameters(name, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` to be at least 0, but got {value}"):
        LOSSES[name](*inputs(name), **{argument: value})
