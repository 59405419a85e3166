import math

import pytest
import torch
from detectron2.layers import ciou_loss, diou_loss
from fvcore.nn import giou_loss

from iou_balanced import losses as L

PAIRS = {
    "GIoU": (L.giou_loss, giou_loss, L.GIoULoss, L.IoUBalancedGIoULoss),
    "DIoU": (L.diou_loss, diou_loss, L.DIoULoss, L.IoUBalancedDIoULoss),
    "CIoU": (L.ciou_loss, ciou_loss, L.CIoULoss, L.IoUBalancedCIoULoss),
}
every_loss = pytest.mark.parametrize("name", PAIRS)


def boxes(count, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, count, 2, generator=generator, dtype=dtype) * 30
    size = 2 + torch.rand(2, count, 2, generator=generator, dtype=dtype) * 30
    return torch.cat([corner, corner + size], dim=2).unbind()


def grad_of(terms, pred):
    return torch.autograd.grad(terms.sum(), pred, retain_graph=True)[0]


def test_by_hand():
    # 4 x 4 at (0, 0) and at (2, 0): intersection 8, union 24, IoU 1/3, enclosing box 6 x 4 = 24.
    # GIoU = IoU, because the boxes fill the enclosing one: loss 2/3.
    # DIoU: centres 2 apart, diagonal^2 = 36 + 16 = 52: loss 2/3 + 4/52. Same shape: CIoU = DIoU.
    # 4 x 4 at (0, 0) and 2 x 4 at (8, 0): no overlap, union 24, enclosing 10 x 4 = 40:
    # GIoU loss 1 + 16/40. Centres (2, 2) and (9, 2): 49, diagonal^2 116: DIoU loss 1 + 49/116.
    # CIoU: v = 4/pi^2 (atan(1) - atan(1/2))^2, factor v / (1 + v).
    pred = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]])
    gt = torch.tensor([[2.0, 0, 6, 4], [8, 0, 10, 4]])
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    for name, expected in {
        "GIoU": [2 / 3, 1.4],
        "DIoU": [2 / 3 + 4 / 52, 1 + 49 / 116],
        "CIoU": [2 / 3 + 4 / 52, 1 + 49 / 116 + v * v / (1 + v)],
    }.items():
        torch.testing.assert_close(PAIRS[name][0](pred, gt), torch.tensor(expected))


@every_loss
def test_equals_detectron2_in_value_and_gradient(name):
    ours, theirs, *_ = PAIRS[name]
    pred, gt = boxes(200)
    pred.requires_grad_()
    # Detectron2 adds 1e-7 to its divisors.
    torch.testing.assert_close(ours(pred, gt), theirs(pred, gt), rtol=1e-6, atol=1e-7)
    expected = grad_of(theirs(pred, gt), pred)
    torch.testing.assert_close(grad_of(ours(pred, gt), pred), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["GIoU", "DIoU"])  # CIoU's trade-off factor has no gradient
def test_gradcheck(name):
    pred, gt = boxes(6, seed=3)
    assert torch.autograd.gradcheck(lambda x: PAIRS[name][0](x, gt), pred.requires_grad_())


@every_loss
def test_perfect_and_degenerate_boxes(name):
    gt = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5], [0, 0, 10, 10]])
    pred = torch.tensor([[0.0, 0, 10, 10], [4, 4, 4, 4], [5, 5, 5, 5], [300, 300, 310, 310]])
    pred.requires_grad_()
    terms = PAIRS[name][0](pred, gt)
    assert terms[0] == 0 and terms[1] >= 1 and terms[3] > 1.8
    assert terms[2] == 1  # two empty boxes: IoU 0, and no other term
    assert terms.isfinite().all() and grad_of(terms, pred).isfinite().all()


@every_loss
def test_the_unit_of_the_boxes_does_not_matter(name):
    """Also that of the image's size, in which boxes are smaller than 1."""
    pred, gt = boxes(20)
    terms = PAIRS[name][0](pred, gt)
    torch.testing.assert_close(PAIRS[name][0](pred / 1000, gt / 1000), terms, rtol=1e-6, atol=1e-9)


@every_loss
def test_a_box_far_away_is_pulled_near(name):
    # Plain IoU has no gradient here.
    pred = torch.tensor([[100.0, 0, 110, 10]], requires_grad=True)
    grad = grad_of(PAIRS[name][0](pred, torch.tensor([[0.0, 0, 10, 10]])), pred)
    assert (grad[0, 0] + grad[0, 2]) > 0


@every_loss
def test_iou_balanced_weighs_each_box(name):
    function, _, plain, balanced = PAIRS[name]
    pred, gt = boxes(5, seed=1)
    pred.requires_grad_()
    pos_iou = torch.tensor([0.9, 0.0, 0.5, 0.25, 1.0], dtype=torch.float64)
    # IoU^2, times 3.
    weights = torch.tensor([2.43, 0, 0.75, 0.1875, 3.0], dtype=torch.float64)
    loss = balanced(lam=2.0, weight=3.0)(pred, gt, pos_iou)
    torch.testing.assert_close(loss, (weights * function(pred, gt)).sum())
    expected = grad_of(function(pred, gt) * weights, pred)
    torch.testing.assert_close(grad_of(loss, pred), expected)
    unweighted = plain()(pred, gt)
    torch.testing.assert_close(balanced(lam=0)(pred, gt), unweighted)
    for keeps_the_sum in [balanced(lam=2.0, weight="auto"), balanced(lam=2.0, normalize=True)]:
        torch.testing.assert_close(keeps_the_sum(pred, gt, pos_iou), unweighted)


@every_loss
def test_no_gradient_through_the_weight(name):
    # The IoU of the same boxes, with its graph left on by the caller.
    function, _, _, balanced = PAIRS[name]
    pred, gt = boxes(5, seed=2)
    pred.requires_grad_()
    pos_iou = L.elementwise_box_iou(pred, gt)
    loss = balanced(lam=1.5)(pred, gt, pos_iou)
    expected = grad_of(function(pred, gt) * pos_iou.detach() ** 1.5, pred)
    torch.testing.assert_close(grad_of(loss, pred), expected)


@every_loss
def test_auto_is_kept_and_resumed(name):
    balanced = PAIRS[name][3]
    pred, gt = boxes(5, seed=1)
    pos_iou = torch.full((5,), 0.25, dtype=torch.float64)
    loss = balanced(lam=0.5, weight="auto", measure_iterations=1)
    loss(pred, gt, pos_iou)
    assert loss.w_loc == pytest.approx(2.0)  # 0.25^0.5 = 1/2
    loss(pred, gt, pos_iou * 4)
    assert loss.w_loc == pytest.approx(2.0)
    other = balanced(lam=0.5, weight="auto")
    other.load_resume_state_dict(loss.resume_state_dict())
    assert other.w_loc == loss.w_loc and not loss.state_dict()


@every_loss
def test_modules_say_what_they_are_and_refuse_what_makes_no_sense(name):
    function, _, plain, balanced = PAIRS[name]
    assert plain.on_boxes and balanced.on_boxes and not plain().needs_pos_iou
    assert balanced().needs_pos_iou and not balanced(lam=0).needs_pos_iou
    assert repr(balanced(weight="auto")) == (
        f"IoUBalanced{name}Loss(lam=1.5, weight='auto', normalize=False, reduction='sum', "
        "across_processes=True, measure_from=0, measure_iterations=10, max_weight=20.0)"
    )
    with pytest.raises(ValueError, match=r"of the same shape \(P, 4\)"):
        function(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="`weight` to be a number with normalize=True"):
        balanced(weight="auto", normalize=True)
    with pytest.raises(ValueError, match="`weight` to be a number or 'auto', but got 'big'"):
        balanced(weight="big")
