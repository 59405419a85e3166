"""How each image moves an AP: its derivative by how often the image counts.

With the precision made monotonic, AP is nearly the area below it: the sum over true detections of
the precision at them, divided by the number of objects G. If an image counts a little more,

* each of its true detections adds the precision there, its objects lower all recalls by AP / G, and
* each of its detections moves the precision at the places from it on where precision is highest:
  up by (1 - p) / n for a true one, down by p / n for a false one, n being the detections so far.

Summed over all images this is 0. Where p is not smoothed over recall levels the sum is exact; COCO
takes 101 levels, which makes little difference. Used to say which images made a difference, and for
the spread of numbers that are too many to draw one by one.

Letters: T IoU thresholds, N images.
"""

import numpy as np

from .class_tables import ClassTable
from .matching import FALSE, TRUE

__all__ = ["ap_influence"]


def ap_influence(table: ClassTable, t: int, num_images: int) -> np.ndarray:
    """(N,) the derivative of a class's AP, in 0..1, at threshold number `t`; 0 without objects."""
    result = np.zeros(num_images)
    objects = int(table.object_count.sum())
    if not objects:
        return result
    image, is_true = _sequence(table, t)
    true = np.flatnonzero(is_true)
    ap = 0.0
    if len(true):
        number = np.arange(1, len(image) + 1)
        precision = np.arange(1, len(true) + 1) / number[true]
        # The place from each true detection on where precision is highest.
        best = np.maximum.accumulate(precision[::-1])[::-1]
        top = np.flatnonzero(precision == best)
        place = true[top[np.searchsorted(top, np.arange(len(true)))]]
        ap = best.sum() / objects
        gain, loss = np.zeros((2, len(image)))
        np.add.at(gain, place, (1 - best) / number[place])
        np.add.at(loss, place, best / number[place])
        change = np.where(is_true, gain[::-1].cumsum()[::-1], -loss[::-1].cumsum()[::-1])
        change[true] += best
        result += np.bincount(image, weights=change, minlength=num_images) / objects
    result[table.object_image] -= ap * table.object_count / objects
    return result


def _sequence(table: ClassTable, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of the true and false detections by falling score, and which are true."""
    status = np.full(len(table.score) + len(table.other_image), FALSE, np.int8)
    image = np.empty(len(status), np.int64)
    candidates = np.arange(len(table.score)) + table.others_before[:-1]
    status[candidates], image[candidates] = table.status[t], table.image
    others = np.ones(len(status), bool)
    others[candidates] = False
    image[others] = table.other_image
    counted = (status == TRUE) | (status == FALSE)
    return image[counted], status[counted] == TRUE
