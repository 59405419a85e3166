"""Logits as a list of levels give what one tensor gives."""

import pytest
import torch

from iou_balanced import losses as L

N, K, SIZES = 3, 4, (7, 0, 5, 2)
REDUCTIONS = ["sum", "mean", "none"]


def example(dtype=torch.float64):
    levels = [torch.randn(N, size, K, dtype=dtype, requires_grad=True) for size in SIZES]
    labels = torch.randint(-1, K + 1, (N, sum(SIZES)))
    labels[1, :7] = K  # a level without positives in one image
    num_pos = int(((labels >= 0) & (labels < K)).sum())
    return levels, labels, torch.rand(num_pos, dtype=dtype)


def value_and_grads(loss, levels, *args, **kwargs):
    value = loss(levels, *args, **kwargs)
    scale = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    return value, torch.autograd.grad(value, levels, scale)


@pytest.mark.parametrize("weight", [None, (K,), (N, K)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("eta", [0, 1.5])
def test_equals_one_tensor(eta, reduction, weight):
    levels, labels, pos_iou = example()
    kwargs = dict(eta=eta, reduction=reduction)
    if weight is not None:
        kwargs["class_weight"] = torch.rand(weight, dtype=torch.float64)

    def together(levels, *args, **kwargs):
        return L.iou_balanced_focal_loss(torch.cat(levels, dim=1), *args, **kwargs)

    expected, expected_grads = value_and_grads(together, levels, labels, pos_iou, **kwargs)
    value, grads = value_and_grads(L.iou_balanced_focal_loss, levels, labels, pos_iou, **kwargs)
    torch.testing.assert_close(value, expected)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("eta", [0, 1.5])
def test_cross_entropy_equals_one_tensor(eta, reduction):
    levels, labels, _ = example()  # the last column is the background's here
    labels[labels == K] = K - 1
    pos_iou = torch.rand(int(((labels >= 0) & (labels < K - 1)).sum()), dtype=torch.float64)

    def together(levels, labels, *args, **kwargs):
        logits = torch.cat(levels, dim=1).flatten(0, 1)
        loss = L.iou_balanced_cross_entropy(logits, labels.flatten(), *args, **kwargs)
        return loss.view_as(labels) if loss.dim() else loss

    kwargs = dict(eta=eta, reduction=reduction)
    expected, expected_grads = value_and_grads(together, levels, labels, pos_iou, **kwargs)
    value, grads = value_and_grads(L.iou_balanced_cross_entropy, levels, labels, pos_iou, **kwargs)
    torch.testing.assert_close(value, expected)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad)
    assert L.SoftmaxCrossEntropyLoss.takes_levels and L.IoUBalancedCrossEntropyLoss.takes_levels


def test_modules_say_that_they_take_them():
    levels, labels, pos_iou = example()
    for module, args in [(L.SigmoidFocalLoss(), ()), (L.IoUBalancedFocalLoss(), (pos_iou,))]:
        assert module.takes_levels
        expected = module(torch.cat(levels, dim=1), labels, *args)
        torch.testing.assert_close(module(levels, labels, *args), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    levels, labels, pos_iou = example(torch.float32)
    halves = [x.detach().to(dtype).requires_grad_() for x in levels]
    value, grads = value_and_grads(L.iou_balanced_focal_loss, halves, labels, pos_iou)
    assert value.dtype == torch.float32 and all(g.dtype == dtype for g in grads)
    single = [x.detach().float().requires_grad_() for x in halves]
    expected, _ = value_and_grads(L.iou_balanced_focal_loss, single, labels, pos_iou)
    assert torch.equal(value, expected)


def test_no_positives_at_all():
    levels, labels, _ = example()
    labels = torch.full_like(labels, K)
    value, grads = value_and_grads(L.iou_balanced_focal_loss, levels, labels, torch.zeros(0))
    assert value.isfinite() and all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize(
    "levels", [[], [torch.zeros(2, 3)], [torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)]]
)
def test_bad_shapes(levels):
    with pytest.raises(ValueError, match=r"hold one \(N, Ri, K\) a level, but got \["):
        L.sigmoid_focal_loss(levels, torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"or one \(N, Ri, K \+ 1\) a level, but got \["):
        L.iou_balanced_cross_entropy(levels, torch.zeros(2, 3, dtype=torch.int64), None, eta=0)


def test_labels_of_another_number_of_anchors():
    levels, labels, _ = example()
    with pytest.raises(
        ValueError, match=r"`gt_labels` to have the shape .*\(3, 14\), but got \(3, 13\)"
    ):
        L.sigmoid_focal_loss(levels, labels[:, 1:])
