"""A small SSD, and random predictions for its losses."""

import torch
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from iou_balanced.backbones import SSDExtraLayers
from iou_balanced.losses import SmoothL1Loss, SoftmaxCrossEntropyLoss
from iou_balanced.modeling import SSD, DefaultBoxGenerator, SSDHead

from ..detector_mixin import NUM_CLASSES


def small_ssd():
    """Three levels, with default boxes of which each has positives among the mixin's objects."""
    stages = [
        L(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=1,
            stride_per_block=[stride],
            in_channels=in_channels,
            out_channels=out_channels,
            norm="BN",
        )
        for stride, in_channels, out_channels in [(1, 16, 16), (2, 16, 24), (2, 24, 32)]
    ]
    return L(SSD)(
        backbone=L(SSDExtraLayers)(
            bottom_up=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=16, norm="BN"),
                stages=stages,
                out_features=["res3", "res4"],
            ),
            in_features=["res3", "res4"],
            out_channels=[32],
        ),
        head=L(SSDHead)(
            input_shape=[ShapeSpec(channels=c) for c in (24, 32, 32)],
            num_classes="${..num_classes}",
            num_anchors=[4, 4, 6],
        ),
        anchor_generator=L(DefaultBoxGenerator)(
            min_max_sizes=[(32, 38), (38, 46), (46, 60)],
            aspect_ratios=[[2], [2], [1.5, 2]],
            strides=[8, 16, 32],
        ),
        box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),
        num_classes=NUM_CLASSES,
        cls_loss=L(SoftmaxCrossEntropyLoss)(reduction="none"),
        box_loss=L(SmoothL1Loss)(beta=1.0),
        pixel_mean=[123.675, 116.280, 103.530],
        pixel_std=[58.395, 57.120, 57.375],
    )


def random_predictions(seed=0, labels=None):
    """Two images, two levels of 30 and 10 boxes: what `SSD.losses` is called with."""
    torch.manual_seed(seed)
    corner = torch.rand(40, 2) * 60
    anchors = torch.cat([corner, corner + 10 + torch.rand(40, 2) * 30], dim=1)
    if labels is None:
        labels = torch.full((2, 40), NUM_CLASSES)
        labels[0, [3, 7, 31]] = torch.tensor([0, 2, 1])
        labels[1, [0, 39]] = torch.tensor([2, 2])
        labels[1, 5:9] = -1
    gt_boxes = anchors + torch.randn(2, 40, 4)
    logits = torch.randn(2, 40, NUM_CLASSES + 1).mul_(2).requires_grad_()
    deltas = torch.randn(2, 40, 4).requires_grad_()
    return anchors, labels, gt_boxes, logits, deltas


def losses_of(model, anchors, labels, gt_boxes, logits, deltas):
    with EventStorage() as storage:
        losses = model.losses(
            [Boxes(anchors[:30]), Boxes(anchors[30:])],
            [logits[:, :30], logits[:, 30:]],
            list(labels),
            [deltas[:, :30], deltas[:, 30:]],
            list(gt_boxes),
        )
        return losses, {k: v for k, (v, _) in storage.latest().items()}
