"""Thin adapters over timm and torchvision backbones for Detectron2."""

from .imagenet import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    convert_torch_resnet,
    register_weights_handler,
)
from .resnext import make_resnext_stages

__all__ = [
    "IMAGENET_RGB_MEAN",
    "IMAGENET_RGB_STD",
    "convert_torch_resnet",
    "make_resnext_stages",
    "register_weights_handler",
]
