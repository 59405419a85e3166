import math

import pytest
import torch

from iou_balanced.losses import (
    IoUBalancedFocalLoss,
    focal,
    iou_balanced_focal_loss,
    iou_ratio_weights,
    sigmoid_focal_loss,
)
from iou_balanced.losses.fused import chunks

from .paper import iou_balanced_focal_terms, value_and_grad, weights_eq4

K = 3
LABELS = torch.tensor([[0, 3, -1, 2, 1, 3], [-1, 1, 3, 3, -1, 2]])
POS_MASK = (LABELS >= 0) & (LABELS < K)
# The columns whose target is 1: (image, row, class) of each positive, in the order of pos_iou.
OWN = (*POS_MASK.nonzero(as_tuple=True), LABELS[POS_MASK])
POS_IOU = torch.tensor([0.9, 0.05, 0.6, 0.3, 1.0])


def example(dtype=torch.float64):
    return 3 * torch.randn(2, 6, K, dtype=dtype)


def grad_of(loss_fn, logits, *args, **kwargs):
    logits = logits.clone().requires_grad_()
    loss = loss_fn(logits, *args, **kwargs)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), grad


def test_by_hand():
    # gamma = 0 and no alpha: cross entropy. Two positives of the only class, logits 0 and ln 3:
    # p = 1/2, 3/4; CE = ln 2, ln 4/3 = 0.6931, 0.2877. IoU 0.25, 0.64 to the power 1/2: 0.5, 0.8.
    # Eq. 4: ratio (0.6931 + 0.2877) / (0.5 * 0.6931 + 0.8 * 0.2877) = 1.7007, so the weights are
    # 0.8504, 1.3606, and with dCE/dx = p - 1 the gradients -0.4252, -0.3401.
    logits = torch.tensor([[0.0], [math.log(3)]])
    labels, pos_iou = torch.tensor([0, 0]), torch.tensor([0.25, 0.64])
    value, grad = grad_of(
        iou_balanced_focal_loss, logits, labels, pos_iou, eta=0.5, alpha=-1, gamma=0.0
    )
    assert value.item() == pytest.approx(math.log(2) + math.log(4 / 3))
    torch.testing.assert_close(grad, torch.tensor([[-0.425176], [-0.340140]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("class_weight", [None, "K", "NK"])
@pytest.mark.parametrize("eta", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (-1, 0.0), (0.6, 0.5)])
def test_equals_paper(eta, alpha, gamma, class_weight):
    logits = example()
    table = torch.rand(2, K, dtype=torch.float64) * 4
    weight = {None: None, "K": table[0], "NK": table}[class_weight]
    per_row = None
    if class_weight is not None:
        per_row = [table[0 if class_weight == "K" else i // 6].tolist() for i in range(12)]
    total, terms, expected_grad = value_and_grad(
        iou_balanced_focal_terms,
        logits.reshape(12, K),
        LABELS.flatten().tolist(),
        POS_IOU.tolist(),
        eta=eta,
        alpha=alpha,
        gamma=gamma,
        class_weight=per_row,
    )
    # The elements that are not ignored: 9 of 12 rows.
    for reduction, divisor in [("sum", 1), ("mean", 9 * K), ("none", 1)]:
        value, grad = grad_of(
            iou_balanced_focal_loss,
            logits,
            LABELS,
            POS_IOU,
            eta=eta,
            alpha=alpha,
            gamma=gamma,
            class_weight=weight,
            reduction=reduction,
        )
        if reduction == "none":
            torch.testing.assert_close(value, terms.reshape(2, 6, K))
        else:
            assert value.item() == pytest.approx(total / divisor)
        torch.testing.assert_close(grad, expected_grad.reshape(2, 6, K) / divisor)


@pytest.mark.parametrize("class_weight", [None, torch.tensor([0.5, 3.0, 1.5])])
def test_only_the_gradients_of_own_columns_change_and_by_the_weights(class_weight):
    logits = example()
    kwargs = {"class_weight": class_weight, "reduction": "none"}
    plain, plain_grad = grad_of(sigmoid_focal_loss, logits, LABELS, **kwargs)
    value, grad = grad_of(iou_balanced_focal_loss, logits, LABELS, POS_IOU, **kwargs)
    # Class weights first: Eq. 4's ratio runs over the weighted terms.
    weights = torch.tensor(weights_eq4(plain[OWN], POS_IOU.tolist(), 1.5), dtype=torch.float64)
    assert weights.min() < 0.1 and weights.max() > 1.2
    torch.testing.assert_close(grad[OWN] / plain_grad[OWN], weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(value[OWN] / plain[OWN], weights, rtol=1e-6, atol=0)
    other = torch.ones_like(plain, dtype=torch.bool)
    other[OWN] = False
    assert torch.equal(grad[other], plain_grad[other])
    assert torch.equal(value[other], plain[other])
    # The sum stays, so that a test of the value alone would pass without the weights.
    torch.testing.assert_close(value[OWN].sum(), plain[OWN].sum())
    assert not torch.allclose(value[OWN], plain[OWN], rtol=0.1)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("class_weight", [None, torch.tensor([0.5, 3.0, 1.5])])
def test_eta_0_is_bitwise_the_plain_loss(reduction, class_weight):
    logits = example(torch.float32)
    kwargs = {"class_weight": class_weight, "reduction": reduction}
    plain, plain_grad = grad_of(sigmoid_focal_loss, logits, LABELS, **kwargs)
    for pos_iou in [POS_IOU, None]:
        value, grad = grad_of(iou_balanced_focal_loss, logits, LABELS, pos_iou, eta=0, **kwargs)
        assert torch.equal(value, plain) and torch.equal(grad, plain_grad)


def test_all_ious_0_fall_back_to_the_plain_loss():
    logits = example(torch.float32)
    plain, plain_grad = grad_of(sigmoid_focal_loss, logits, LABELS)
    value, grad = grad_of(iou_balanced_focal_loss, logits, LABELS, torch.zeros(5))
    assert torch.equal(value, plain) and torch.equal(grad, plain_grad)


def test_equal_ious_are_the_plain_loss():
    logits = example()
    _, plain_grad = grad_of(sigmoid_focal_loss, logits, LABELS)
    _, grad = grad_of(iou_balanced_focal_loss, logits, LABELS, torch.full((5,), 0.3))
    torch.testing.assert_close(grad, plain_grad)


@pytest.mark.parametrize("eta", [1.0, 1.5, 3.0])
def test_a_tiny_iou_does_not_overflow(eta):
    # (1e-30)^1.5 is 0 in float32, and the ratio 1e45 would be infinite.
    logits = example(torch.float32)
    _, plain_grad = grad_of(sigmoid_focal_loss, logits, LABELS)
    pos_iou = torch.tensor([0.0, 0.0, 1e-30, 0.0, 0.0])
    value, grad = grad_of(iou_balanced_focal_loss, logits, LABELS, pos_iou, eta=eta)
    assert value.isfinite() and grad.isfinite().all()
    # All of the sum goes to the one positive that has any overlap, none to the others.
    own = tuple(index[[0, 1, 3, 4]] for index in OWN)
    assert (grad[own] == 0).all()
    terms = sigmoid_focal_loss(logits, LABELS, reduction="none")[OWN]
    only = tuple(index[2] for index in OWN)
    torch.testing.assert_close(grad[only], plain_grad[only] * (terms.sum() / terms[2]))


def test_one_iou_0_among_others_silences_that_positive():
    pos_iou = torch.tensor([0.9, 0.0, 0.6, 0.3, 1.0])
    _, grad = grad_of(iou_balanced_focal_loss, example(), LABELS, pos_iou)
    assert (grad[OWN] == 0).tolist() == [False, True, False, False, False]


def test_no_gradient_into_iou_or_class_weight():
    pos_iou = POS_IOU.clone().requires_grad_()
    weight = torch.rand(2, K, requires_grad=True)
    logits = example(torch.float32).requires_grad_()
    iou_balanced_focal_loss(logits, LABELS, pos_iou, class_weight=weight).backward()
    assert logits.grad is not None and pos_iou.grad is None and weight.grad is None


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_gradcheck_at_fixed_weights(reduction):
    # Numerical differentiation would see Eq. 4's weights move with the logits, and the sum's
    # derivative would be the plain one. So the weights are held fixed here, and the tests above
    # say which weights the loss takes.
    logits, weight = example().requires_grad_(), torch.rand(2, K, dtype=torch.float64)
    pos_weight = torch.rand(5, dtype=torch.float64) * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(focal, "iou_ratio_weights", lambda *args, **kwargs: pos_weight)
        assert torch.autograd.gradcheck(
            lambda x: iou_balanced_focal_loss(
                x, LABELS, POS_IOU, class_weight=weight, reduction=reduction
            ),
            logits,
        )


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5])
@pytest.mark.parametrize("weights", [None, "NK"])
def test_chunks_do_not_show(monkeypatch, num_rows, weights):
    logits = example()
    kwargs = {"class_weight": None if weights is None else torch.rand(2, K), "reduction": "none"}
    value, grad = grad_of(iou_balanced_focal_loss, logits, LABELS, POS_IOU, **kwargs)
    monkeypatch.setattr(chunks, "_CHUNK", {"cpu": num_rows * K})
    chunked, chunked_grad = grad_of(iou_balanced_focal_loss, logits, LABELS, POS_IOU, **kwargs)
    torch.testing.assert_close(chunked, value, rtol=1e-14, atol=0)
    torch.testing.assert_close(chunked_grad, grad, rtol=1e-14, atol=0)


def test_a_nan_iou_stays_visible():
    pos_iou = torch.tensor([0.9, float("nan"), 0.6, 0.3, 1.0])
    assert iou_balanced_focal_loss(example(), LABELS, pos_iou).isnan()


class TestIoURatioWeights:
    def test_by_hand(self):
        # Terms 1, 3 and IoU^2 = 1/4, 1: ratio 4 / (1/4 + 3) = 16/13.
        weights = iou_ratio_weights(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0]), 2.0)
        torch.testing.assert_close(weights, torch.tensor([4 / 13, 16 / 13]))

    def test_exponent_0_and_nothing(self):
        assert iou_ratio_weights(torch.rand(2), torch.zeros(2), 0).tolist() == [1, 1]
        assert iou_ratio_weights(torch.rand(0), torch.rand(0), 1.5).shape == (0,)

    def test_dtype_and_gradient(self):
        terms = torch.rand(2, dtype=torch.float64, requires_grad=True)
        weights = iou_ratio_weights(terms, torch.rand(2, requires_grad=True), 1.5)
        assert weights.dtype == torch.float64 and not weights.requires_grad


def test_module_is_the_function():
    logits = example()
    module = IoUBalancedFocalLoss(eta=1.0, alpha=0.4, gamma=1.0, reduction="mean")
    kwargs = {"class_weight": torch.rand(2, K)}
    value, grad = grad_of(module, logits, LABELS, POS_IOU, **kwargs)
    kwargs |= {"eta": 1.0, "alpha": 0.4, "gamma": 1.0, "reduction": "mean"}
    expected, expected_grad = grad_of(iou_balanced_focal_loss, logits, LABELS, POS_IOU, **kwargs)
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    assert repr(module) == (
        "IoUBalancedFocalLoss(eta=1.0, alpha=0.4, gamma=1.0, reduction='mean', "
        "across_processes=True)"
    )
    assert module.needs_pos_iou and not module.state_dict()


def test_module_with_eta_0_needs_no_iou():
    module, logits = IoUBalancedFocalLoss(eta=0), example()
    assert not module.needs_pos_iou
    assert torch.equal(module(logits, LABELS), sigmoid_focal_loss(logits, LABELS))
