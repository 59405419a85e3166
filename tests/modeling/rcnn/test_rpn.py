"""RPN's losses on predictions and labels made by hand."""

import math

import pytest
import torch
from detectron2.config import LazyCall, get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import nn
from torchvision.ops import box_iou

from iou_balanced.losses import (
    GIoULoss,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    IoUBalancedGIoULoss,
    IoUBalancedSmoothL1Loss,
    PenaltyReducedFocalLoss,
    SeesawLoss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling import BalancedRPN

from .rcnn_models import small_faster_rcnn

BATCH_SIZE = 8  # anchors to be sampled of an image


def make_rpn(target=BalancedRPN, **kwargs):
    config = small_faster_rcnn().proposal_generator
    config._target_ = target
    config.batch_size_per_image = BATCH_SIZE
    config.update(kwargs)
    return instantiate(config)


def stock_rpn(**kwargs):
    return make_rpn(type(instantiate(small_faster_rcnn().proposal_generator)), **kwargs)


def balanced_losses(**kwargs):
    return {
        "cls_loss": LazyCall(IoUBalancedFocalLoss)(eta=1.3, alpha=-1, gamma=0),
        "box_loss": LazyCall(IoUBalancedSmoothL1Loss)(
            lam=1.5, weight="auto", beta=1 / 9, measure_iterations=1
        ),
        **kwargs,
    }


def make_batch(labels, seed=0):
    """Arguments of `losses`: these labels (N, R) on two levels, each anchor near its object."""
    torch.manual_seed(seed)
    labels = torch.as_tensor(labels)
    num_images, num_anchors = labels.shape
    corner = torch.rand(num_anchors, 2) * 40
    anchors = torch.cat([corner, corner + 10 + torch.rand(num_anchors, 2) * 30], dim=1)
    logits = torch.randn(num_images, num_anchors).requires_grad_()
    deltas = (torch.randn(num_images, num_anchors, 4) * 0.2).requires_grad_()
    gt_boxes = anchors + torch.randn(num_images, num_anchors, 4) * 2
    return logits, deltas, labels, anchors, gt_boxes


def step(rpn, logits, deltas, labels, anchors, gt_boxes):
    """Losses by name, and the gradients of logits and deltas."""
    split = (anchors.shape[0] + 1) // 2
    with EventStorage() as storage:
        losses = rpn.losses(
            [Boxes(anchors[:split]), Boxes(anchors[split:])],
            [logits[:, :split], logits[:, split:]],
            list(labels),
            [deltas[:, :split], deltas[:, split:]],
            list(gt_boxes),
        )
        recorded = {k: v[0] for k, v in storage.latest().items()}
    return losses, torch.autograd.grad(sum(losses.values()), (logits, deltas)), recorded


LABELS = [[1, 0, -1, 1, 0, -1, 1], [0, 0, 1, -1, -1, 1, 0]]
EMPTY = [[0, -1, 0, 0, -1, -1, 0], [0, 0, -1, -1, 0, 0, 0]]


def test_by_hand():
    # One image, BATCH_SIZE 8. First positive: the anchor is its object, 10 x 10, and dx = 0.25
    # moves it by 2.5 pixels: IoU 7.5 / 12.5 = 0.6; smooth L1 with beta 0.2: 0.25 - 0.1 = 0.15.
    # Second: 20 x 20 over an object of 20 x 10, deltas 0: IoU 0.5; targets dy = -5 / 20 and
    # dh = log(0.5): 0.15 + 0.59315 = 0.74315.
    anchors = torch.tensor([[0, 0, 10, 10], [3, 3, 9, 9], [5, 5, 25, 25], [1, 1, 8, 8.0]])
    gt_boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 25, 15], [0, 0, 10, 10.0]]])
    labels = torch.tensor([[1, 0, 1, -1]])
    logits = torch.zeros(1, 4, requires_grad=True)
    deltas = torch.zeros(1, 4, 4)
    deltas[0, 0, 0] = 0.25
    deltas[0, 3] = 5.0  # of an anchor that was not sampled
    rpn = make_rpn(
        cls_loss=IoUBalancedFocalLoss(eta=1.0, alpha=-1, gamma=0),
        box_loss=IoUBalancedSmoothL1Loss(lam=1.0, weight=2.0, beta=0.2),
    )
    args = logits, deltas.requires_grad_(), labels, anchors, gt_boxes
    losses, (logits_grad, deltas_grad), recorded = step(rpn, *args)
    # Eq. 6: 2 * (0.6 * 0.15 + 0.5 * 0.74315) / 8.
    assert losses["loss_rpn_loc"].item() == pytest.approx(2 * (0.09 + 0.371574) / 8, rel=1e-5)
    # Eq. 4: three samples of log 2; the weights of the positives, 0.6 * 2 / 1.1 and
    # 0.5 * 2 / 1.1, keep their sum. The gradient of each is (0.5 - label) * weight / 8.
    assert losses["loss_rpn_cls"].item() == pytest.approx(3 * math.log(2) / 8)
    expected = torch.tensor([[-0.5 * 1.2 / 1.1, 0.5, -0.5 / 1.1, 0]]) / 8
    torch.testing.assert_close(logits_grad, expected)
    expected = torch.zeros(1, 4, 4)
    expected[0, 0, 0] = 2 * 0.6 / 8
    expected[0, 2, 1] = expected[0, 2, 3] = 2 * 0.5 / 8
    torch.testing.assert_close(deltas_grad, expected)
    assert recorded == {"rpn/num_pos_anchors": 2, "rpn/num_neg_anchors": 1, "rpn/w_loc": 2.0}


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"smooth_l1_beta": 0.1},
        {"box_reg_loss_type": "giou"},
        {"loss_weight": 0.5},
        {"loss_weight": {"loss_rpn_loc": 3.0}},
    ],
    ids=str,
)
def test_defaults_are_the_stock_losses(kwargs):
    ours, stock = make_rpn(**kwargs), stock_rpn(**kwargs)
    for seed, labels in enumerate([LABELS, EMPTY, LABELS[:1], [LABELS[0], EMPTY[0]]]):
        batch = make_batch(labels, seed)
        losses, grads, recorded = step(ours, *batch)
        expected, expected_grads, stock_recorded = step(stock, *batch)
        assert losses.keys() == expected.keys() and recorded == stock_recorded
        for name in losses:
            torch.testing.assert_close(losses[name], expected[name])
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad, expected_grad)


class Spy(nn.Module):
    """Keeps what it is called with."""

    needs_pos_iou = True

    def forward(self, *args):
        self.seen = args
        return args[0].sum()


def test_what_the_losses_are_called_with():
    rpn = make_rpn(cls_loss=LazyCall(Spy)(), box_loss=LazyCall(Spy)())
    logits, deltas, labels, anchors, gt_boxes = make_batch(LABELS)
    step(rpn, logits, deltas, labels, anchors, gt_boxes)
    expected_logits, expected_labels, expected_deltas, pos_iou = [], [], [], []
    for image in range(2):
        for anchor in range(7):
            label = LABELS[image][anchor]
            if label < 0:
                continue
            expected_logits.append(logits[image, anchor].detach())
            expected_labels.append(1 - label)  # class 0 of one class, and 1 for background
            if label == 1:
                d = deltas[image, anchor].detach()
                box = rpn.box2box_transform.apply_deltas(d[None], anchors[anchor][None])
                pos_iou.append(box_iou(box, gt_boxes[image, anchor][None]).squeeze())
                expected_deltas.append(d)
    seen_logits, seen_labels, seen_iou = rpn.cls_loss.seen
    assert torch.equal(seen_logits, torch.stack(expected_logits)[:, None])
    assert seen_labels.tolist() == expected_labels
    torch.testing.assert_close(seen_iou, torch.stack(pos_iou))
    assert len(set(seen_iou.tolist())) == 5 and not seen_iou.requires_grad
    seen_deltas, _, box_iou_seen = rpn.box_loss.seen
    assert torch.equal(seen_deltas, torch.stack(expected_deltas))
    assert torch.equal(box_iou_seen, seen_iou)


def test_eta_and_auto_keep_the_values_and_move_the_gradients():
    batch = make_batch(LABELS)
    plain, plain_grads, _ = step(make_rpn(smooth_l1_beta=1 / 9), *batch)
    losses, grads, _ = step(make_rpn(**balanced_losses()), *batch)
    positive = torch.tensor(LABELS) == 1
    for name in losses:
        torch.testing.assert_close(losses[name], plain[name])
    for grad, plain_grad in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(grad[~positive], plain_grad[~positive])
        assert (grad - plain_grad)[positive].norm() > 0.01 * plain_grad[positive].norm()


@pytest.mark.parametrize("box_loss", [IoUBalancedSmoothL1Loss, IoUBalancedGIoULoss])
@pytest.mark.parametrize("labels", [EMPTY, [[-1, -1, -1]]])
def test_no_positives_are_no_error(box_loss, labels):
    rpn = make_rpn(**balanced_losses(box_loss=box_loss(weight="auto")))
    losses, grads, _ = step(rpn, *make_batch(labels))
    assert losses["loss_rpn_loc"] == 0 and losses["loss_rpn_cls"].isfinite()
    assert all(grad.isfinite().all() for grad in grads)
    assert rpn.box_loss.w_loc is None


def test_a_loss_of_boxes_gets_boxes():
    batch = make_batch(LABELS)
    losses, _, _ = step(make_rpn(box_loss=LazyCall(GIoULoss)()), *batch)
    expected, _, _ = step(stock_rpn(box_reg_loss_type="giou"), *batch)
    torch.testing.assert_close(losses["loss_rpn_loc"], expected["loss_rpn_loc"])


def test_labels_and_boxes_are_not_touched():
    batch = make_batch(LABELS)
    copies = [x.detach().clone() for x in batch]
    step(make_rpn(**balanced_losses()), *batch)
    for x, copy in zip(batch, copies, strict=True):
        assert torch.equal(x, copy)


def test_a_yaml_config_gives_the_stock_losses():
    cfg = get_cfg()
    cfg.MODEL.RPN.SMOOTH_L1_BETA = 0.5
    rpn = BalancedRPN(cfg, {"res4": ShapeSpec(channels=16, stride=16)})
    assert (rpn.cls_loss.alpha, rpn.cls_loss.gamma, rpn.box_loss.beta) == (-1, 0, 0.5)


class TestRefusals:
    @pytest.mark.parametrize(
        "loss", [SoftmaxCrossEntropyLoss, IoUBalancedCrossEntropyLoss, SeesawLoss]
    )
    def test_a_softmax_loss(self, loss):
        with pytest.raises(ValueError, match=f"`cls_loss` to be a sigmoid loss.*{loss.__name__}"):
            make_rpn(cls_loss=LazyCall(loss)())

    def test_a_loss_of_heat_maps(self):
        with pytest.raises(ValueError, match=r"`cls_loss` to be a loss of class labels.*Penalty"):
            make_rpn(cls_loss=LazyCall(PenaltyReducedFocalLoss)())

    def test_a_loss_that_gives_no_sum(self):
        for name, loss in (("cls_loss", SigmoidFocalLoss), ("box_loss", SmoothL1Loss)):
            with pytest.raises(ValueError, match=f"`{name}` to have reduction='sum'.*'mean'"):
                make_rpn(**{name: LazyCall(loss)(reduction="mean")})

    def test_rotated_boxes(self):
        transform = LazyCall(Box2BoxTransformRotated)(weights=(1.0, 1.0, 1.0, 1.0, 1.0))
        with pytest.raises(ValueError, match=r"axis-aligned boxes.*Box2BoxTransformRotated"):
            make_rpn(box2box_transform=transform)

    def test_two_box_losses(self):
        with pytest.raises(ValueError, match=r"`box_loss` without.*but got 'smooth_l1' and 0.1"):
            make_rpn(box_loss=LazyCall(GIoULoss)(), smooth_l1_beta=0.1)
