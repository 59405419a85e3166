"""How often each class occurs in a training set: what class weights are made of.

python -m iou_balanced.data.class_counts --json-file annotations.json
"""

from .counts import ClassCounts
from .extremes import warn_extreme
from .table import format_class_table

__all__ = ["ClassCounts", "format_class_table", "warn_extreme"]
