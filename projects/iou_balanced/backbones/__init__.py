"""Thin adapters over timm and torchvision backbones for Detectron2."""

from .centernet_necks import DeformableConv2d, UpConvNeck
from .dla_up import DLAUpNeck
from .efficientnet_lite import (
    EFFICIENTNET_LITE_RGB_MEAN,
    EFFICIENTNET_LITE_RGB_STD,
    convert_efficientnet_lite,
    load_efficientnet_lite,
)
from .imagenet import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    VGG_RGB_MEAN,
    VGG_RGB_STD,
    convert_torch_resnet,
    convert_torch_vgg,
    register_weights_handler,
)
from .resnext import make_resnext_stages
from .timm_backbone import TimmBackbone
from .timm_create import timm_pixel_stats
from .timm_images import timm_images_warning
from .vgg import SSDVGG, VGG16, L2Norm, SSDExtraLayers

__all__ = [
    "EFFICIENTNET_LITE_RGB_MEAN",
    "EFFICIENTNET_LITE_RGB_STD",
    "IMAGENET_RGB_MEAN",
    "IMAGENET_RGB_STD",
    "SSDVGG",
    "VGG16",
    "VGG_RGB_MEAN",
    "VGG_RGB_STD",
    "DLAUpNeck",
    "DeformableConv2d",
    "L2Norm",
    "SSDExtraLayers",
    "TimmBackbone",
    "UpConvNeck",
    "convert_efficientnet_lite",
    "convert_torch_resnet",
    "convert_torch_vgg",
    "load_efficientnet_lite",
    "make_resnext_stages",
    "register_weights_handler",
    "timm_images_warning",
    "timm_pixel_stats",
]
