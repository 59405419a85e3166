"""Detections as columns of numbers, in the order that COCO's evaluation goes through them.

Letters: N images, K classes, D detections.
"""

from dataclasses import dataclass

import numpy as np

from .metric_names import MAX_DETECTIONS

__all__ = ["Detections"]


@dataclass(frozen=True, eq=False)
class Detections:
    """Class by class, by falling score; of equal scores, lower images first, then the file's order.

    Of an image and class only the `MAX_DETECTIONS` of the highest scores are here.
    """

    image: np.ndarray
    """(D,) int64 in [0, N)."""
    category: np.ndarray
    """(D,) int64 in [0, K), ascending."""
    boxes: np.ndarray
    """(D, 4) x, y, width, height in pixels."""
    score: np.ndarray
    """(D,)"""
    start: np.ndarray
    """(K + 1,) where each class begins."""
    num_left_out: int = 0
    """Beyond the limit of an image and class."""

    def __len__(self) -> int:
        return len(self.score)

    @property
    def area(self) -> np.ndarray:
        """(D,) in square pixels."""
        return self.boxes[:, 2] * self.boxes[:, 3]

    def of_class(self, k: int) -> slice:
        """Where the detections of a class are.

        Args:
            k: the class, in [0, K).
        """
        return slice(int(self.start[k]), int(self.start[k + 1]))

    @classmethod
    def from_columns(
        cls,
        image: np.ndarray,
        category: np.ndarray,
        boxes: np.ndarray,
        score: np.ndarray,
        num_classes: int,
        max_detections: int = MAX_DETECTIONS,
    ) -> "Detections":
        """From columns in the order of a file.

        Args:
            image: (D,) in [0, N).
            category: (D,) in [0, K).
            boxes: (D, 4) x, y, width, height in pixels.
            score: (D,)
            num_classes: K.
            max_detections: that are kept of an image and class.
        """
        image, category = (np.asarray(x, dtype=np.int64) for x in (image, category))
        score = np.asarray(score, dtype=np.float64)
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        # Sorts are stable. First inside of each image and class, as `COCOeval.evaluateImg` does.
        order = np.lexsort((-score, image, category))
        key = category[order] * (image.max(initial=0) + 1) + image[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        place = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        order = order[place < max_detections]
        # Then over the images of a class, as `COCOeval.accumulate` does.
        order = order[np.lexsort((-score[order], category[order]))]
        start = np.searchsorted(category[order], np.arange(num_classes + 1))
        return cls(
            image=image[order],
            category=category[order],
            boxes=boxes[order],
            score=score[order],
            start=start,
            num_left_out=len(score) - len(order),
        )
