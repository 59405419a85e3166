"""All numbers of a class for many weightings of the images: the work that processes share.

Letters: W weightings, T IoU thresholds, N images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .class_tables import ClassTable
from .lrp import LRP_METRICS, optimal_lrp
from .metric_names import IOU_THRESHOLDS
from .weighted_ap import ap_of_counts, count, num_objects, weighted_ap

__all__ = ["ClassStatistics", "ClassTask", "class_statistics"]

_MAX_CELLS = 2**22  # candidates x weightings at a time
_MAX_WEIGHTINGS = 500


class ClassTask(NamedTuple):
    """A class of a run."""

    areas: Sequence[ClassTable]
    """Of all, small, medium and large objects."""
    fixed: Sequence[ClassTable] = ()
    """Of all objects, with one kind of error mended each; of one threshold."""


class ClassStatistics(NamedTuple):
    """Of a class, NaN where it has no object."""

    ap: np.ndarray
    """(T, W) in 0..1."""
    sizes: np.ndarray
    """(3, W) AP of small, medium and large objects, means over the thresholds."""
    lrp: np.ndarray
    """(4, W) see `iou_balanced.analysis.lrp`."""
    fixed: np.ndarray
    """(number of `fixed`, W) AP50."""


def class_statistics(task: ClassTask, weights: np.ndarray) -> ClassStatistics:
    """
    Args:
        task: see there.
        weights: (N, W) how often each image counts, whole numbers.
    """
    num_weightings = weights.shape[1]
    result = ClassStatistics(
        np.empty((len(IOU_THRESHOLDS), num_weightings)),
        np.empty((3, num_weightings)),
        np.empty((len(LRP_METRICS), num_weightings)),
        np.empty((len(task.fixed), num_weightings)),
    )
    longest = max(len(t.score) for t in (*task.areas, *task.fixed))
    step = min(max(_MAX_CELLS // max(longest, 1), 1), _MAX_WEIGHTINGS)
    for start in range(0, num_weightings, step):
        part = slice(start, start + step)
        rows = list(np.ascontiguousarray(weights[:, part], dtype=np.float64))
        _fill(task, rows, result, part)
    return result


def _fill(task: ClassTask, rows: list[np.ndarray], result: ClassStatistics, part: slice) -> None:
    first, *sizes = task.areas
    result.ap[:, part] = weighted_ap(first, rows)
    result.lrp[:, part] = optimal_lrp(first, rows, count(first, rows, 0), num_objects(first, rows))
    for i, table in enumerate(sizes):
        result.sizes[i, part] = weighted_ap(table, rows).mean(axis=0)
    for i, table in enumerate(task.fixed):
        objects = num_objects(table, rows)
        ap = ap_of_counts(count(table, rows, 0), objects)
        result.fixed[i, part] = np.where(objects > 0, ap, np.nan)
