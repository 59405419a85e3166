import math

import pytest
import torch

from iou_balanced.losses import (
    IoUBalancedPenaltyReducedFocalLoss,
    heatmap_focal,
    iou_balanced_penalty_reduced_focal_loss,
    iou_weights,
    penalty_reduced_focal_loss,
)
from iou_balanced.losses.fused import chunks

from .heatmap_reference import example_heatmap, iou_balanced_heatmap_terms
from .paper import value_and_grad, weights_eq4
from .test_focal import grad_of
from .test_heatmap_focal import TABLES, logits_like, make_tables

HEATMAP = example_heatmap()
CENTERS = (HEATMAP == 1).nonzero(as_tuple=True)
POS_IOU = torch.tensor([0.9, 0.2, 0.6, 0.3, 1.0], dtype=torch.float64)
balanced_loss = iou_balanced_penalty_reduced_focal_loss


def test_by_hand():
    # alpha = 0: cross entropy. Two centres, logits 0 and ln 3: p = 1/2, 3/4; CE = ln 2, ln 4/3 =
    # 0.6931, 0.2877. IoU 0.25, 0.64 to the power 1/2: 0.5, 0.8. Eq. 4: ratio (0.6931 + 0.2877) /
    # (0.5 * 0.6931 + 0.8 * 0.2877) = 1.7007, so the weights are 0.8504, 1.3606, and with dCE/dx =
    # p - 1 the gradients -0.4252, -0.3401. Between them an element with ground truth 1/2 and
    # beta = 1: ln 2 / 2, gradient p / 2 = 1/4.
    logits = torch.tensor([[[[0.0, 0.0, math.log(3)]]]])
    heatmap, pos_iou = torch.tensor([[[[1, 0.5, 1]]]]), torch.tensor([0.25, 0.64])
    value, grad = grad_of(balanced_loss, logits, heatmap, pos_iou, eta=0.5, alpha=0, beta=1)
    assert value.item() == pytest.approx(1.5 * math.log(2) + math.log(4 / 3))
    expected = torch.tensor([[[[-0.425176, 0.25, -0.340140]]]])
    torch.testing.assert_close(grad, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("alpha, beta", [(2.0, 4.0), (0.0, 0.0), (0.5, 1.5)])
@pytest.mark.parametrize("eta", [0.5, 1.5])
@pytest.mark.parametrize("tables", TABLES)
def test_equals_the_reference(tables, eta, alpha, beta):
    logits, (class_weight, by_kind) = logits_like(HEATMAP), make_tables(tables)
    kwargs = {"eta": eta, "alpha": alpha, "beta": beta}
    total, terms, expected_grad = value_and_grad(
        iou_balanced_heatmap_terms, logits, HEATMAP, POS_IOU.tolist(), tables=by_kind, **kwargs
    )
    for reduction, divisor in [("sum", 1), ("mean", HEATMAP.numel()), ("none", 1)]:
        x = logits.clone().requires_grad_()
        loss = balanced_loss(
            x, HEATMAP, POS_IOU, class_weight=class_weight, reduction=reduction, **kwargs
        )
        (grad,) = torch.autograd.grad(loss.sum(), x)
        if reduction == "none":
            torch.testing.assert_close(loss.detach(), terms.reshape(HEATMAP.shape))
        else:
            assert loss.item() == pytest.approx(total / divisor, rel=1e-9)
        torch.testing.assert_close(grad, expected_grad / divisor)


@pytest.mark.parametrize("tables", ["none", "NK", "all"])
def test_only_centres_change_and_by_the_weights(tables):
    logits = logits_like(HEATMAP)
    kwargs = {"class_weight": make_tables(tables)[0], "reduction": "none"}
    before, before_grad = grad_of(penalty_reduced_focal_loss, logits, HEATMAP, **kwargs)
    value, grad = grad_of(balanced_loss, logits, HEATMAP, POS_IOU, **kwargs)
    # Class weights first: Eq. 4's ratio runs over the weighted terms.
    weights = torch.tensor(weights_eq4(before[CENTERS], POS_IOU.tolist(), 1.5)).double()
    assert weights.max() > 2 * weights.min()
    torch.testing.assert_close(value[CENTERS] / before[CENTERS], weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad[CENTERS] / before_grad[CENTERS], weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(value.sum(), before.sum())
    assert torch.equal(value[HEATMAP < 1], before[HEATMAP < 1])
    assert torch.equal(grad[HEATMAP < 1], before_grad[HEATMAP < 1])


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("tables", ["none", "all"])
def test_eta_0_is_bitwise_the_plain_loss(tables, reduction):
    logits = logits_like(HEATMAP, torch.float32)
    kwargs = {"class_weight": make_tables(tables)[0], "reduction": reduction}
    expected, expected_grad = grad_of(penalty_reduced_focal_loss, logits, HEATMAP, **kwargs)
    for pos_iou in [POS_IOU, None]:
        value, grad = grad_of(balanced_loss, logits, HEATMAP, pos_iou, eta=0, **kwargs)
        assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    module = IoUBalancedPenaltyReducedFocalLoss(eta=0, reduction=reduction)
    assert not module.needs_pos_iou
    value, _ = grad_of(module, logits, HEATMAP, class_weight=kwargs["class_weight"])
    assert torch.equal(value, expected)


def test_ious_that_say_nothing_are_the_plain_loss():
    logits = logits_like(HEATMAP)
    expected, expected_grad = grad_of(penalty_reduced_focal_loss, logits, HEATMAP)
    for pos_iou in [torch.zeros(5), torch.full((5,), 0.3)]:
        value, grad = grad_of(balanced_loss, logits, HEATMAP, pos_iou)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(grad, expected_grad)
    # No centre at all.
    empty = HEATMAP * 0.9
    expected, expected_grad = grad_of(penalty_reduced_focal_loss, logits, empty)
    value, grad = grad_of(balanced_loss, logits, empty, torch.zeros(0))
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)


def test_iou_0_silences_that_centre_and_nan_stays_visible():
    pos_iou = torch.tensor([0.9, 0.0, 0.6, 0.3, 1.0])
    _, grad = grad_of(balanced_loss, logits_like(HEATMAP), HEATMAP, pos_iou)
    assert (grad[CENTERS] == 0).tolist() == [False, True, False, False, False]
    pos_iou[1] = math.nan
    assert balanced_loss(logits_like(HEATMAP), HEATMAP, pos_iou).isnan()


@pytest.mark.parametrize("elements", [1, 30, 36, 72])
def test_chunks_do_not_show(monkeypatch, elements):
    logits, (class_weight, _) = logits_like(HEATMAP), make_tables("all")
    for reduction in ["sum", "none"]:
        args = (logits, HEATMAP, POS_IOU)
        kwargs = {"class_weight": class_weight, "reduction": reduction}
        value, grad = grad_of(balanced_loss, *args, **kwargs)
        with monkeypatch.context() as patch:
            patch.setattr(chunks, "_CHUNK", {"cpu": elements})
            chunked, chunked_grad = grad_of(balanced_loss, *args, **kwargs)
        torch.testing.assert_close(chunked, value, rtol=1e-14, atol=0)
        torch.testing.assert_close(chunked_grad, grad, rtol=1e-14, atol=0)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradcheck_at_fixed_weights(reduction):
    # Numerical differentiation would see Eq. 4's weights move with the logits.
    factors = torch.rand(5, dtype=torch.float64) * 3
    logits = logits_like(HEATMAP).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heatmap_focal, "iou_ratio_weights", lambda *args, **kwargs: factors)
        assert torch.autograd.gradcheck(
            lambda x: balanced_loss(x, HEATMAP, POS_IOU, reduction=reduction), logits
        )


def test_two_processes_have_the_gradients_of_one(monkeypatch):
    # Each image by one process: the other's two sums are added by hand.
    logits = logits_like(HEATMAP)
    _, expected = grad_of(balanced_loss, logits, HEATMAP, POS_IOU)
    iou, sums, grads = [POS_IOU[:2], POS_IOU[2:]], [], []

    def record(x):
        sums.append(x)
        return x

    monkeypatch.setattr(iou_weights, "all_reduce_sum", record)
    module = IoUBalancedPenaltyReducedFocalLoss()
    for i in range(2):
        module(logits[i : i + 1], HEATMAP[i : i + 1], iou[i])
    assert len(sums) == 2
    monkeypatch.setattr(iou_weights, "all_reduce_sum", lambda x: sums[0] + sums[1])
    for i in range(2):
        grads.append(grad_of(module, logits[i : i + 1], HEATMAP[i : i + 1], iou[i])[1])
    torch.testing.assert_close(torch.cat(grads), expected)
    alone = IoUBalancedPenaltyReducedFocalLoss(across_processes=False)
    _, grad = grad_of(alone, logits[:1], HEATMAP[:1], iou[0])
    assert not torch.allclose(grad, expected[:1], rtol=0.01)


def test_module_is_the_function():
    logits, kwargs = logits_like(HEATMAP), {"class_weight": make_tables("all")[0]}
    hyper = {"eta": 1.0, "alpha": 1.0, "beta": 3.0, "reduction": "mean"}
    module = IoUBalancedPenaltyReducedFocalLoss(**hyper)
    value, grad = grad_of(module, logits, HEATMAP, POS_IOU, **kwargs)
    expected, expected_grad = grad_of(balanced_loss, logits, HEATMAP, POS_IOU, **hyper, **kwargs)
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    assert repr(module) == (
        "IoUBalancedPenaltyReducedFocalLoss(eta=1.0, alpha=1.0, beta=3.0, reduction='mean', "
        "across_processes=True)"
    )
    assert module.needs_pos_iou and not module.state_dict()
