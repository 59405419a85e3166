import math

import pytest
import torch

from iou_balanced import losses as L

# No errors at the kinks 0 and beta.
ERRORS = torch.linspace(-0.985, 0.985, 40, dtype=torch.float64)


def test_eq_9_by_hand():
    # Target 10 wide, centre off by 2: two boxes of 10, 8 in common, union 12.
    offset, width = torch.tensor([0.0, 2, -2, 10, 15]), torch.tensor(10.0)
    expected = torch.tensor([1.0, 8 / 12, 8 / 12, 0, 0])
    torch.testing.assert_close(L.bounded_iou_center(offset, width), expected)


def test_eq_10_by_hand():
    # 8 of 10 covered, and 10 of 12.5.
    torch.testing.assert_close(
        L.bounded_iou_size(torch.tensor([8.0, 12.5, 10]), torch.tensor(10.0)),
        torch.tensor([0.8, 0.8, 1.0]),
    )


def test_eq_11_is_eq_9_in_the_encoding():
    # d^cx = dx / w_s: anchor 8 wide, target 10 wide, d = 1/4 is 2 pixels: 8 / 12.
    d = torch.tensor([0.25, -0.25])
    value = L.bounded_iou_center_from_offset(d, size_ratio=8 / 10)
    torch.testing.assert_close(value, torch.tensor([8 / 12, 8 / 12]))
    torch.testing.assert_close(
        L.bounded_iou_center_from_offset(ERRORS, 0.8),
        L.bounded_iou_center(8 * ERRORS, torch.tensor(10.0, dtype=torch.float64)),
    )


def test_eq_12_is_eq_10_in_the_encoding():
    # d^w = log(w_p / w_t): e^-|log 0.8| = 0.8.
    d = torch.tensor([math.log(0.8), -math.log(0.8)])
    torch.testing.assert_close(L.bounded_iou_size_from_offset(d), torch.tensor([0.8, 0.8]))
    torch.testing.assert_close(
        L.bounded_iou_size_from_offset(ERRORS),
        L.bounded_iou_size(10 * ERRORS.exp(), torch.tensor(10.0, dtype=torch.float64)),
    )


@pytest.mark.parametrize("direction", ["x", "w"])
def test_the_bounds_are_the_iou_where_nothing_else_differs(direction):
    # They are upper bounds; with the other three parameters right, they are the IoU itself.
    target = torch.tensor([[0.0, 0, 1, 1]], dtype=torch.float64).repeat(len(ERRORS), 1)
    boxes = target.clone()
    if direction == "x":
        boxes[:, 0::2] += ERRORS[:, None]
        bound = L.bounded_iou_center_from_offset(ERRORS)
    else:
        boxes[:, 0] = 0.5 - ERRORS.exp() / 2
        boxes[:, 2] = 0.5 + ERRORS.exp() / 2
        bound = L.bounded_iou_size_from_offset(ERRORS)
    torch.testing.assert_close(L.elementwise_box_iou(boxes, target), bound)
    boxes[:, 1::2] += 0.2
    assert (L.elementwise_box_iou(boxes, target) < bound).all()


def test_eq_8_by_hand():
    d = torch.tensor([-1.0, -0.1, 0.0, 0.05, 0.2, 3.0])
    expected = torch.tensor([-1, -0.5, 0, 0.25, 1, 1])
    torch.testing.assert_close(L.smooth_l1_gradient(d, beta=0.2), expected)
    assert L.smooth_l1_gradient(d, beta=0).tolist() == [-1, -1, 0, 1, 1, 1]


def test_eq_13_and_14_by_hand():
    # d = 1/3: (1 - 1/3) / (1 + 1/3) = 1/2; beyond beta, so 2 * (1/2)^1.5. d = -0.05 within
    # beta = 0.1: (0.95 / 1.05)^1.5 * -1/2, times 2.
    d = torch.tensor([1 / 3, -0.05])
    value = L.smooth_l1_gradient_bound_center(d, lam=1.5, weight=2.0, beta=0.1)
    expected = torch.tensor([2 * 0.5**1.5, -((0.95 / 1.05) ** 1.5)])
    torch.testing.assert_close(value, expected)
    value = L.smooth_l1_gradient_bound_size(d, lam=1.5, weight=2.0, beta=0.1)
    expected = torch.tensor([2 * math.exp(-0.5), -math.exp(-0.075)])
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 0.5])
@pytest.mark.parametrize("lam, weight", [(0.0, 1.0), (1.5, 3.049), (1.8, 3.649)])
@pytest.mark.parametrize(
    "bound, gradient",
    [
        (L.bounded_iou_center_from_offset, L.smooth_l1_gradient_bound_center),
        (L.bounded_iou_size_from_offset, L.smooth_l1_gradient_bound_size),
    ],
)
def test_eq_13_and_14_are_the_gradient_of_the_loss_at_the_bound(bound, gradient, lam, weight, beta):
    deltas = torch.zeros(len(ERRORS), 4, dtype=torch.float64)
    deltas[:, 2] = ERRORS
    deltas.requires_grad_()
    L.iou_balanced_smooth_l1_loss(
        deltas, torch.zeros_like(deltas), bound(ERRORS), lam=lam, weight=weight, beta=beta
    ).backward()
    expected = gradient(ERRORS, lam=lam, weight=weight, beta=beta)
    torch.testing.assert_close(deltas.grad[:, 2], expected)


@pytest.mark.parametrize(
    "gradient", [L.smooth_l1_gradient_bound_center, L.smooth_l1_gradient_bound_size]
)
@pytest.mark.parametrize("lam, weight", [(0.5, 1.575), (1.0, 2.226), (1.5, 3.049), (1.8, 3.649)])
def test_figure_2(gradient, lam, weight):
    # With the w_loc of Table 3 inliers get more gradient than in the baseline, outliers less.
    d = torch.linspace(0.01, 0.99, 99)
    plain = L.smooth_l1_gradient(d)
    norm = gradient(d, lam=lam, weight=weight)
    torch.testing.assert_close(gradient(d, lam=0.0, weight=1.0), plain)
    assert (norm[d < 0.2] > plain[d < 0.2]).all()
    assert (norm[d > 0.95] < plain[d > 0.95]).all()
    # The two curves cross once, and beyond beta the norm only falls.
    assert (norm > plain).int().diff().abs().sum() == 1
    assert (norm[d > 1 / 9].diff() < 0).all()
    # Odd in d.
    torch.testing.assert_close(gradient(-d, lam=lam, weight=weight), -norm)
