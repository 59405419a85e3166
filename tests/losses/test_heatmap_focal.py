import math

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss as fvcore_focal_loss

from iou_balanced.losses import (
    ClassWeights,
    PenaltyReducedFocalLoss,
    penalty_reduced_focal_loss,
)
from iou_balanced.losses.fused import chunks

from .heatmap_reference import example_heatmap, heatmap_terms
from .paper import value_and_grad
from .test_focal import NewTensors, grad_of

N, K, H, W = 2, 3, 3, 4
HEATMAP = example_heatmap()
TABLES = ["none", "K", "NK", "own", "other", "background", "row", "row of images", "all"]


def logits_like(heatmap, dtype=torch.float64):
    return 3 * torch.randn(heatmap.shape, dtype=dtype)


def make_tables(name):
    """`class_weight` of the loss, and the same as tables by kind for the reference."""

    def table(*shape):
        return torch.rand(shape, dtype=torch.float64) * 4

    if name == "none":
        return None, {}
    if name in ("K", "NK"):
        one = table(K) if name == "K" else table(N, K)
        return one, dict.fromkeys(["own", "other", "background"], one)
    if name == "all":
        kinds = {"own": table(N, K), "other": table(K), "background": table(N, K)}
        kinds["row"] = table(N, K + 1)
    elif name.startswith("row"):
        kinds = {"row": table(K + 1) if name == "row" else table(N, K + 1)}
    else:
        kinds = {name: table(N, K)}
    return ClassWeights(**kinds), kinds


def test_by_hand():
    # Logit ln 3: p = 3/4. A centre: (1/4)^2 ln(4/3). Ground truth 1/2: (1/2)^4 (3/4)^2 ln 4; and
    # 0: (3/4)^2 ln 4.
    logits = torch.full((1, 1, 1, 3), math.log(3), dtype=torch.float64)
    heatmap = torch.tensor([[[[1.0, 0.5, 0.0]]]], dtype=torch.float64)
    loss = penalty_reduced_focal_loss(logits, heatmap, reduction="none")
    expected = [math.log(4 / 3) / 16, 9 / 256 * math.log(4), 9 / 16 * math.log(4)]
    assert loss.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    total = penalty_reduced_focal_loss(logits, heatmap)
    assert total.item() == pytest.approx(sum(expected), rel=1e-12)
    # The largest value below 1 is no centre.
    below = torch.full_like(heatmap, 1 - 2**-53)
    assert penalty_reduced_focal_loss(logits, below).item() < 1e-60


def test_gradient_by_hand():
    # alpha = 1, beta = 2, logit 0: d/dx [p softplus(x)] = p (1 - p) softplus(x) + p^2, which is
    # ln 2 / 4 + 1/4. Ground truth 0: that; 1/2: a quarter of it; a centre: its mirror image.
    logits = torch.zeros(1, 1, 1, 3, requires_grad=True)
    heatmap = torch.tensor([[[[0.0, 0.5, 1.0]]]])
    penalty_reduced_focal_loss(logits, heatmap, alpha=1.0, beta=2.0).backward()
    slope = math.log(2) / 4 + 1 / 4
    expected = torch.tensor([slope, slope / 4, -slope]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(logits.grad, expected)


def test_kinds_by_hand():
    # Cells from left to right: background; a Gaussian's side of class 0; two classes with equal
    # values, of which class 0 is the label; a centre of class 1. Each element has its kind's
    # weight for its class, times that of the cell's label: 7 for class 0, 11 for 1, 13 for none.
    heatmap = torch.tensor([[[[0, 0.2, 0.3, 0.5]], [[0, 0, 0.3, 1]]]])
    weight = ClassWeights(
        own=torch.tensor([1.0, 2.0]),
        other=torch.tensor([3.0, 4.0]),
        background=torch.tensor([5.0, 6.0]),
        row=torch.tensor([7.0, 11.0, 13.0]),
    )
    logits = logits_like(heatmap, torch.float32)
    plain = penalty_reduced_focal_loss(logits, heatmap, reduction="none")
    loss = penalty_reduced_focal_loss(logits, heatmap, class_weight=weight, reduction="none")
    expected = torch.tensor([[[[65.0, 7, 7, 11]], [[78, 28, 14, 22]]]])
    torch.testing.assert_close(loss / plain, expected)


@pytest.mark.parametrize("alpha, beta", [(2.0, 4.0), (0.0, 0.0), (0.5, 1.5), (2, 0), (0, 3)])
@pytest.mark.parametrize("tables", TABLES)
def test_equals_the_reference(tables, alpha, beta):
    logits, (class_weight, by_kind) = logits_like(HEATMAP), make_tables(tables)
    total, terms, expected_grad = value_and_grad(
        heatmap_terms, logits, HEATMAP, alpha=alpha, beta=beta, tables=by_kind
    )
    kwargs = {"alpha": alpha, "beta": beta, "class_weight": class_weight}
    for reduction, divisor in [("sum", 1), ("mean", N * K * H * W), ("none", 1)]:
        x = logits.clone().requires_grad_()
        loss = penalty_reduced_focal_loss(x, HEATMAP, reduction=reduction, **kwargs)
        (grad,) = torch.autograd.grad(loss.sum(), x)
        if reduction == "none":
            torch.testing.assert_close(loss.detach(), terms.reshape(HEATMAP.shape))
        else:
            assert loss.item() == pytest.approx(total / divisor, rel=1e-9)
        torch.testing.assert_close(grad, expected_grad / divisor)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_without_gaussians_it_is_focal_loss(alpha):
    # fvcore computes in float32.
    heatmap = (HEATMAP == 1).float()
    logits = logits_like(heatmap, torch.float32)
    value, grad = grad_of(penalty_reduced_focal_loss, logits, heatmap, alpha=alpha)
    expected, expected_grad = grad_of(
        fvcore_focal_loss, logits, heatmap, alpha=-1, gamma=alpha, reduction="sum"
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


def test_alpha_and_beta_0_is_binary_cross_entropy():
    logits, targets = logits_like(HEATMAP), (HEATMAP == 1).double()
    value, grad = grad_of(penalty_reduced_focal_loss, logits, HEATMAP, alpha=0, beta=0)

    def bce(logits):
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")

    expected, expected_grad = grad_of(bce, logits)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("alpha, beta", [(0.0, 0.0), (0.5, 1.0), (2.0, 4.0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_extreme_logits(dtype, alpha, beta):
    heatmap = torch.tensor([[[[1, 0, 0.5, 1, 0, 0.5]]]], dtype=dtype)
    logits = torch.tensor([[[[60, 60, 60, -60, -60, -60]]]], dtype=dtype)
    value, grad = grad_of(penalty_reduced_focal_loss, logits, heatmap, alpha=alpha, beta=beta)
    # A wrong score of 60 costs its logit, at the side of a centre (1/2)^beta of it, and has a
    # slope of 1, which no clamp hides. A right one costs nothing.
    side = 0.5**beta
    assert value.item() == pytest.approx(60 * (2 + side), rel=1e-6)
    expected = torch.tensor([[[[0, 1, side, -1, 0, 0]]]], dtype=dtype)
    torch.testing.assert_close(grad, expected, atol=1e-9, rtol=1e-6)


def test_an_infinite_right_score_costs_nothing():
    # What a float16 head may overflow to.
    logits = torch.tensor([[[[math.inf, -math.inf]]]])
    value, grad = grad_of(penalty_reduced_focal_loss, logits, torch.tensor([[[[1.0, 0.0]]]]))
    assert value == 0 and (grad[..., 1] == 0).all()


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("alpha, beta", [(2.0, 4.0), (0.0, 0.0), (1.5, 0.5)])
@pytest.mark.parametrize("tables", ["none", "NK", "all"])
def test_gradcheck(tables, alpha, beta, reduction):
    class_weight, _ = make_tables(tables)
    assert torch.autograd.gradcheck(
        lambda x: penalty_reduced_focal_loss(
            x, HEATMAP, class_weight=class_weight, alpha=alpha, beta=beta, reduction=reduction
        ),
        logits_like(HEATMAP).requires_grad_(),
    )


# One row of cells has K W = 12 elements, one image 36: parts of rows, of images, more images.
@pytest.mark.parametrize("elements", [1, 12, 30, 36, 71, 72, 1000])
@pytest.mark.parametrize("tables", ["none", "NK", "all"])
def test_chunks_do_not_show(monkeypatch, elements, tables):
    heatmap = torch.cat([HEATMAP, HEATMAP.flip(0, 2), HEATMAP[:1]])
    logits = logits_like(heatmap)
    class_weight, _ = make_tables(tables)
    if tables != "none":
        per_image = torch.arange(5) % N
        class_weight = (
            class_weight[per_image]
            if isinstance(class_weight, torch.Tensor)
            else ClassWeights(*(t[per_image] if t.dim() == 2 else t for t in class_weight))
        )
    for reduction in ["sum", "none"]:
        kwargs = {"class_weight": class_weight, "reduction": reduction}
        value, grad = grad_of(penalty_reduced_focal_loss, logits, heatmap, **kwargs)
        with monkeypatch.context() as patch:
            patch.setattr(chunks, "_CHUNK", {"cpu": elements})
            chunked, chunked_grad = grad_of(penalty_reduced_focal_loss, logits, heatmap, **kwargs)
        torch.testing.assert_close(chunked, value, rtol=1e-14, atol=0)
        torch.testing.assert_close(chunked_grad, grad, rtol=1e-14, atol=0)


@pytest.mark.parametrize("tables", ["none", "NK", "all"])
def test_memory_is_one_tensor_of_the_size_of_the_logits(tables):
    heatmap = torch.rand(2, 40, 64, 64) * (torch.rand(2, 40, 64, 64) < 0.02)
    logits = logits_like(heatmap, torch.float32).requires_grad_()
    size, saved = logits.numel(), []
    class_weight = {
        "none": None,
        "NK": torch.rand(2, 40),
        "all": ClassWeights(*torch.rand(3, 2, 40), torch.rand(2, 41)),
    }[tables]
    with (
        NewTensors() as forward,
        torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x),
    ):
        loss = penalty_reduced_focal_loss(logits, heatmap, class_weight=class_weight)
    # What is kept for the backward pass is the caller's: logits and ground truth.
    own = {logits.data_ptr(), heatmap.data_ptr()}
    assert {x.data_ptr() for x in saved if x.numel() >= size} == own
    # Forward: which elements are centres, a byte each; and the gradient.
    large = [(size, torch.bool), (size, torch.float32)]
    assert [x for x in forward.made if x[0] >= size] == large
    assert max(n for n, _ in forward.made if n != size) <= chunks._CHUNK["cpu"]
    with NewTensors() as backward:
        loss.backward()
    # At most a copy of it into .grad.
    assert len([n for n, _ in backward.made if n >= size]) <= 1


@pytest.mark.parametrize("tables", ["none", "all"])
def test_layout_does_not_matter(tables):
    class_weight, _ = make_tables(tables)
    logits = logits_like(HEATMAP)
    kwargs = {"class_weight": class_weight, "reduction": "none"}
    value, grad = grad_of(penalty_reduced_focal_loss, logits, HEATMAP, **kwargs)
    wide = torch.randn(H, 2 * W, N, K, dtype=torch.float64)
    wide[:, ::2] = logits.permute(2, 3, 0, 1)
    last = logits.contiguous(memory_format=torch.channels_last)
    gt_last = HEATMAP.contiguous(memory_format=torch.channels_last)
    strided = wide[:, ::2].permute(2, 3, 0, 1)
    assert not strided.is_contiguous() and not last.is_contiguous()
    for x, gt in [(last, HEATMAP), (last, gt_last), (logits, gt_last), (strided, HEATMAP)]:
        other_value, other_grad = grad_of(penalty_reduced_focal_loss, x, gt, **kwargs)
        torch.testing.assert_close(other_value, value)
        torch.testing.assert_close(other_grad, grad)
    (last_grad,) = torch.autograd.grad(
        penalty_reduced_focal_loss(last.requires_grad_(), HEATMAP), last
    )
    assert last_grad.is_contiguous(memory_format=torch.channels_last)


def test_module_is_the_function():
    logits, (class_weight, _) = logits_like(HEATMAP), make_tables("all")
    kwargs = {"alpha": 1.0, "beta": 3.0, "reduction": "mean"}
    module = PenaltyReducedFocalLoss(**kwargs)
    value, grad = grad_of(module, logits, HEATMAP, class_weight=class_weight)
    kwargs["class_weight"] = class_weight
    expected, expected_grad = grad_of(penalty_reduced_focal_loss, logits, HEATMAP, **kwargs)
    assert torch.equal(value, expected) and torch.equal(grad, expected_grad)
    assert repr(module) == "PenaltyReducedFocalLoss(alpha=1.0, beta=3.0, reduction='mean')"
    assert not module.needs_pos_iou and not module.state_dict()
