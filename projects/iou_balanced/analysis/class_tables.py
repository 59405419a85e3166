"""What is needed to compute the AP of a class for any multiplicity of the images.

Detections that are false at every threshold only count between those that are not; so a class is a
short list of the latter, the candidates, and for each how many others go before it, by image.

Letters: C candidates, F other detections, T IoU thresholds, A area ranges, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matching import FALSE, IGNORED, Matches

__all__ = ["ClassTable", "class_table", "pooled"]


@dataclass(frozen=True, eq=False)
class ClassTable:
    """A class of a run, at one area range."""

    score: np.ndarray
    """(C,) falling."""
    image: np.ndarray
    """(C,)"""
    status: np.ndarray
    """(T, C) see `iou_balanced.analysis.matching`."""
    iou: np.ndarray
    """(C,) with the object matched at the lowest threshold; 0 where there is none."""
    other_image: np.ndarray
    """(F,) of the detections that are false at every threshold, by falling score."""
    other_score: np.ndarray
    """(F,)"""
    others_before: np.ndarray
    """(C + 1,) how many of those go before each candidate; last F."""
    object_image: np.ndarray
    """Images with objects to be found."""
    object_count: np.ndarray
    """How many each of them has."""

    def scaled_to(self, num_images: int, second: bool) -> "ClassTable":
        """The same with the images numbered as those of the second of two runs."""
        shift = num_images if second else 0
        return ClassTable(
            **{
                **self.__dict__,
                "image": self.image + shift,
                "other_image": self.other_image + shift,
            }
        )


def class_table(matches: Matches, truth, k: int, area: int) -> ClassTable:
    """The table of class `k` at area range number `area`, "all" being 0."""
    detections = matches.detections
    where = detections.of_class(k)
    low, high = np.searchsorted(matches.candidate, (where.start, where.stop))
    candidate, status = matches.candidate[low:high], matches.status[area][:, low:high]
    always_false = (status == FALSE).all(axis=0)
    kept = ~always_false & ~(status == IGNORED).all(axis=0)
    is_other = matches.in_range[area, where].copy()
    is_other[candidate - where.start] = always_false
    other = np.flatnonzero(is_other) + where.start
    candidate, status = candidate[kept], status[:, kept]
    objects = truth.image[matches.counted[area] & (truth.category == k)]
    object_image, object_count = np.unique(objects, return_counts=True)
    return ClassTable(
        score=detections.score[candidate],
        image=detections.image[candidate],
        status=status,
        iou=matches.matched_iou[candidate],
        other_image=detections.image[other],
        other_score=detections.score[other],
        others_before=np.append(np.searchsorted(other, candidate), len(other)),
        object_image=object_image,
        object_count=object_count,
    )


def pooled(tables: Sequence[ClassTable], num_images: int) -> ClassTable:
    """Two runs' detections as those of one run over twice the images: the second's come after.

    With weights of 0 and 1 for an image's two versions, each image has the detections of either
    run.
    """
    first, second = (t.scaled_to(num_images, i == 1) for i, t in enumerate(tables))
    parts = (first, second)
    score = np.concatenate([t.score for t in parts] + [t.other_score for t in parts])
    image = np.concatenate([t.image for t in parts] + [t.other_image for t in parts])
    number = len(first.score) + len(second.score)
    # Of one run and image, candidates and others of equal scores keep the order they had.
    place = np.concatenate([_places(t)[i] for i in range(2) for t in parts])
    order = np.lexsort((place, image % num_images, -score))
    is_other = order >= number
    candidates, others = order[~is_other], order[is_other]
    before = np.cumsum(is_other)[~is_other]
    status = np.concatenate([t.status for t in parts], axis=1)
    return ClassTable(
        score=score[candidates],
        image=image[candidates],
        status=status[:, candidates],
        iou=np.concatenate([t.iou for t in parts])[candidates],
        other_image=image[others],
        other_score=score[others],
        others_before=np.append(before, len(others)),
        # One of an image's two versions counts.
        object_image=np.concatenate([first.object_image, second.object_image + num_images]),
        object_count=np.concatenate([first.object_count, second.object_count]),
    )


def _places(table: ClassTable) -> tuple[np.ndarray, np.ndarray]:
    """The places of candidates and of others among both."""
    number = len(table.score)
    before = table.others_before[:-1]
    candidates = np.arange(number) + before
    others = np.arange(len(table.other_score))
    return candidates, others + np.searchsorted(before, others, side="right")
