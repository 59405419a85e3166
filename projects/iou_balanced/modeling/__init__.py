"""Detectors that take their losses as arguments. Importing this registers them for yaml configs."""

from .convert import balance
from .fast_rcnn import BalancedFastRCNNOutputLayers
from .fcos import BalancedFCOS
from .fovea_targets import FoveaBoxTransform
from .foveabox import FoveaBox, FoveaBoxHead
from .normalizer import LossNormalizer
from .rcnn import BalancedGeneralizedRCNN
from .retinanet import BalancedRetinaNet
from .rpn import BalancedRPN
from .yacs import add_iou_balanced_config

__all__ = [
    "BalancedFCOS",
    "BalancedFastRCNNOutputLayers",
    "BalancedGeneralizedRCNN",
    "BalancedRPN",
    "BalancedRetinaNet",
    "FoveaBox",
    "FoveaBoxHead",
    "FoveaBoxTransform",
    "LossNormalizer",
    "add_iou_balanced_config",
    "balance",
]
