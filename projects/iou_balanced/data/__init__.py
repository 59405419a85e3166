"""Data sets for Detectron2. Nothing is registered by importing this: call a `register_*` function.

Each returns the name of the data set, so that a LazyConfig can have the call where a name belongs:
`names=L(register_voc_dir)(root="...", split="train")`.
"""

from .coco_json import register_coco_json
from .digits import generate_digits, register_digits
from .validation import Findings, validate_dataset_dicts
from .voc import register_voc_dir, voc_class_names

__all__ = [
    "Findings",
    "generate_digits",
    "register_coco_json",
    "register_digits",
    "register_voc_dir",
    "validate_dataset_dicts",
    "voc_class_names",
]
