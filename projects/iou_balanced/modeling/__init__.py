"""Detectors that take their losses as arguments. Importing this registers them for yaml configs."""

from .centernet import CenterBoxTransform, CenterNet
from .centernet_head import CenterNetHead
from .centernet_yacs import add_centernet_config
from .class_balance_yacs import add_class_balance_config
from .convert import balance
from .default_boxes import DefaultBoxGenerator, match_default_boxes, ssd_box_sizes
from .fast_rcnn import BalancedFastRCNNOutputLayers
from .fcos import BalancedFCOS
from .fovea_targets import FoveaBoxTransform
from .foveabox import FoveaBox, FoveaBoxHead
from .group_norm import HeadGroupNorm
from .normalizer import LossNormalizer
from .rcnn import BalancedGeneralizedRCNN
from .retinanet import BalancedRetinaNet
from .rpn import BalancedRPN
from .ssd import SSD
from .ssd_head import SSDHead
from .yacs import add_iou_balanced_config

__all__ = [
    "SSD",
    "BalancedFCOS",
    "BalancedFastRCNNOutputLayers",
    "BalancedGeneralizedRCNN",
    "BalancedRPN",
    "BalancedRetinaNet",
    "CenterBoxTransform",
    "CenterNet",
    "CenterNetHead",
    "DefaultBoxGenerator",
    "FoveaBox",
    "FoveaBoxHead",
    "FoveaBoxTransform",
    "HeadGroupNorm",
    "LossNormalizer",
    "SSDHead",
    "add_centernet_config",
    "add_class_balance_config",
    "add_iou_balanced_config",
    "balance",
    "match_default_boxes",
    "ssd_box_sizes",
]
