"""Box head layers, proposals and predictions, for tests of the losses without a backbone."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from iou_balanced.losses import IoUBalancedCrossEntropyLoss, IoUBalancedSmoothL1Loss
from iou_balanced.modeling import BalancedFastRCNNOutputLayers

K = 3  # classes


def make_layers(agnostic=False, *, layers=BalancedFastRCNNOutputLayers, num_classes=K, **kwargs):
    kwargs.setdefault("box2box_transform", Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)))
    return layers(
        ShapeSpec(channels=4),
        num_classes=num_classes,
        cls_agnostic_bbox_reg=agnostic,
        **kwargs,
    )


def balanced_losses(eta=1.3, lam=1.5, weight=2.4, beta=1.0):
    measure = {"measure_iterations": 1} if weight == "auto" else {}
    return {
        "cls_loss": IoUBalancedCrossEntropyLoss(eta=eta),
        "box_loss": IoUBalancedSmoothL1Loss(lam=lam, weight=weight, beta=beta, **measure),
    }


def make_proposals(boxes, classes, gt_boxes=None):
    """Sampled proposals of one image; gt_boxes None is an image without objects."""
    proposals = Instances((100, 100))
    proposals.proposal_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    proposals.gt_classes = torch.as_tensor(classes, dtype=torch.int64)
    if gt_boxes is not None:
        proposals.gt_boxes = Boxes(torch.as_tensor(gt_boxes, dtype=torch.float32).reshape(-1, 4))
    return proposals


def random_proposals(labels):
    """Proposals with these labels, each with a ground truth nearby."""
    corner = torch.rand(len(labels), 2) * 50
    boxes = torch.cat([corner, corner + 10 + torch.rand(len(labels), 2) * 30], dim=1)
    return make_proposals(boxes, labels, boxes + torch.randn(len(labels), 4) * 2)


def random_predictions(num_proposals, agnostic):
    logits = torch.randn(num_proposals, K + 1) * 2
    deltas = torch.randn(num_proposals, 4 if agnostic else 4 * K)
    return logits.requires_grad_(), deltas.requires_grad_()


def random_batch(agnostic, seed=0):
    """Two images with objects and between them one without."""
    torch.manual_seed(seed)
    proposals = [
        random_proposals([0, 3, 2, 1, 3, 2]),
        make_proposals(torch.rand(3, 4).cumsum(dim=1) * 20, [3, 3, 3]),
        random_proposals([3, 1, 0]),
    ]
    return random_predictions(12, agnostic), proposals


def step(layers, predictions, proposals):
    """Losses by name, and the gradients of logits and deltas."""
    with EventStorage():
        losses = layers.losses(predictions, proposals)
    return losses, torch.autograd.grad(sum(losses.values()), predictions)
