"""Where AP is lost: kinds of errors, and what mending each kind alone would give.

The definitions of TIDE (arXiv 2008.08115, section 2.2) with foreground IoU 0.5 and background IoU
0.1. A false detection is, by the first that applies,

* "localization": of the right class, 0.1 <= IoU < 0.5 with an object;
* "classification": IoU >= 0.5 with an object of another class;
* "duplicate": IoU >= 0.5 with an object of its class that a detection of a higher score found;
* "background": IoU <= 0.1 with every object;
* "both": all others, of the wrong class and badly localized.

"missed" are objects that nothing finds, and that no localization or classification error is nearest
to. Mending makes a classification or localization error a true detection of the object, the one of
the highest score where there are several, takes the others away, takes all detections of the other
three kinds away, and takes missed objects out of what is to be found. The gain is AP50 then less
AP50 as it is. Crowds and ignored objects are none here.

Letters: D detections, G objects, N images, K classes.
"""

from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util

from .class_tables import ClassTable
from .detections import Detections
from .ground_truth import GroundTruth
from .matching import FALSE, TRUE, Matches

__all__ = ["KINDS", "Errors", "find_errors", "mended"]

KINDS = ("classification", "localization", "both", "duplicate", "background", "missed")
_FOREGROUND, _BACKGROUND = 0.5, 0.1


@dataclass(frozen=True, eq=False)
class Errors:
    """What is wrong in a run."""

    is_true: np.ndarray
    """(D,) bool."""
    kind: np.ndarray
    """(D,) int8: place in `KINDS`, or -1 for what is true or ignored."""
    target: np.ndarray
    """(D,) the object that the detection would find if it were mended, or -1."""
    missed: np.ndarray
    """(G,) bool."""

    def counts(self) -> dict[str, int]:
        """Kind -> how many there are."""
        numbers = {name: int((self.kind == i).sum()) for i, name in enumerate(KINDS)}
        return numbers | {"missed": int(self.missed.sum())}


def find_errors(truth: GroundTruth, matches: Matches) -> Errors:
    """Sort all false detections and all objects that are not found by kind."""
    found = matches.detections
    status = np.full(len(found), FALSE, np.int8)
    status[matches.candidate] = matches.status[0, 0]
    taken = np.zeros(len(truth.image), bool)
    taken[matches.matched_object[status == TRUE]] = True
    kind = np.full(len(found), -1, np.int8)
    target = np.full(len(found), -1, np.int64)
    objects = np.flatnonzero(~truth.ignored)
    by_image = _split(truth.image[objects], truth.num_images)
    false = np.flatnonzero(status == FALSE)
    for image, which in enumerate(_split(found.image[false], truth.num_images)):
        if len(which):
            here = false[which]
            kind[here], target[here] = _kinds(truth, found, here, objects[by_image[image]], taken)
    usable = np.zeros(len(truth.image), bool)
    usable[target[target >= 0]] = True
    missed = ~truth.ignored & ~taken & ~usable
    # What is found already cannot be found again.
    target[(target >= 0) & taken[target]] = -1
    return Errors(status == TRUE, kind, target, missed)


def _split(images: np.ndarray, num_images: int) -> list[np.ndarray]:
    """Places of each image."""
    order = np.argsort(images, kind="stable")
    return np.split(order, np.searchsorted(images[order], np.arange(1, num_images)))


def _kinds(
    truth: GroundTruth,
    found: Detections,
    detections: np.ndarray,
    objects: np.ndarray,
    taken: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Of the false detections of an image: (kinds, objects that they are about)."""
    number = len(detections)
    kind = np.full(number, KINDS.index("both"), np.int8)
    target = np.full(number, -1, np.int64)
    if not len(objects):
        return np.full(number, KINDS.index("background"), np.int8), target
    ious = np.asarray(
        mask_util.iou(found.boxes[detections], truth.boxes[objects], [0] * len(objects))
    )
    same = found.category[detections][:, None] == truth.category[objects]
    own, other = ious * same, ious * ~same
    best_own, best_other = own.max(axis=1), other.max(axis=1)
    kind[ious.max(axis=1) <= _BACKGROUND] = KINDS.index("background")
    used = (own * taken[objects]).max(axis=1)
    kind[used >= _FOREGROUND] = KINDS.index("duplicate")
    is_class = best_other >= _FOREGROUND
    kind[is_class] = KINDS.index("classification")
    target[is_class] = objects[other.argmax(axis=1)][is_class]
    is_box = (best_own >= _BACKGROUND) & (best_own < _FOREGROUND)
    kind[is_box] = KINDS.index("localization")
    target[is_box] = objects[own.argmax(axis=1)][is_box]
    return kind, target


def mended(
    truth: GroundTruth, matches: Matches, errors: Errors, kind: str | None
) -> list[ClassTable]:
    """(K,) the classes at IoU 0.5 with one kind of error mended; None mends nothing."""
    found = matches.detections
    counts = errors.is_true | (errors.kind >= 0)
    is_true, category = errors.is_true.copy(), found.category.copy()
    objects = ~truth.ignored
    if kind == "missed":
        objects &= ~errors.missed
    elif kind is not None:
        wrong = errors.kind == KINDS.index(kind)
        counts &= ~wrong
        places = np.flatnonzero(wrong & (errors.target >= 0))
        places = places[np.argsort(-found.score[places], kind="stable")]
        targets, first = np.unique(errors.target[places], return_index=True)
        best = places[first]
        counts[best] = is_true[best] = True
        category[best] = truth.category[targets]
    return [
        _table(
            np.flatnonzero(counts & (category == k)),
            is_true,
            found,
            truth.image[objects & (truth.category == k)],
        )
        for k in range(truth.num_classes)
    ]


def _table(which, is_true, found: Detections, objects: np.ndarray) -> ClassTable:
    which = which[np.lexsort((found.image[which], -found.score[which]))]
    true, other = np.flatnonzero(is_true[which]), np.flatnonzero(~is_true[which])
    image, number = np.unique(objects, return_counts=True)
    return ClassTable(
        score=found.score[which[true]],
        image=found.image[which[true]],
        status=np.full((1, len(true)), TRUE, np.int8),
        iou=np.ones(len(true)),
        other_image=found.image[which[other]],
        other_score=found.score[which[other]],
        others_before=np.append(np.searchsorted(other, true), len(other)),
        object_image=image,
        object_count=number,
    )
