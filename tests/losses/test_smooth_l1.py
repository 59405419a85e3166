import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import smooth_l1_loss as fvcore_smooth_l1_loss

from iou_balanced.losses import (
    IoUBalancedSmoothL1Loss,
    SmoothL1Loss,
    iou_balanced_smooth_l1_loss,
)

from .paper import iou_balanced_smooth_l1_terms, value_and_grad

P = 5
POS_IOU = torch.tensor([0.9, 0.05, 0.6, 0.3, 1.0], dtype=torch.float64)


def example(dtype=torch.float64):
    # Errors on both sides of beta = 1/9.
    return 0.3 * torch.randn(P, 4, dtype=dtype), 0.1 * torch.randn(P, 4, dtype=dtype)


def grad_of(loss_fn, pred, *args, **kwargs):
    pred = pred.clone().requires_grad_()
    loss = loss_fn(pred, *args, **kwargs)
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    return loss.detach(), grad


def test_by_hand():
    # beta = 1/2: error 1/4 is (1/4)^2 / (2 * 1/2) = 1/16 with gradient (1/4) / (1/2) = 1/2;
    # error -1 is 1 - 1/4 = 3/4 with gradient -1. IoU 1/4 and 1, lam = 1/2: 1/2 and 1.
    # w_loc = 3: 3 * (1/2 * 1/16 + 1 * 3/4) = 2.34375, gradients 3 * 1/2 * 1/2 and -3.
    pred = torch.tensor([[0.25, 0, 0, 0], [0, -1.0, 0, 0]])
    kwargs = {"lam": 0.5, "weight": 3.0, "beta": 0.5}
    value, grad = grad_of(
        iou_balanced_smooth_l1_loss, pred, torch.zeros(2, 4), torch.tensor([0.25, 1.0]), **kwargs
    )
    assert value.item() == pytest.approx(2.34375)
    torch.testing.assert_close(grad, torch.tensor([[0.75, 0, 0, 0], [0, -3.0, 0, 0]]))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("lam", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("weight, beta", [(1.0, 1 / 9), (3.049, 1 / 9), (2.0, 0.0), (1.0, 5.0)])
def test_equals_paper(normalize, lam, weight, beta):
    pred, target = example()
    kwargs = {"lam": lam, "weight": weight, "beta": beta, "normalize": normalize}
    total, terms, expected_grad = value_and_grad(
        iou_balanced_smooth_l1_terms, pred, target, POS_IOU.tolist(), **kwargs
    )
    for reduction, divisor in [("sum", 1), ("mean", P * 4), ("none", 1)]:
        value, grad = grad_of(
            iou_balanced_smooth_l1_loss, pred, target, POS_IOU, reduction=reduction, **kwargs
        )
        if reduction == "none":
            torch.testing.assert_close(value, terms.reshape(P, 4))
        else:
            assert value.item() == pytest.approx(total / divisor)
        torch.testing.assert_close(grad, expected_grad / divisor)


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.0])
def test_plain_loss_equals_fvcore(beta):
    pred, target = example(torch.float32)
    value, grad = grad_of(SmoothL1Loss(beta=beta), pred, target)
    expected, expected_grad = grad_of(
        fvcore_smooth_l1_loss, pred, target, beta=beta, reduction="sum"
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("normalize", [False, True])
def test_lam_0_is_bitwise_the_plain_loss(normalize, reduction):
    pred, target = example(torch.float32)
    plain, plain_grad = grad_of(F.smooth_l1_loss, pred, target, beta=0.1, reduction=reduction)
    kwargs = {"lam": 0, "beta": 0.1, "reduction": reduction}
    for pos_iou in [None, POS_IOU]:
        value, grad = grad_of(
            iou_balanced_smooth_l1_loss, pred, target, pos_iou, normalize=normalize, **kwargs
        )
        assert torch.equal(value, plain) and torch.equal(grad, plain_grad)
    # Table 3: w_loc is 1 at lambda = 0; "auto" finds that without looking.
    module = IoUBalancedSmoothL1Loss(weight="auto", **kwargs)
    assert not module.needs_pos_iou
    assert torch.equal(module(pred, target), plain)
    assert module.w_loc == 1


def test_gradients_differ_from_the_plain_ones_by_exactly_the_weights():
    pred, target = example()
    _, plain_grad = grad_of(SmoothL1Loss(beta=1 / 9), pred, target)
    _, grad = grad_of(iou_balanced_smooth_l1_loss, pred, target, POS_IOU, weight=3.0)
    torch.testing.assert_close(grad, plain_grad * 3 * (POS_IOU**1.5)[:, None])


def test_eq_7_keeps_the_sum_and_moves_the_gradient():
    pred, target = example()
    plain, plain_grad = grad_of(SmoothL1Loss(beta=1 / 9), pred, target)
    value, grad = grad_of(iou_balanced_smooth_l1_loss, pred, target, POS_IOU, normalize=True)
    torch.testing.assert_close(value, plain)
    ratio = (grad / plain_grad)[:, 0] / (grad / plain_grad)[0, 0]
    torch.testing.assert_close(ratio, (POS_IOU / POS_IOU[0]) ** 1.5)
    # w_loc still multiplies it.
    torch.testing.assert_close(
        iou_balanced_smooth_l1_loss(pred, target, POS_IOU, normalize=True, weight=2.0), 2 * plain
    )


def test_eq_7_without_any_overlap_is_the_plain_loss():
    pred, target = example(torch.float32)
    plain, plain_grad = grad_of(SmoothL1Loss(beta=1 / 9), pred, target)
    value, grad = grad_of(iou_balanced_smooth_l1_loss, pred, target, torch.zeros(P), normalize=True)
    assert torch.equal(value, plain) and torch.equal(grad, plain_grad)
    pos_iou = torch.tensor([0, 0, 1e-30, 0, 0])
    value, grad = grad_of(iou_balanced_smooth_l1_loss, pred, target, pos_iou, normalize=True)
    torch.testing.assert_close(value, plain)
    assert grad.isfinite().all() and (grad[[0, 1, 3, 4]] == 0).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_no_gradient_into_the_iou(normalize):
    pred, target = example()
    pred.requires_grad_()
    pos_iou = POS_IOU.clone().requires_grad_()
    iou_balanced_smooth_l1_loss(pred, target, pos_iou, normalize=normalize).backward()
    assert pred.grad is not None and pos_iou.grad is None


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("beta", [0.0, 1 / 9])
def test_gradcheck(beta, reduction):
    # Eq. 6 only: the weights of Eq. 7 move with the deltas, which the gradient must not see.
    pred, target = example()
    assert torch.autograd.gradcheck(
        lambda x: iou_balanced_smooth_l1_loss(
            x, target, POS_IOU, beta=beta, weight=2.0, reduction=reduction
        ),
        pred.requires_grad_(),
    )


def test_deltas_that_are_no_table():
    with pytest.raises(ValueError, match=r"`pred_deltas` and `gt_deltas` of the same shape"):
        iou_balanced_smooth_l1_loss(torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(2))
    # (P,) with weights (P, 1) would spread to (P, P).
    with pytest.raises(ValueError, match=r"`pred_deltas`.*\(2,\)"):
        iou_balanced_smooth_l1_loss(torch.zeros(2), torch.zeros(2), torch.zeros(2))


def test_module_is_the_function():
    pred, target = example()
    kwargs = {"lam": 1.0, "weight": 2.5, "beta": 0.2, "normalize": True, "reduction": "mean"}
    module = IoUBalancedSmoothL1Loss(**kwargs)
    value, grad = grad_of(module, pred, target, POS_IOU)
    expected, expected_grad = grad_of(iou_balanced_smooth_l1_loss, pred, target, POS_IOU, **kwargs)
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    assert module.w_loc == 2.5 and module.needs_pos_iou
    assert repr(module) == (
        "IoUBalancedSmoothL1Loss(lam=1.0, weight=2.5, normalize=True, beta=0.2, "
        "reduction='mean', across_processes=True)"
    )
    assert repr(SmoothL1Loss()) == "SmoothL1Loss(beta=0, reduction='sum')"
