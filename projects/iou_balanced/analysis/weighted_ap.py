"""AP where each image counts a number of times, for many such weightings at once.

An image drawn twice counts twice: its objects, its true and its false detections. That is the AP of
the data set with the image repeated, without matching or sorting again.

Letters: C candidates, T IoU thresholds, W weightings, R recall levels, N images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .class_tables import ClassTable
from .matching import FALSE, TRUE
from .metric_names import RECALL_LEVELS

__all__ = ["Counts", "ap_of_counts", "count", "num_objects", "weighted_ap"]

_TINY = np.spacing(1)  # as COCO's evaluation guards its division
_MAX_TABLE = 2**25  # bytes


class Counts(NamedTuple):
    """At each candidate that is true at one threshold, by falling score."""

    which: np.ndarray
    """Indices of these candidates."""
    true: np.ndarray
    """(len(which), W) true detections so far, this one included."""
    false: np.ndarray
    """Likewise, false ones."""


def weighted_ap(table: ClassTable, rows: Sequence[np.ndarray]) -> np.ndarray:
    """AP at each threshold for each weighting.

    Args:
        table: of a class and an area range.
        rows: N arrays (W,), how often each image counts; whole numbers.

    Returns:
        (T, W) in 0..1, NaN where the class has no object.
    """
    objects = num_objects(table, rows)
    others = _others(table, rows)
    ap = np.empty((len(table.status), len(objects)))
    steps = _Steps(objects)
    for t in range(len(ap)):
        ap[t] = ap_of_counts(count(table, rows, t, others), steps)
    ap[:, objects == 0] = np.nan
    return ap


def num_objects(table: ClassTable, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(W,) objects to be found."""
    total = np.zeros_like(rows[0], dtype=np.float64)
    for image, number in zip(table.object_image.tolist(), table.object_count.tolist(), strict=True):
        total += number * rows[image]
    return total


def _others(table: ClassTable, rows: Sequence[np.ndarray]) -> np.ndarray:
    """(C, W) false detections that are no candidates, before each candidate."""
    total = np.zeros_like(rows[0], dtype=np.float64)
    result = np.empty((len(table.score), len(total)))
    images, add = table.other_image.tolist(), np.add
    start = 0
    # A loop over rows: numpy's cumsum along the first axis is slower, and needs all rows at once.
    for c, stop in enumerate(table.others_before[:-1].tolist()):
        for image in images[start:stop]:
            add(total, rows[image], out=total)
        start = stop
        result[c] = total
    return result


def count(
    table: ClassTable, rows: Sequence[np.ndarray], t: int, others: np.ndarray | None = None
) -> Counts:
    """True and false detections down to each true one, at threshold number `t`."""
    if others is None:
        others = _others(table, rows)
    status = table.status[t].tolist()
    which = np.flatnonzero(table.status[t] == TRUE)
    true, false = (np.empty((len(which), others.shape[1])) for _ in range(2))
    num_true, num_false = np.zeros((2, others.shape[1]))
    add, i = np.add, 0
    for c, image in enumerate(table.image.tolist()):
        if status[c] == TRUE:
            add(num_true, rows[image], out=num_true)
            true[i] = num_true
            add(num_false, others[c], out=false[i])
            i += 1
        elif status[c] == FALSE:
            add(num_false, rows[image], out=num_false)
    return Counts(which, true, false)


class _Steps:
    """How many recall levels are reached with a number of true detections, for each weighting."""

    def __init__(self, objects: np.ndarray) -> None:
        self._objects = objects.astype(np.int64)
        self._chunk = max(1, _MAX_TABLE // int(self._objects.max(initial=1) + 1))

    def __len__(self) -> int:
        return len(self._objects)

    def chunks(self):
        """(weightings, table, where the entries of each weighting begin in it)."""
        if len(self) <= self._chunk:
            if not hasattr(self, "_only"):
                self._only = (slice(None), *self._table(self._objects))
            yield self._only
            return
        for start in range(0, len(self), self._chunk):
            part = slice(start, start + self._chunk)
            yield part, *self._table(self._objects[part])

    @staticmethod
    def _table(objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distinct, inverse = np.unique(objects, return_inverse=True)
        lengths = distinct + 1
        begin = np.cumsum(lengths) - lengths
        # The division that COCO's evaluation makes, so that no recall is rounded another way.
        parts = [
            np.searchsorted(RECALL_LEVELS, np.arange(n + 1) / max(n, 1), side="right")
            for n in distinct.tolist()
        ]
        return np.concatenate(parts).astype(np.uint8), begin[inverse]


def ap_of_counts(counts: Counts, objects: "np.ndarray | _Steps") -> np.ndarray:
    """(W,) AP by the mean over recall levels of the highest precision at that recall or above.

    Args:
        counts: of one threshold.
        objects: (W,) to be found.
    """
    steps = objects if isinstance(objects, _Steps) else _Steps(objects)
    true, false = counts.true, counts.false
    if not len(true):
        return np.zeros(len(steps))
    precision = true / (true + false + _TINY)
    maximum = np.maximum
    for row in range(len(precision) - 2, -1, -1):
        maximum(precision[row], precision[row + 1], out=precision[row])
    ap = np.empty(len(steps))
    for part, table, begin in steps.chunks():
        levels = table[true[:, part].astype(np.int64) + begin]
        ap[part] = precision[0, part] * levels[0]
        ap[part] += ((levels[1:] - levels[:-1]) * precision[1:, part]).sum(axis=0)
    return ap / len(RECALL_LEVELS)
