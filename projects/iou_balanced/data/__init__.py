"""Data sets for Detectron2. Nothing is registered by importing this: call a `register_*` function.

Each returns the name of the data set, so that a LazyConfig can have the call where a name belongs:
`names=L(register_voc_dir)(root="...", split="train")`.
"""

from .affine import CenterFit, CenterPad, RandomCenterScale
from .augmentations import MinIoURandomCrop, RandomExpand
from .centernet_yaml import centernet_augmentations
from .cityscapes import export_cityscapes, register_cityscapes
from .class_counts import ClassCounts, warn_extreme
from .coco_json import register_coco_json
from .coco_lt import register_coco_lt
from .coco_lt_profile import COCO_LT_BIN_EDGES, COCO_LT_BINS, COCO_LT_PROFILE
from .color_jitter import ColorJitter
from .digits import generate_digits, register_digits
from .mapper import BoxAwareDatasetMapper
from .photometric import PhotometricDistortion
from .validation import Findings, validate_dataset_dicts
from .voc import register_voc_dir, voc_class_names
from .voc_challenge import VOC_CLASSES, register_voc

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
