"""The box head's losses on predictions and proposals made by hand."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.utils.events import EventStorage
from torch import nn
from torchvision.ops import box_iou

from iou_balanced.losses import (
    GIoULoss,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    IoUBalancedGIoULoss,
    IoUBalancedSmoothL1Loss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling import BalancedFastRCNNOutputLayers

from .box_heads import (
    K,
    balanced_losses,
    make_layers,
    make_proposals,
    random_batch,
    random_proposals,
    step,
)

BOTH_KINDS = pytest.mark.parametrize("agnostic", [False, True], ids=["specific", "agnostic"])


@BOTH_KINDS
def test_by_hand(agnostic):
    # K = 2; R = 5 proposals in two images, weights (10, 10, 5, 5) of the deltas.
    # Positive of class 0: the proposal is its ground truth, 10 x 10, and dx = 2.5 / 10 of its
    # width moves it by 2.5 pixels: IoU 7.5 / 12.5 = 0.6; smooth L1 with beta 1: 2.5 - 0.5 = 2.
    # Positive of class 1: 20 x 20 over a ground truth of 20 x 10, deltas 0: IoU 0.5; targets
    # dy = 10 * (5 - 10) / 20 = -2.5, dh = 5 * log(10 / 20) = -3.4657: 2 + 2.9657 = 4.9657.
    proposals = [
        make_proposals([[50, 50, 60, 60], [0, 0, 10, 10]], [2, 0], [[0, 0, 9, 9], [0, 0, 10, 10]]),
        make_proposals(
            [[5, 5, 25, 25], [0, 0, 30, 30], [1, 1, 9, 9]], [1, 2, 2], [[5, 5, 25, 15]] * 3
        ),
    ]
    logits = torch.zeros(5, 3, requires_grad=True)
    deltas = torch.zeros(5, 4 if agnostic else 8)
    deltas[1, 0] = 2.5
    if not agnostic:  # those of the other class, which are not to be looked at
        deltas[1, 4:], deltas[2, :4] = 7.0, -7.0
    deltas.requires_grad_()
    layers = make_layers(agnostic, num_classes=2, **balanced_losses(eta=1.0, lam=1.0))
    losses, (logits_grad, deltas_grad) = step(layers, (logits, deltas), proposals)

    # Eq. 6: 2.4 * (0.6 * 2 + 0.5 * 4.9657), divided by the 5 proposals.
    assert losses["loss_box_reg"].item() == pytest.approx(2.4 * (1.2 + 2.48287) / 5, rel=1e-5)
    # Eq. 4: each sample costs log 3, and the weights of the positives keep their sum.
    assert losses["loss_cls"].item() == pytest.approx(math.log(3))
    # They are 0.6 * 2 / 1.1 and 0.5 * 2 / 1.1; the gradient is (softmax - one-hot) / 5 times them.
    expected = torch.full((5, 3), 1 / 3)
    expected[range(5), [2, 0, 1, 2, 2]] -= 1
    weights = torch.tensor([1, 1.2 / 1.1, 1 / 1.1, 1, 1])
    torch.testing.assert_close(logits_grad, expected * weights[:, None] / 5)
    # Of the linear parts: sign * w_loc * iou / 5, in the columns of the ground truth's class.
    expected = torch.zeros_like(deltas)
    expected[1, 0] = 2.4 * 0.6 / 5
    offset = 0 if agnostic else 4
    expected[2, offset + 1] = expected[2, offset + 3] = 2.4 * 0.5 / 5
    torch.testing.assert_close(deltas_grad, expected)


@BOTH_KINDS
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"smooth_l1_beta": 0.5},
        {"box_reg_loss_type": "giou"},
        {"box_reg_loss_type": "diou"},
        {"box_reg_loss_type": "ciou"},
        {"loss_weight": 0.5},
        {"loss_weight": {"loss_box_reg": 3.0}},
        {"loss_weight": {"loss_cls": 0.25, "loss_box_reg": 3.0}},
    ],
    ids=str,
)
def test_defaults_are_the_stock_losses(agnostic, kwargs):
    ours = make_layers(agnostic, **kwargs)
    stock = make_layers(agnostic, layers=FastRCNNOutputLayers, **kwargs)
    for seed in range(4):
        predictions, proposals = random_batch(agnostic, seed)
        losses, grads = step(ours, predictions, proposals)
        expected, expected_grads = step(stock, predictions, proposals)
        assert losses.keys() == expected.keys()
        for name in losses:
            torch.testing.assert_close(losses[name], expected[name])
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad, expected_grad)


@BOTH_KINDS
def test_the_loss_weights_are_those_of_the_stock_layers_with_balanced_losses(agnostic):
    predictions, proposals = random_batch(agnostic)
    losses, _ = step(make_layers(agnostic, **balanced_losses()), predictions, proposals)
    layers = make_layers(agnostic, loss_weight={"loss_box_reg": 3.0}, **balanced_losses())
    weighted, _ = step(layers, predictions, proposals)
    torch.testing.assert_close(weighted["loss_cls"], losses["loss_cls"])
    torch.testing.assert_close(weighted["loss_box_reg"], 3 * losses["loss_box_reg"])


class Spy(nn.Module):
    """Keeps what it is called with."""

    needs_pos_iou = True

    def __init__(self, on_boxes=False):
        super().__init__()
        self.on_boxes = on_boxes

    def forward(self, *args):
        self.seen = args
        return args[0].sum()


@BOTH_KINDS
@pytest.mark.parametrize("on_boxes", [False, True])
def test_what_the_losses_are_called_with(agnostic, on_boxes):
    (logits, deltas), proposals = random_batch(agnostic)
    layers = make_layers(agnostic, cls_loss=Spy(), box_loss=Spy(on_boxes))
    losses, _ = step(layers, (logits, deltas), proposals)
    labels = torch.cat([p.gt_classes for p in proposals])
    positive = labels < K
    gt_boxes = torch.cat([proposals[0].gt_boxes.tensor, torch.zeros(3, 4)])
    gt_boxes = torch.cat([gt_boxes, proposals[2].gt_boxes.tensor])[positive]
    # Detectron2's own decoding for the class of the ground truth.
    boxes = torch.cat(layers.predict_boxes_for_gt_classes((logits, deltas), proposals))[positive]
    pos_iou = box_iou(boxes, gt_boxes).diagonal()
    assert len(set(pos_iou.tolist())) == 6

    seen_logits, seen_labels, seen_iou = layers.cls_loss.seen
    assert torch.equal(seen_logits, logits) and torch.equal(seen_labels, labels)
    torch.testing.assert_close(seen_iou, pos_iou)
    pred, target, box_iou_seen = layers.box_loss.seen
    assert torch.equal(box_iou_seen, seen_iou) and not seen_iou.requires_grad
    assert pred.requires_grad and pred.shape == (6, 4)
    if on_boxes:
        torch.testing.assert_close(pred, boxes)
        assert torch.equal(target, gt_boxes)
    else:
        torch.testing.assert_close(losses["loss_box_reg"], pred.sum() / 12)
    torch.testing.assert_close(losses["loss_cls"], logits.sum() / 12)


@BOTH_KINDS
def test_eta_keeps_the_value_and_moves_the_gradient(agnostic):
    predictions, proposals = random_batch(agnostic)
    losses = [
        step(make_layers(agnostic, cls_loss=loss), predictions, proposals)
        for loss in (SoftmaxCrossEntropyLoss(), IoUBalancedCrossEntropyLoss(eta=1.3))
    ]
    (plain, (plain_grad, _)), (balanced, (grad, _)) = losses
    torch.testing.assert_close(balanced["loss_cls"], plain["loss_cls"])
    labels = torch.cat([p.gt_classes for p in proposals])
    torch.testing.assert_close(grad[labels == K], plain_grad[labels == K])
    assert ((grad - plain_grad)[labels < K].abs().amax(dim=1) > 0).all()


EMPTY = {
    "no image": lambda: [],
    "no proposal": lambda: [make_proposals([], [])],
    "no proposal beside an object": lambda: [make_proposals([], [], [])],
    "background only": lambda: [random_proposals([K, K]), make_proposals([[0, 0, 5, 5]], [K])],
}


@BOTH_KINDS
@pytest.mark.parametrize("box_loss", [IoUBalancedSmoothL1Loss, IoUBalancedGIoULoss])
@pytest.mark.parametrize("proposals", EMPTY.values(), ids=EMPTY)
def test_no_positives_are_no_error(agnostic, box_loss, proposals):
    proposals = proposals()
    num_proposals = sum(map(len, proposals))
    layers = make_layers(
        agnostic, cls_loss=IoUBalancedCrossEntropyLoss(), box_loss=box_loss(weight="auto")
    )
    predictions = layers(torch.randn(num_proposals, 4))
    with EventStorage():
        losses = layers.losses(predictions, proposals)
    assert losses["loss_box_reg"] == 0 and losses["loss_cls"].isfinite()
    assert (losses["loss_cls"] > 0) == (num_proposals > 0)
    sum(losses.values()).backward()
    for name, p in layers.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
    assert layers.box_loss.w_loc is None


def test_a_proposal_without_gt_boxes_may_come_first():
    predictions, proposals = random_batch(agnostic=False)
    (logits, deltas), order = predictions, [6, 7, 8, *range(6), 9, 10, 11]
    layers = make_layers(**balanced_losses())
    losses, _ = step(layers, predictions, proposals)
    moved = [proposals[1], proposals[0], proposals[2]]
    again, _ = step(layers, (logits[order], deltas[order]), moved)
    for name in losses:
        torch.testing.assert_close(again[name], losses[name])


def test_half_precision_is_computed_in_float32():
    (logits, deltas), proposals = random_batch(agnostic=False)
    layers = make_layers(**balanced_losses())
    expected, _ = step(layers, (logits, deltas), proposals)
    halves = tuple(x.detach().bfloat16().requires_grad_() for x in (logits, deltas))
    losses, grads = step(layers, halves, proposals)
    for name in losses:
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name], rtol=0.02, atol=0.01)
    assert all(g.dtype == torch.bfloat16 and g.isfinite().all() for g in grads)


def test_what_is_recorded():
    predictions, proposals = random_batch(agnostic=False)
    recorded = []
    for layers in (make_layers(**balanced_losses()), make_layers(layers=FastRCNNOutputLayers)):
        with EventStorage() as storage:
            layers.losses(predictions, proposals)
            recorded.append({k: v[0] for k, v in storage.latest().items()})
    ours, stock = recorded
    assert ours == {**stock, "w_loc": 2.4} and "fast_rcnn/cls_accuracy" in stock


def test_a_yaml_config_gives_the_stock_losses():
    cfg = get_cfg()
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.5
    layers = BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=4))
    assert layers.num_classes == 80 and type(layers.cls_loss) is SoftmaxCrossEntropyLoss
    assert type(layers.box_loss) is SmoothL1Loss and layers.box_loss.beta == 0.5
    cfg.MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA = 0.0
    layers = BalancedFastRCNNOutputLayers(cfg, ShapeSpec(channels=4), **balanced_losses())
    assert layers.cls_loss.eta == 1.3 and layers.box_loss.w_loc == 2.4


class TestRefusals:
    @pytest.mark.parametrize("loss", [SigmoidFocalLoss, IoUBalancedFocalLoss])
    def test_a_sigmoid_loss(self, loss):
        with pytest.raises(ValueError, match=f"`cls_loss` to be a softmax loss.*{loss.__name__}"):
            make_layers(cls_loss=loss())

    def test_federated_loss(self):
        with pytest.raises(ValueError, match=r"`use_fed_loss` to be False.*Detectron2's own"):
            make_layers(use_fed_loss=True)

    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_a_loss_that_gives_no_sum(self, reduction):
        for name, loss in (("cls_loss", SoftmaxCrossEntropyLoss), ("box_loss", SmoothL1Loss)):
            with pytest.raises(ValueError, match=f"`{name}` to have reduction='sum'.*{reduction}"):
                make_layers(**{name: loss(reduction=reduction)})

    def test_rotated_boxes(self):
        transform = Box2BoxTransformRotated(weights=(10.0, 10.0, 5.0, 5.0, 1.0))
        with pytest.raises(ValueError, match=r"axis-aligned boxes.*Box2BoxTransformRotated"):
            make_layers(box2box_transform=transform)

    @pytest.mark.parametrize("twice", [{"smooth_l1_beta": 1.0}, {"box_reg_loss_type": "giou"}])
    def test_two_box_losses(self, twice):
        with pytest.raises(ValueError, match=r"`box_loss` without.*but got '\w+' and \d"):
            make_layers(box_loss=GIoULoss(), **twice)

    def test_a_box_loss_that_does_not_exist(self):
        with pytest.raises(ValueError, match=r"box_reg_loss_type to be one of .*'huber'"):
            make_layers(box_reg_loss_type="huber")
