import pytest
import torch
from torchvision.ops import box_iou

from iou_balanced.losses import elementwise_box_iou


def random_boxes(count, dtype=torch.float32):
    corner = torch.rand(count, 2, dtype=dtype) * 50
    return torch.cat([corner, corner + torch.rand(count, 2, dtype=dtype) * 60 + 0.1], dim=1)


@pytest.mark.parametrize(
    "other, expected",
    [
        ([0, 0, 10, 10], 1.0),  # the same box
        ([5, 0, 15, 10], 1 / 3),  # half of each: 50 / (100 + 100 - 50)
        ([5, 5, 10, 10], 0.25),  # a quarter of it, inside
        ([8, 6, 18, 16], 8 / 192),  # 2 x 4 = 8 in common, 100 + 100 - 8
        ([10, 0, 20, 10], 0.0),  # a common edge
        ([20, 20, 30, 30], 0.0),  # apart in both directions: no product of two negative sides
        ([4, 4, 4, 8], 0.0),  # no area
        ([8, 8, 2, 2], 0.0),  # corners swapped: empty
    ],
)
def test_by_hand(other, expected):
    box, other = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([other], dtype=torch.float32)
    for pair in [(box, other), (other, box)]:
        assert elementwise_box_iou(*pair).item() == pytest.approx(expected)


def test_equals_the_diagonal_of_torchvision():
    boxes1, boxes2 = random_boxes(50), random_boxes(50)
    iou = elementwise_box_iou(boxes1, boxes2)
    torch.testing.assert_close(iou, box_iou(boxes1, boxes2).diagonal())
    assert iou.max() > 0.3


def test_two_empty_boxes_have_iou_0_and_a_finite_gradient():
    boxes = torch.tensor([[3.0, 3, 3, 3], [5, 5, 2, 2]], requires_grad=True)
    iou = elementwise_box_iou(boxes, boxes.detach())
    assert iou.tolist() == [0, 0]
    iou.sum().backward()
    assert boxes.grad.isfinite().all()


def test_range():
    boxes = random_boxes(2000)
    assert (elementwise_box_iou(boxes, boxes) == 1).all()
    nudged = boxes + torch.randn_like(boxes) * 1e-6
    iou = elementwise_box_iou(boxes, nudged)
    assert (iou >= 0).all() and (iou <= 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(dtype):
    # 800 x 800 pixels are beyond float16's 65504.
    boxes1 = torch.tensor([[0, 0, 800, 800]], dtype=dtype)
    boxes2 = torch.tensor([[0, 0, 800, 400]], dtype=dtype)
    iou = elementwise_box_iou(boxes1, boxes2)
    assert iou.dtype == torch.float32 and iou.item() == pytest.approx(0.5)


def test_gradcheck_and_float64():
    boxes1, boxes2 = random_boxes(5, torch.float64), random_boxes(5, torch.float64)
    assert elementwise_box_iou(boxes1, boxes2).dtype == torch.float64
    assert torch.autograd.gradcheck(elementwise_box_iou, (boxes1.requires_grad_(), boxes2))


def test_nan_stays_visible_and_nothing_is_nothing():
    boxes = torch.tensor([[float("nan"), 0, 1, 1]])
    assert elementwise_box_iou(boxes, torch.tensor([[0.0, 0, 1, 1]])).isnan().all()
    assert elementwise_box_iou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_callers_boxes_are_not_touched():
    boxes1, boxes2 = random_boxes(4), random_boxes(4)
    copies = boxes1.clone(), boxes2.clone()
    elementwise_box_iou(boxes1, boxes2)
    assert torch.equal(boxes1, copies[0]) and torch.equal(boxes2, copies[1])


@pytest.mark.parametrize(
    "shapes", [((3, 4), (2, 4)), ((3, 4), (1, 4)), ((4,), (4,)), ((3, 5),) * 2]
)
def test_bad_shapes(shapes):
    with pytest.raises(ValueError, match=r"`boxes1` and `boxes2` of the same shape \(P, 4\)"):
        elementwise_box_iou(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
