"""What plain and IoU-balanced heat map losses promise: dtypes, callers' tensors, bad arguments."""

import math
import re

import pytest
import torch

from iou_balanced.losses import (
    ClassWeights,
    IoUBalancedPenaltyReducedFocalLoss,
    PenaltyReducedFocalLoss,
    iou_balanced_penalty_reduced_focal_loss,
    penalty_reduced_focal_loss,
    sigmoid_scores,
)
from iou_balanced.losses.fused import core, eager

from .heatmap_reference import example_heatmap
from .test_focal import grad_of
from .test_heatmap_focal import K, N, logits_like, make_tables

HEATMAP = example_heatmap()
POS_IOU = torch.tensor([0.9, 0.2, 0.6, 0.3, 1.0], dtype=torch.float64)
balanced_loss = iou_balanced_penalty_reduced_focal_loss


def plain(logits, heatmap, pos_iou, **kwargs):
    return penalty_reduced_focal_loss(logits, heatmap, **kwargs)


both_losses = pytest.mark.parametrize("loss_fn", [plain, balanced_loss])


@both_losses
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("tables", ["none", "K", "NK", "all"])
@pytest.mark.parametrize("empty", [(0, K, 3, 4), (N, K, 0, 4), (N, K, 3, 0)])
def test_nothing_is_a_zero_attached_to_the_graph(loss_fn, empty, tables, reduction):
    class_weight = make_tables(tables)[0]
    if empty[0] == 0 and tables == "NK":
        class_weight = class_weight[:0]
    elif empty[0] == 0 and tables == "all":
        class_weight = ClassWeights(*(t[:0] if t.dim() == 2 else t for t in class_weight))
    logits = torch.zeros(empty, requires_grad=True)
    loss = loss_fn(
        logits, torch.zeros(empty), torch.zeros(0), class_weight=class_weight, reduction=reduction
    )
    assert loss.requires_grad and loss.sum() == 0
    assert loss.shape == (empty if reduction == "none" else ())
    loss.sum().backward()
    assert logits.grad.shape == empty


@both_losses
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_float32(loss_fn, dtype, reduction):
    half = logits_like(HEATMAP).to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    # Values below 1 may round to 1, which would be other centres.
    heatmap = HEATMAP.to(dtype)
    kwargs = {"class_weight": torch.rand(N, K).to(dtype), "reduction": reduction}
    loss = loss_fn(half, heatmap, POS_IOU.to(dtype), **kwargs)
    kwargs["class_weight"] = kwargs["class_weight"].float()
    expected = loss_fn(single, heatmap.float(), POS_IOU.to(dtype).float(), **kwargs)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    (grad,) = torch.autograd.grad(loss.sum(), half)
    (expected_grad,) = torch.autograd.grad(expected.sum(), single)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad, expected_grad.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


@both_losses
def test_loss_scaling_reaches_small_gradients_in_float16(loss_fn):
    # Gradients of about 1e-8 are 0 in float16: their product with the loss scale has to be
    # rounded, not they.
    half = (logits_like(HEATMAP) / 3 - 8).half().requires_grad_()
    single = half.detach().float().requires_grad_()
    (2.0**14 * loss_fn(half, HEATMAP, POS_IOU)).backward()
    (2.0**14 * loss_fn(single, HEATMAP, POS_IOU)).backward()
    assert (single.grad[HEATMAP == 0] / 2**14).max() < 1e-5 and (half.grad != 0).sum() > 50
    background = HEATMAP == 0
    torch.testing.assert_close(
        half.grad[background].float(), single.grad[background], rtol=4e-3, atol=2e-7
    )


@both_losses
def test_the_ground_truth_may_have_another_dtype(loss_fn):
    logits = logits_like(HEATMAP, torch.float32)
    value, grad = grad_of(loss_fn, logits, HEATMAP, POS_IOU)
    expected, expected_grad = grad_of(loss_fn, logits, HEATMAP.float(), POS_IOU.float())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_amp, _ = grad_of(loss_fn, logits, HEATMAP.float(), POS_IOU.float())
    assert torch.equal(under_amp, expected)


@both_losses
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_callers_tensors_and_what_gets_gradients(loss_fn, reduction):
    logits, (tables, _) = logits_like(HEATMAP), make_tables("all")
    arguments = [logits, HEATMAP.clone(), POS_IOU.clone(), *tables]
    copies = [x.clone() for x in arguments]
    for x in arguments:
        x.requires_grad_()
    tables = ClassWeights(*arguments[3:])
    loss = loss_fn(*arguments[:3], class_weight=tables, reduction=reduction)
    value = loss.detach().clone()
    scale = torch.full_like(loss, 3)
    (first,) = torch.autograd.grad(loss, logits, scale, retain_graph=True)
    loss.backward(scale)
    assert torch.equal(logits.grad, first) and torch.equal(loss.detach(), value)
    assert all(x.grad is None for x in arguments[1:]) and (scale == 3).all()
    assert all(torch.equal(x.detach(), y) for x, y in zip(arguments, copies, strict=True))


@both_losses
def test_a_nan_is_not_hidden_and_a_second_derivative_is_refused(loss_fn):
    for index in [(0, 1, 1, 1), (0, 0, 0, 0)]:  # a centre and background
        logits = logits_like(HEATMAP)
        logits[index] = math.nan
        assert loss_fn(logits, HEATMAP, POS_IOU).isnan()
    logits = logits_like(HEATMAP).requires_grad_()
    with pytest.raises(RuntimeError, match=r"penalty-reduced .* no second derivative"):
        torch.autograd.grad(loss_fn(logits, HEATMAP, POS_IOU), logits, create_graph=True)


@both_losses
def test_bad_arguments(loss_fn):
    logits = logits_like(HEATMAP)
    with pytest.raises(ValueError, match=r"`pred_logits` to be of a float dtype.*torch\.int64"):
        loss_fn(logits.long(), HEATMAP, POS_IOU)
    with pytest.raises(ValueError, match=r"`gt_heatmap` to be of a float dtype.*torch\.bool"):
        loss_fn(logits, HEATMAP == 1, POS_IOU)
    with pytest.raises(ValueError, match=r"`pred_logits` .*\(N, K, H, W\), but got \(3, 3, 4\)"):
        loss_fn(logits[0], HEATMAP[0], POS_IOU)
    # One map for all images would broadcast.
    message = r"`gt_heatmap` .*shape of `pred_logits`, \(2, 3, 3, 4\), but got \(1, 3, 3, 4\)"
    with pytest.raises(ValueError, match=message):
        loss_fn(logits, HEATMAP[:1], POS_IOU)
    for shape in [(K + 1,), (1, K), (N + 1, K), (), (N, K, 3, 4)]:
        message = rf"`class_weight` .*\(3,\), \(2, 3\).* but got {re.escape(str(shape))}"
        with pytest.raises(ValueError, match=message):
            loss_fn(logits, HEATMAP, POS_IOU, class_weight=torch.ones(shape))
    with pytest.raises(ValueError, match=r"`class_weight\.row` .*\(4,\).*\(2, 4\).*got \(3,\)"):
        loss_fn(logits, HEATMAP, POS_IOU, class_weight=ClassWeights(row=torch.ones(K)))
    with pytest.raises(ValueError, match=r"`reduction` to be one of .* but got 'total'"):
        loss_fn(logits, HEATMAP, POS_IOU, reduction="total")
    for name in ["alpha", "beta"] + ["eta"] * (loss_fn is balanced_loss):
        for value in [-0.5, math.nan]:
            with pytest.raises(ValueError, match=f"`{name}` to be at least 0, but got {value}"):
                loss_fn(logits, HEATMAP, POS_IOU, **{name: value})


def test_bad_pos_iou_and_bad_modules():
    logits, module = logits_like(HEATMAP), IoUBalancedPenaltyReducedFocalLoss()
    for wrong in [POS_IOU[:-1], POS_IOU[:, None], POS_IOU[:0], None]:
        with pytest.raises(ValueError, match=r"`pos_iou` .*\(5,\), but got"):
            balanced_loss(logits, HEATMAP, wrong)
    with pytest.raises(ValueError, match=r"`pos_iou` with eta=1\.5, but got None"):
        module(logits, HEATMAP)
    for cls in [PenaltyReducedFocalLoss, IoUBalancedPenaltyReducedFocalLoss]:
        with pytest.raises(ValueError, match="`beta` to be at least 0, but got -1"):
            cls(beta=-1)
        with pytest.raises(ValueError, match="`reduction` to be one of"):
            cls(reduction=None)


def test_backend_and_number_of_positives_arrive(monkeypatch):
    """The number spares the wait for a GPU; that of IoUs is it."""
    asked, find = [], sigmoid_scores.find
    monkeypatch.setattr(core, "choose", lambda *args: asked.append(args[2]) or eager)
    monkeypatch.setattr(sigmoid_scores, "find", lambda mask, n: asked.append(n) or find(mask, n))
    x = logits_like(HEATMAP)
    known = {"num_positives": 5}
    for loss, arguments, more in (
        (penalty_reduced_focal_loss, (), known | {"backend": "triton"}),
        (balanced_loss, (POS_IOU,), {"backend": "triton"}),
        (balanced_loss, (None,), known | {"backend": "triton", "eta": 0}),
        (PenaltyReducedFocalLoss(backend="triton"), (), known),
        (IoUBalancedPenaltyReducedFocalLoss(backend="triton"), (POS_IOU,), {}),
        (IoUBalancedPenaltyReducedFocalLoss(backend="triton", eta=0), (), known),
    ):
        asked.clear()
        loss(x, HEATMAP, *arguments, **more)
        assert asked == [5, "triton"]
