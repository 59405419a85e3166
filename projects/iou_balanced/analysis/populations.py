"""The detections whose scores and IoUs are compared, by three choices; and numbers of each.

Letters: D detections, N images, W weightings, B bins.
"""

from dataclasses import dataclass

import numpy as np

from .ground_truth import GroundTruth
from .localization import IOU_EDGES, IOU_THRESHOLDS
from .matching import Matches
from .rank_correlation import rank_correlation_influence

__all__ = ["POPULATIONS", "SCORE_EDGES", "SHOWN", "WHY_SHOWN", "Population", "population"]

POPULATIONS = {
    "matched": "detections that COCO matches to an object at IoU 0.5, with the IoU of that object",
    "top": "the detections of the highest scores, as many as there are objects, with the IoU of "
    "the best object of their class in their image",
    "all": "all detections, with the IoU of the best object of their class in their image",
}
SHOWN = "matched"
WHY_SHOWN = (
    "Shown are detections that COCO matches to an object at IoU 0.5: each object counts once, and "
    "the numbers say how well scores tell apart good and better boxes. Over all detections they "
    "say mostly how many boxes of the background a detector writes. The paper does not say which "
    "detections its Figure 3 is about."
)
SCORE_EDGES = tuple(np.round(np.linspace(0, 1, 11), 1).tolist())
"""Of the bins of the calibration."""


@dataclass(frozen=True, eq=False)
class Population:
    """Some detections of a run."""

    score: np.ndarray
    """(D,)"""
    iou: np.ndarray
    """(D,)"""
    image: np.ndarray
    """(D,) in [0, N)."""
    category: np.ndarray
    """(D,)"""

    def of_class(self, k: int) -> "Population":
        """Those of one class."""
        which = self.category == k
        return Population(*(x[which] for x in self.__dict__.values()))

    def rank_correlation(self, weights: np.ndarray) -> np.ndarray:
        """(W,) of score and IoU; of the first weighting, each image once, and linearly beyond."""
        value, change = rank_correlation_influence(self.score, self.iou, self.image, len(weights))
        return value + change @ (weights - 1.0)

    def sums(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Counts and means for each weighting.

        Returns:
            mean_iou, mean_score (W,); mean_score_by_iou (10, W) in the ranges of Figure 3a;
            share_above (10, W) of Figure 3b; calibration_error (W,), the mean of
            |mean score - mean IoU| over ten bins of the score, by their detections;
            calibration_count, calibration_score and calibration_iou (10, W) of these bins.
        """
        iou_bin = _bins(self.iou, IOU_EDGES)
        score_bin = _bins(self.score, SCORE_EDGES)
        above = (self.iou[:, None] > np.asarray(IOU_THRESHOLDS)).astype(np.float64)
        one = np.ones(len(self.score))
        count, score, iou = (self._add(x, weights) for x in (one, self.score, self.iou))
        by_iou, score_by_iou = (
            self._add(x, weights, iou_bin, len(IOU_EDGES) - 1) for x in (one, self.score)
        )
        by_score, score_by_score, iou_by_score = (
            self._add(x, weights, score_bin, len(SCORE_EDGES) - 1)
            for x in (one, self.score, self.iou)
        )
        gap = np.abs(score_by_score - iou_by_score).sum(axis=0)
        return {
            "mean_iou": _ratio(iou[0], count[0]),
            "mean_score": _ratio(score[0], count[0]),
            "calibration_error": _ratio(gap, count[0]),
            "mean_score_by_iou": _ratio(score_by_iou, by_iou),
            "share_above": np.stack(
                [_ratio(self._add(column, weights)[0], count[0]) for column in above.T]
            ),
            "calibration_count": by_score,
            "calibration_score": _ratio(score_by_score, by_score),
            "calibration_iou": _ratio(iou_by_score, by_score),
        }

    def _add(self, values, weights, bins=None, num_bins: int = 1) -> np.ndarray:
        """(B, W) sums by bin; bins of -1 are left out."""
        bins = np.zeros(len(values), np.int64) if bins is None else bins
        kept = bins >= 0
        by_image = np.bincount(
            self.image[kept] * num_bins + bins[kept],
            weights=values[kept],
            minlength=len(weights) * num_bins,
        ).reshape(-1, num_bins)
        return by_image.T @ weights


def _bins(values: np.ndarray, edges) -> np.ndarray:
    """A bin holds its lower edge, the last one both; -1 outside."""
    place = np.searchsorted(edges, values, side="right") - 1
    place[values == edges[-1]] = len(edges) - 2
    place[place >= len(edges) - 1] = -1
    return place


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def population(name: str, truth: GroundTruth, matches: Matches) -> Population:
    """One of `POPULATIONS`, of a result file."""
    found = matches.detections
    iou = matches.best_iou
    if name == "matched":
        # What is matched to a crowd is neither true nor false.
        objects = matches.matched_object
        which = np.flatnonzero((objects >= 0) & ~truth.ignored[objects])
        iou = matches.matched_iou
    elif name == "top":
        order = np.argsort(-found.score, kind="stable")
        which = np.sort(order[: int((~truth.ignored).sum())])
    else:
        which = np.arange(len(found))
    return Population(found.score[which], iou[which], found.image[which], found.category[which])
