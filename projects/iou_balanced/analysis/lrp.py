"""Localization recall precision at its best score threshold (arXiv 1807.01696, 2011.10772).

Of the detections above a score threshold and the objects, with TP, FP and FN at IoU tau = 0.5:

    LRP = (sum over TP of (1 - IoU) / (1 - tau) + FP + FN) / (TP + FP + FN)

0 is perfect and 1 nothing found. The optimal LRP is the lowest over all score thresholds, and its
parts say what it is made of there: the mean 1 - IoU of the true detections, 1 - precision, and
1 - recall.
"""

from collections.abc import Sequence

import numpy as np

from .class_tables import ClassTable
from .weighted_ap import Counts

__all__ = ["LRP_METRICS", "optimal_lrp"]

LRP_METRICS = ("LRP", "LRP_loc", "LRP_FP", "LRP_FN")
_TAU = 0.5


def optimal_lrp(
    table: ClassTable, rows: Sequence[np.ndarray], counts: Counts, objects: np.ndarray
) -> np.ndarray:
    """The optimal LRP of a class and its parts.

    Args:
        table: of the class, all areas.
        rows: N arrays (W,), how often each image counts.
        counts: at IoU 0.5.
        objects: (W,) to be found.

    Returns:
        (4, W) of `LRP_METRICS`, in 0..1. Without an object all are NaN; without a true detection
        LRP and LRP_FN are 1, and the other two NaN.
    """
    # Threshold by threshold, LRP falls at true detections only, so its minimum is at one of them.
    error = np.empty_like(counts.true)
    total = np.zeros(len(objects))
    for i, c in enumerate(counts.which.tolist()):
        total += rows[table.image[c]] * (1 - table.iou[c])
        error[i] = total
    result = np.full((4, len(objects)), np.nan)
    result[0] = result[3] = 1.0
    if len(error):
        false, true = counts.false, counts.true
        with np.errstate(invalid="ignore", divide="ignore"):
            lrp = (error / (1 - _TAU) + false + objects - true) / (objects + false)
            best = lrp.argmin(axis=0)[None]
            lrp, error, false, true = (
                np.take_along_axis(x, best, axis=0)[0] for x in (lrp, error, false, true)
            )
            parts = np.stack([lrp, error / true, false / (true + false), 1 - true / objects])
        result = np.where(true > 0, parts, result)
    result[:, objects == 0] = np.nan
    return result
