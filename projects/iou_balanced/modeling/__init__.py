"""Detectors that take their losses as arguments. Importing this registers them for yaml configs."""

from .convert import balance
from .normalizer import LossNormalizer
from .retinanet import BalancedRetinaNet
from .yacs import add_iou_balanced_config

__all__ = ["BalancedRetinaNet", "LossNormalizer", "add_iou_balanced_config", "balance"]
