"""Detectors that take their losses as arguments. Importing this registers them for yaml configs."""

from iou_balanced.modeling.centernet.centernet import CenterBoxTransform, CenterNet
from iou_balanced.modeling.centernet.head import CenterNetHead
from iou_balanced.modeling.centernet.yaml import add_centernet_config
from iou_balanced.modeling.conversion.balance import balance
from iou_balanced.modeling.foveabox.foveabox import FoveaBox, FoveaBoxHead
from iou_balanced.modeling.foveabox.targets import FoveaBoxTransform
from iou_balanced.modeling.rcnn.fast_rcnn import BalancedFastRCNNOutputLayers
from iou_balanced.modeling.rcnn.rcnn import BalancedGeneralizedRCNN
from iou_balanced.modeling.rcnn.rpn import BalancedRPN
from iou_balanced.modeling.ssd.default_boxes import (
    DefaultBoxGenerator,
    match_default_boxes,
    ssd_box_sizes,
)
from iou_balanced.modeling.ssd.head import SSDHead
from iou_balanced.modeling.ssd.ssd import SSD
from iou_balanced.modeling.yaml.class_balance import add_class_balance_config
from iou_balanced.modeling.yaml.losses import add_iou_balanced_config

from .fcos import BalancedFCOS
from .group_norm import HeadGroupNorm
from .logit_adjustment import (
    FractalAdjustment,
    LogitAdjustment,
    PriorAdjustment,
    TrainingCounts,
    adjust_logits,
)
from .normalizer import LossNormalizer
from .retinanet import BalancedRetinaNet

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
    "FractalAdjustment",
    "HeadGroupNorm",
    "LogitAdjustment",
    "LossNormalizer",
    "PriorAdjustment",
    "SSDHead",
    "TrainingCounts",
    "add_centernet_config",
    "add_class_balance_config",
    "add_iou_balanced_config",
    "adjust_logits",
    "balance",
    "match_default_boxes",
    "ssd_box_sizes",
]
