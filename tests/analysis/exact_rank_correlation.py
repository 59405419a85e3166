"""Spearman's rank correlation where each image counts a number of times.

Letters: D detections, N images, W weightings.
"""

import numpy as np

__all__ = ["weighted_rank_correlation"]

_MAX_CELLS = 2**21  # detections x weightings at a time


def weighted_rank_correlation(
    x: np.ndarray, y: np.ndarray, image: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The correlation of `x` and `y` over the detections, each as often as its image counts.

    Args:
        x, y: (D,); ties get their mean rank.
        image: (D,) in [0, N).
        weights: (N, W) whole numbers.

    Returns:
        (W,) in -1..1, NaN where all x or all y are equal, or fewer than two detections count.
    """
    result = np.full(weights.shape[1], np.nan)
    if len(x) < 2:
        return result
    by_x, by_y = _Groups(x), _Groups(y)
    step = max(_MAX_CELLS // len(x), 1)
    for start in range(0, weights.shape[1], step):
        part = slice(start, start + step)
        w = weights[:, part].astype(np.float64)[image]  # (D, w)
        rank_x, spread_x = by_x.ranks(w)
        rank_y, spread_y = by_y.ranks(w)
        rank_x *= rank_y
        rank_x *= w
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = rank_x.sum(axis=0) / np.sqrt(spread_x * spread_y)
        result[part] = np.where(spread_x * spread_y > 0, ratio, np.nan)
    return result


class _Groups:
    """Detections by equal values."""

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        self._start = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self._group = np.empty(len(values), dtype=np.int64)
        sizes = np.diff(np.append(self._start, len(values)))
        self._group[self._order] = np.repeat(np.arange(len(sizes)), sizes)

    def ranks(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(D, W) ranks less their mean, and (W,) the sum of their squares, over all copies."""
        total = np.add.reduceat(w[self._order], self._start, axis=0)
        rank = np.cumsum(total, axis=0) - (total - 1) / 2 - (total.sum(axis=0) + 1) / 2
        return rank[self._group], (total * rank**2).sum(axis=0)
