"""A small FoveaBox for the tests."""

import torch
from detectron2.config import LazyCall

from iou_balanced.losses import SigmoidFocalLoss, SmoothL1Loss
from iou_balanced.modeling import (
    FoveaBox,
    FoveaBoxHead,
    FoveaBoxTransform,
    LossNormalizer,
    balance,
)

from ..detector_mixin import small_retinanet

STRIDES, BASE_SIZES = [8, 16, 32, 64, 128], [16, 32, 64, 128, 256]


def small_foveabox():
    """FoveaBox on the small RetinaNet's backbone, with all that has a default left to it."""
    model, stock = LazyCall(FoveaBox)(), small_retinanet()
    for key in ("backbone", "head", "head_in_features", "num_classes", "pixel_mean", "pixel_std"):
        model[key] = stock[key]
    model.head._target_ = FoveaBoxHead
    del model.head.num_anchors
    return model


def explicit():
    """What the defaults are, written out."""
    model = small_foveabox()
    model.base_sizes = BASE_SIZES
    model.scale_ranges = [[1, 64], [32, 128], [64, 256], [128, 512], [256, 2048]]
    model.sigma = 0.4
    model.box2box_transform = LazyCall(FoveaBoxTransform)(min_ratio=1 / 16, max_ratio=16)
    model.cls_loss = LazyCall(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)
    model.box_loss = LazyCall(SmoothL1Loss)(beta=0.11)
    model.loss_normalizer = LazyCall(LossNormalizer)(momentum=0.0, initial=None)
    return model


def balanced(**kwargs):
    return balance(explicit(), beta=None, **kwargs)


def labels_of(model, batch, size=(96, 128)):
    """Anchors, labels and matched boxes of images padded to this height and width."""
    features = [torch.zeros(1, 32, -(-size[0] // s), -(-size[1] // s)) for s in STRIDES]
    anchors = model.anchor_generator(features)
    return anchors, *model.label_anchors(anchors, [x["instances"] for x in batch])
