"""Data sets for Detectron2. Nothing is registered by importing this: call a `register_*` function.

Each returns the name of the data set, so that a LazyConfig can have the call where a name belongs:
`names=L(register_voc_dir)(root="...", split="train")`.
"""

from iou_balanced.data.datasets.cityscapes import export_cityscapes, register_cityscapes
from iou_balanced.data.datasets.coco_json import register_coco_json
from iou_balanced.data.datasets.coco_lt import register_coco_lt
from iou_balanced.data.datasets.coco_lt_profile import (
    COCO_LT_BIN_EDGES,
    COCO_LT_BINS,
    COCO_LT_PROFILE,
)
from iou_balanced.data.datasets.digits import generate_digits, register_digits
from iou_balanced.data.datasets.validation import Findings, validate_dataset_dicts
from iou_balanced.data.datasets.voc import register_voc_dir, voc_class_names
from iou_balanced.data.datasets.voc_challenge import VOC_CLASSES, register_voc
from iou_balanced.data.transforms.augmentations import MinIoURandomCrop, RandomExpand
from iou_balanced.data.transforms.centernet import centernet_augmentations
from iou_balanced.data.transforms.color_jitter import ColorJitter
from iou_balanced.data.transforms.photometric import PhotometricDistortion
from iou_balanced.data.transforms.random_center_scale import RandomCenterScale
from iou_balanced.geometry.canvas import CenterFit, CenterPad

from .class_counts import ClassCounts, warn_extreme
from .mapper import BoxAwareDatasetMapper

__all__ = [
    "COCO_LT_BINS",
    "COCO_LT_BIN_EDGES",
    "COCO_LT_PROFILE",
    "VOC_CLASSES",
    "BoxAwareDatasetMapper",
    "CenterFit",
    "CenterPad",
    "ClassCounts",
    "ColorJitter",
    "Findings",
    "MinIoURandomCrop",
    "PhotometricDistortion",
    "RandomCenterScale",
    "RandomExpand",
    "centernet_augmentations",
    "export_cityscapes",
    "generate_digits",
    "register_cityscapes",
    "register_coco_json",
    "register_coco_lt",
    "register_digits",
    "register_voc",
    "register_voc_dir",
    "validate_dataset_dicts",
    "voc_class_names",
    "warn_extreme",
]
