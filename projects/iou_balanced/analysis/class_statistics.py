"""All numbers of a class for many weightings of the images: the work that processes share.

Letters: W weightings, T IoU thresholds, N images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .class_tables import ClassTable
from .lrp import LRP_METRICS, optimal_lrp
from .metric_names import IOU_THRESHOLDS
from .weighted_ap import count, num_objects, weighted_ap

__all__ = ["ClassStatistics", "class_statistics"]

_MAX_CELLS = 2**22  # candidates x weightings at a time
_MAX_WEIGHTINGS = 500


class ClassStatistics(NamedTuple):
    """Of a class, NaN where it has no object."""

    ap: np.ndarray
    """(T, W) in 0..1."""
    sizes: np.ndarray
    """(3, W) AP of small, medium and large objects, means over the thresholds."""
    lrp: np.ndarray
    """(4, W) see `iou_balanced.analysis.lrp`."""


def class_statistics(areas: Sequence[ClassTable], weights: np.ndarray) -> ClassStatistics:
    """
    Args:
        areas: the class among all, small, medium and large objects.
        weights: (N, W) how often each image counts, whole numbers.
    """
    num_weightings = weights.shape[1]
    result = ClassStatistics(
        np.empty((len(IOU_THRESHOLDS), num_weightings)),
        np.empty((3, num_weightings)),
        np.empty((len(LRP_METRICS), num_weightings)),
    )
    longest = max(len(table.score) for table in areas)
    step = min(max(_MAX_CELLS // max(longest, 1), 1), _MAX_WEIGHTINGS)
    for start in range(0, num_weightings, step):
        part = slice(start, start + step)
        rows = list(np.ascontiguousarray(weights[:, part], dtype=np.float64))
        _fill(areas, rows, result, part)
    return result


def _fill(
    areas: Sequence[ClassTable], rows: list[np.ndarray], result: ClassStatistics, part: slice
) -> None:
    first, *sizes = areas
    result.ap[:, part] = weighted_ap(first, rows)
    result.lrp[:, part] = optimal_lrp(first, rows, count(first, rows, 0), num_objects(first, rows))
    for i, table in enumerate(sizes):
        result.sizes[i, part] = weighted_ap(table, rows).mean(axis=0)
