"""FCOS on timm's MobileNetV2 (width 1.0) with FPN, for images in RGB."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import IMAGENET_RGB_MEAN, IMAGENET_RGB_STD, TimmBackbone

from .fcos import model

_levels = ["c3", "c4", "c5"]  # strides 8, 16, 32 with 32, 96, 320 channels

# The paper says nothing about weights and BatchNorm of the backbone. Here they are the default ones
# of timm (RandAugment, ImageNet-1k), BatchNorm is trained, and no layer is frozen.
model.backbone.bottom_up = L(TimmBackbone)(
    name="mobilenetv2_100.ra_in1k", out_features=_levels, norm="BN", freeze_at=0
)
model.backbone.in_features = _levels
model.pixel_mean, model.pixel_std = IMAGENET_RGB_MEAN, IMAGENET_RGB_STD
