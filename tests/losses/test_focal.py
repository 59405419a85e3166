import math

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss as fvcore_focal_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iou_balanced.losses import SigmoidFocalLoss, sigmoid_focal_loss
from iou_balanced.losses.fused import chunks

from .paper import focal_terms, value_and_grad

K = 3
# Every kind of row, in another order for each of two images.
LABELS = torch.tensor([[0, 3, -1, 2, 1, 3], [-1, 1, 3, 3, -1, 2]])


def logits_like(labels, num_classes=K, dtype=torch.float64):
    return 3 * torch.randn(*labels.shape, num_classes, dtype=dtype)


def grad_of(loss_fn, logits, *args, **kwargs):
    """Value, and the gradient of its sum with the weights 1, 2, 3, ... where it is not a scalar."""
    logits = logits.clone().requires_grad_()
    loss = loss_fn(logits, *args, **kwargs)
    scale = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).reshape(loss.shape)
    (grad,) = torch.autograd.grad((loss * scale).sum(), logits)
    return loss.detach(), grad


def fvcore_reference(logits, labels, **kwargs):
    valid = labels >= 0
    targets = F.one_hot(labels[valid], logits.shape[-1] + 1)[:, :-1].to(logits.dtype)
    return fvcore_focal_loss(logits[valid], targets, reduction="sum", **kwargs)


def test_by_hand():
    # Logit 0: p = 1/2, -log p = ln 2, modulation (1/2)^2 = 1/4. One positive column with
    # alpha = 1/4, one background column with 3/4: (1/4 + 3/4) * 1/4 * ln 2.
    loss = sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(2) / 4)
    # Logit ln 3: p = 3/4. Positive: 1/4 * (1/4)^2 * ln(4/3).
    loss = sigmoid_focal_loss(torch.tensor([[math.log(3)]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(4 / 3) / 64)
    # The same as background (label K = 1): 3/4 * (3/4)^2 * ln 4.
    loss = sigmoid_focal_loss(torch.tensor([[math.log(3)]]), torch.tensor([1]))
    assert loss.item() == pytest.approx(27 / 64 * math.log(4))


def test_gradient_by_hand():
    # gamma = 1, alpha off, logit 0: background is p softplus(x), whose derivative is
    # p (1 - p) softplus(x) + p^2 = ln 2 / 4 + 1/4; foreground is its mirror image.
    logits = torch.zeros(1, 2, requires_grad=True)
    sigmoid_focal_loss(logits, torch.tensor([1]), alpha=-1, gamma=1.0).backward()
    expected = math.log(2) / 4 + 0.25
    torch.testing.assert_close(logits.grad, torch.tensor([[expected, -expected]]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [-1, 0.0, 0.25, 1.0])
def test_equals_fvcore(alpha, gamma):
    logits = logits_like(LABELS, dtype=torch.float32)
    value, grad = grad_of(sigmoid_focal_loss, logits, LABELS, alpha=alpha, gamma=gamma)
    expected, expected_grad = grad_of(fvcore_reference, logits, LABELS, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)
    assert (grad[LABELS == -1] == 0).all()


def test_gamma_0_is_binary_cross_entropy():
    logits = logits_like(LABELS)
    value, grad = grad_of(sigmoid_focal_loss, logits, LABELS, alpha=-1, gamma=0.0)

    def bce(logits):
        valid = LABELS >= 0
        targets = F.one_hot(LABELS[valid], K + 1)[:, :K].double()
        return F.binary_cross_entropy_with_logits(logits[valid], targets, reduction="sum")

    expected, expected_grad = grad_of(bce, logits)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(dtype, gamma):
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0], [100.0, -100.0]], dtype=dtype)
    labels = torch.tensor([0, 0, 2])
    value, grad = grad_of(sigmoid_focal_loss, logits, labels, gamma=gamma)
    # A wrong score of 100 costs its logit: 1/4 * 100 for the positive of row 1, 3/4 * 100 for
    # column 1 of row 1 and for column 0 of row 2. A right one costs nothing.
    assert value.item() == pytest.approx(25 + 75 + 75)
    expected = torch.tensor([[0, 0], [-0.25, 0.75], [0.75, 0]], dtype=dtype)
    torch.testing.assert_close(grad, expected)
    total, _, paper_grad = value_and_grad(
        focal_terms, logits, labels.tolist(), alpha=0.25, gamma=gamma
    )
    assert total == pytest.approx(175)
    torch.testing.assert_close(grad.double(), paper_grad, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("weights", ["K", "NK"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_class_weight_equals_paper(weights, reduction):
    logits = logits_like(LABELS)
    table = torch.rand(2, K, dtype=torch.float64) * 4
    class_weight = table[0] if weights == "K" else table
    per_row = [table[0 if weights == "K" else i // 6].tolist() for i in range(12)]
    total, terms, expected_grad = value_and_grad(
        focal_terms,
        logits.reshape(12, K),
        LABELS.flatten().tolist(),
        alpha=0.25,
        gamma=2.0,
        class_weight=per_row,
    )
    x = logits.clone().requires_grad_()
    loss = sigmoid_focal_loss(x, LABELS, class_weight=class_weight, reduction=reduction)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    # 3 of the 12 rows are ignored: "mean" divides by 9 * K elements.
    divisor = 9 * K if reduction == "mean" else 1
    if reduction == "none":
        torch.testing.assert_close(loss.detach(), terms.reshape(2, 6, K))
    else:
        assert loss.item() == pytest.approx(total / divisor)
    torch.testing.assert_close(grad, expected_grad.reshape(2, 6, K) / divisor)


def test_ones_as_class_weight_change_nothing():
    logits = logits_like(LABELS, dtype=torch.float32)
    plain, plain_grad = grad_of(sigmoid_focal_loss, logits, LABELS)
    for shape in [(K,), (2, K)]:
        value, grad = grad_of(sigmoid_focal_loss, logits, LABELS, class_weight=torch.ones(shape))
        torch.testing.assert_close(value, plain)
        assert torch.equal(grad, plain_grad)


@pytest.mark.parametrize("shape", [(K,), (2, K)])
def test_no_gradient_into_class_weight(shape):
    class_weight = torch.rand(shape, requires_grad=True)
    logits = logits_like(LABELS, dtype=torch.float32).requires_grad_()
    sigmoid_focal_loss(logits, LABELS, class_weight=class_weight).backward()
    assert class_weight.grad is None


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_gradcheck(reduction, gamma):
    logits = logits_like(LABELS).requires_grad_()
    weight = torch.rand(2, K, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(
            x, LABELS, gamma=gamma, class_weight=weight, reduction=reduction
        ),
        logits,
    )


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 6, 100])
@pytest.mark.parametrize("weights", [None, "K", "NK"])
def test_chunks_do_not_show(monkeypatch, num_rows, weights):
    # 6 rows an image: positives and ignored rows come first and last in some chunk.
    class_weight = {None: None, "K": torch.rand(K), "NK": torch.rand(2, K)}[weights]
    logits = logits_like(LABELS)
    expected = {
        reduction: grad_of(
            sigmoid_focal_loss, logits, LABELS, class_weight=class_weight, reduction=reduction
        )
        for reduction in ["sum", "mean", "none"]
    }
    # Not a multiple of K: the rest must not be lost.
    monkeypatch.setattr(chunks, "_CHUNK", {"cpu": num_rows * K + 1})
    for reduction, (value, grad) in expected.items():
        chunked_value, chunked_grad = grad_of(
            sigmoid_focal_loss, logits, LABELS, class_weight=class_weight, reduction=reduction
        )
        torch.testing.assert_close(chunked_value, value, rtol=1e-14, atol=0)
        torch.testing.assert_close(chunked_grad, grad, rtol=1e-14, atol=0)


def test_more_than_one_chunk_of_the_real_size():
    classes = 80
    labels = torch.randint(-1, classes + 1, (2, 2500))
    border = chunks._CHUNK["cpu"] // classes
    assert border < 2500
    labels[:, border - 1 : border + 1] = torch.tensor([[5, -1], [-1, 7]])
    logits = logits_like(labels, classes, dtype=torch.float32)
    value, grad = grad_of(sigmoid_focal_loss, logits, labels)
    expected, expected_grad = grad_of(fvcore_reference, logits, labels, alpha=0.25)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


class NewTensors(TorchDispatchMode):
    """Number of elements and dtype of every tensor that gets memory of its own."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = {
            x.untyped_storage().data_ptr()
            for x in tree_leaves((args, kwargs))
            if isinstance(x, torch.Tensor)
        }
        out = func(*args, **kwargs)
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.made.append((x.numel(), x.dtype))
        return out


def test_memory_is_one_tensor_of_the_size_of_the_logits():
    classes = 80
    labels = torch.randint(-1, classes + 1, (2, 3000))
    logits = logits_like(labels, classes, dtype=torch.float32).requires_grad_()
    size = logits.numel()
    with NewTensors() as forward:
        loss = sigmoid_focal_loss(logits, labels, class_weight=torch.rand(2, classes))
    with NewTensors() as backward:
        loss.backward()
    # Forward: the gradient. Everything else is as large as a chunk, or has one entry a row.
    assert [x for x in forward.made if x[0] >= size] == [(size, torch.float32)]
    assert max(n for n, _ in forward.made if n != size) <= chunks._CHUNK["cpu"]
    # A one-hot table would be (rows, K) or (rows, K + 1) of int64.
    wide = [n for n, dtype in forward.made if dtype == torch.int64]
    assert max(wide) <= labels.numel()
    # Backward: it is scaled in place; at most a copy into .grad.
    assert len([n for n, _ in backward.made if n >= size]) <= 1


def test_no_gradient_wanted_needs_no_such_tensor():
    labels = torch.randint(-1, 81, (1, 3000))
    logits = logits_like(labels, 80, dtype=torch.float32)
    with NewTensors() as forward, torch.no_grad():
        sigmoid_focal_loss(logits, labels)
    assert max(n for n, _ in forward.made) <= chunks._CHUNK["cpu"]


def test_layout_of_the_logits_does_not_matter():
    wide = logits_like(LABELS.t(), 2 * K)
    logits = wide.transpose(0, 1)[:, :, ::2]
    assert not logits.is_contiguous()
    value, grad = grad_of(sigmoid_focal_loss, logits.contiguous(), LABELS, reduction="none")
    wide.requires_grad_()
    loss = sigmoid_focal_loss(wide.transpose(0, 1)[:, :, ::2], LABELS, reduction="none")
    scale = torch.arange(1, loss.numel() + 1).reshape(loss.shape)
    (wide_grad,) = torch.autograd.grad((loss * scale).sum(), wide)
    torch.testing.assert_close(loss.detach(), value)
    torch.testing.assert_close(wide_grad.transpose(0, 1)[:, :, ::2], grad)


def test_any_leading_shape_and_int32_labels():
    logits = logits_like(LABELS)
    expected = sigmoid_focal_loss(logits, LABELS)
    flat = sigmoid_focal_loss(logits.reshape(12, K), LABELS.flatten().int())
    deep = sigmoid_focal_loss(logits.reshape(2, 2, 3, K), LABELS.reshape(2, 2, 3))
    torch.testing.assert_close(flat, expected)
    torch.testing.assert_close(deep, expected)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits[0, 0], LABELS[0, 0]),
        sigmoid_focal_loss(logits[:1, 0], LABELS[:1, 0]),
    )


def test_module_is_the_function():
    logits = logits_like(LABELS)
    module = SigmoidFocalLoss(alpha=0.4, gamma=1.0, reduction="mean")
    weight = torch.rand(2, K)
    value, grad = grad_of(module, logits, LABELS, class_weight=weight)
    expected, expected_grad = grad_of(
        sigmoid_focal_loss,
        logits,
        LABELS,
        alpha=0.4,
        gamma=1.0,
        class_weight=weight,
        reduction="mean",
    )
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    assert repr(module) == "SigmoidFocalLoss(alpha=0.4, gamma=1.0, reduction='mean')"
    assert not module.needs_pos_iou and not module.state_dict()


def test_a_second_derivative_is_refused():
    """It would be 0 without a word, because the backward pass is written by hand."""
    logits = torch.randn(4, 3, requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 3, 1, -1]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, logits, create_graph=True)
