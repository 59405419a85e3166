"""Spearman's rank correlation, and how each image moves it.

Letters: D detections, N images.
"""

import numpy as np

__all__ = ["rank_correlation_influence"]


def rank_correlation_influence(
    x: np.ndarray, y: np.ndarray, image: np.ndarray, num_images: int
) -> tuple[float, np.ndarray]:
    """The correlation of `x` and `y`, ties having their mean rank, and its derivatives.

    The correlation is C / sqrt(X Y) with the centred ranks a and b, C = sum a b, X = sum a^2 and
    Y = sum b^2. A rank is a sum too, a = sum of sign(x - x') / 2, so that the derivative of all
    three by how often a detection counts is a sum over detections again.

    Args:
        x: (D,)
        y: (D,)
        image: (D,) in [0, N).
        num_images: N.

    Returns:
        the correlation in -1..1, and (N,) its derivative by how often each image counts. NaN and
        zeros where all x or all y are equal, or there are fewer than two detections.
    """
    nothing = float("nan"), np.zeros(num_images)
    if len(x) < 2:
        return nothing
    by_x, by_y = _Groups(x), _Groups(y)
    ones = np.ones(len(x))
    a, b = -by_x.signs(ones) / 2, -by_y.signs(ones) / 2
    both, spread_x, spread_y = a @ b, a @ a, b @ b
    if spread_x <= 0 or spread_y <= 0:
        return nothing
    norm = np.sqrt(spread_x) * np.sqrt(spread_y)
    value = both / norm
    change = (a * b + by_x.signs(b) / 2 + by_y.signs(a) / 2) / norm
    for spread, rank, groups in ((spread_x, a, by_x), (spread_y, b, by_y)):
        change -= value / 2 * (rank**2 + groups.signs(rank)) / spread
    return float(value), np.bincount(image, weights=change, minlength=num_images)


class _Groups:
    """Detections by equal values."""

    def __init__(self, values: np.ndarray) -> None:
        _, self._group = np.unique(values, return_inverse=True)

    def signs(self, weights: np.ndarray) -> np.ndarray:
        """(D,) the weights of the detections above each one less those of the ones below."""
        total = np.bincount(self._group, weights=weights)
        below = np.cumsum(total) - total
        return (total.sum() - total - 2 * below)[self._group]
