import math

import pytest
import torch
import torch.nn.functional as F

from iou_balanced.losses import (
    IoUBalancedCrossEntropyLoss,
    SoftmaxCrossEntropyLoss,
    iou_balanced_cross_entropy,
)

from .paper import iou_balanced_softmax_terms, value_and_grad

K = 3
LABELS = torch.tensor([0, 3, -1, 2, 1, 3, -1])
POSITIVES = torch.tensor([0, 3, 4])
POS_IOU = torch.tensor([0.9, 0.1, 0.6])


def example(dtype=torch.float64):
    return 2 * torch.randn(7, K + 1, dtype=dtype)


def grad_of(loss_fn, logits, *args, **kwargs):
    logits = logits.clone().requires_grad_()
    loss = loss_fn(logits, *args, **kwargs)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), grad


def test_by_hand():
    # One class and background, logits (0, 0) and (ln 3, 0): p = 1/2, 3/4; the same numbers as in
    # the sigmoid test: weights 0.8504, 1.3606. dCE/dx of the label's column is w (p - 1), of the
    # other w (1 - p). The background sample, p = 1/2, keeps weight 1.
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, 0.0]])
    labels, pos_iou = torch.tensor([0, 0, 1]), torch.tensor([0.25, 0.64])
    value, grad = grad_of(iou_balanced_cross_entropy, logits, labels, pos_iou, eta=0.5)
    assert value.item() == pytest.approx(2 * math.log(2) + math.log(4 / 3))
    expected = torch.tensor([[-0.425176, 0.425176], [-0.340140, 0.340140], [0.5, -0.5]])
    torch.testing.assert_close(grad, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("eta", [0.5, 1.5, 3.0])
def test_equals_paper(eta):
    logits = example()
    total, terms, expected_grad = value_and_grad(
        iou_balanced_softmax_terms, logits, LABELS.tolist(), POS_IOU.tolist(), eta=eta
    )
    # "mean" divides by the 5 samples that are not ignored.
    for reduction, divisor in [("sum", 1), ("mean", 5), ("none", 1)]:
        value, grad = grad_of(
            iou_balanced_cross_entropy, logits, LABELS, POS_IOU, eta=eta, reduction=reduction
        )
        if reduction == "none":
            torch.testing.assert_close(value, terms)
        else:
            assert value.item() == pytest.approx(total / divisor)
        torch.testing.assert_close(grad, expected_grad / divisor)


def test_the_sum_stays_and_the_gradients_differ():
    logits = example()
    plain, plain_grad = grad_of(F.cross_entropy, logits, LABELS, ignore_index=-1, reduction="none")
    value, grad = grad_of(iou_balanced_cross_entropy, logits, LABELS, POS_IOU, reduction="none")
    torch.testing.assert_close(value[POSITIVES].sum(), plain[POSITIVES].sum())
    ratio = grad[POSITIVES] / plain_grad[POSITIVES]
    # Every column of a positive's row has the row's weight, and the weights go as IoU^1.5.
    power = POS_IOU.double() ** 1.5
    torch.testing.assert_close(ratio / ratio[:1], (power / power[0])[:, None].expand(3, K + 1))
    others = torch.tensor([1, 2, 5, 6])
    assert torch.equal(grad[others], plain_grad[others])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_eta_0_is_the_plain_loss(reduction):
    logits = example(torch.float32)
    plain, plain_grad = grad_of(
        F.cross_entropy, logits, LABELS, ignore_index=-1, reduction=reduction
    )
    for loss in [
        SoftmaxCrossEntropyLoss(reduction=reduction),
        IoUBalancedCrossEntropyLoss(eta=0, reduction=reduction),
    ]:
        assert not loss.needs_pos_iou
        value, grad = grad_of(loss, logits, LABELS)
        torch.testing.assert_close(value, plain)
        torch.testing.assert_close(grad, plain_grad)
    value, grad = grad_of(
        iou_balanced_cross_entropy, logits, LABELS, POS_IOU, eta=0, reduction=reduction
    )
    module_value, module_grad = grad_of(
        SoftmaxCrossEntropyLoss(reduction=reduction), logits, LABELS
    )
    assert torch.equal(value, module_value) and torch.equal(grad, module_grad)


def test_all_ious_0_fall_back_and_a_tiny_one_does_not_overflow():
    logits = example(torch.float32)
    plain, plain_grad = grad_of(SoftmaxCrossEntropyLoss(), logits, LABELS)
    value, grad = grad_of(iou_balanced_cross_entropy, logits, LABELS, torch.zeros(3))
    assert torch.equal(value, plain) and torch.equal(grad, plain_grad)
    pos_iou = torch.tensor([0.0, 1e-30, 0.0])
    value, grad = grad_of(iou_balanced_cross_entropy, logits, LABELS, pos_iou)
    torch.testing.assert_close(value, plain)
    assert grad.isfinite().all() and (grad[POSITIVES[[0, 2]]] == 0).all()


def test_no_gradient_into_the_iou():
    pos_iou = POS_IOU.clone().requires_grad_()
    logits = example().requires_grad_()
    iou_balanced_cross_entropy(logits, LABELS, pos_iou).backward()
    assert logits.grad is not None and pos_iou.grad is None


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_gradcheck(reduction):
    # Only with eta = 0: numerical differentiation would see Eq. 4's weights move.
    assert torch.autograd.gradcheck(
        lambda x: iou_balanced_cross_entropy(x, LABELS, None, eta=0, reduction=reduction),
        example().requires_grad_(),
    )


def test_extreme_logits_and_int32_labels():
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]])
    labels = torch.tensor([1, 1], dtype=torch.int32)
    value, grad = grad_of(iou_balanced_cross_entropy, logits, labels, torch.zeros(0))
    assert value.item() == 200
    torch.testing.assert_close(grad, torch.tensor([[1.0, -1.0], [0.0, 0.0]]))


def test_module_is_the_function():
    logits = example()
    module = IoUBalancedCrossEntropyLoss(eta=1.0, reduction="mean")
    value, grad = grad_of(module, logits, LABELS, POS_IOU)
    expected, expected_grad = grad_of(
        iou_balanced_cross_entropy, logits, LABELS, POS_IOU, eta=1.0, reduction="mean"
    )
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    assert module.needs_pos_iou and not module.state_dict()
    assert repr(module) == (
        "IoUBalancedCrossEntropyLoss(eta=1.0, reduction='mean', across_processes=True)"
    )
    assert repr(SoftmaxCrossEntropyLoss()) == "SoftmaxCrossEntropyLoss(reduction='sum')"


def test_bad_arguments():
    logits = example()
    with pytest.raises(ValueError, match=r"`pred_logits` of shape \(M, K \+ 1\)"):
        iou_balanced_cross_entropy(logits[None], LABELS[None], POS_IOU)
    with pytest.raises(ValueError, match=r"`pos_iou` .* shape \(3,\), but got \(2,\)"):
        iou_balanced_cross_entropy(logits, LABELS, POS_IOU[:2])
    with pytest.raises(ValueError, match=r"`pos_iou` with eta=1\.5, but got None"):
        IoUBalancedCrossEntropyLoss()(logits, LABELS)
