"""Correlation coefficients of weighted pairs, with gradient.

Shapes: P pairs, float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def pearson(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Pearson's coefficient; 1, without gradient, where one of both has no spread.

    Args:
        x: (P,).
        y: (P,).
        weights: (P,) of the pairs, at least 0.
    """
    _, _, var_x, var_y, covariance = _moments(x, y, weights)
    constant = _is_rounding(var_x, x) | _is_rounding(var_y, y)
    product = torch.where(constant, 1.0, var_x * var_y)
    return torch.where(constant, 1.0, covariance / product.sqrt())


def concordance(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Lin's concordance coefficient; 1, without gradient, where all numbers are the same one.

    Variances and covariance have the divisor P - 1, as in the code of arXiv 2301.01019, and not P,
    as Lin's have.

    Args:
        x: see `pearson`.
        y: see `pearson`.
        weights: see `pearson`.
    """
    mean_x, mean_y, var_x, var_y, covariance = _moments(x, y, weights)
    unbiased = len(x) / (len(x) - 1)
    divisor = unbiased * (var_x + var_y) + (mean_x - mean_y) ** 2
    same = _is_rounding(divisor, torch.cat([x, y]))
    return torch.where(same, 1.0, 2 * unbiased * covariance / torch.where(same, 1.0, divisor))


def _moments(x: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Means, variances and covariance; scalars."""
    weights = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
    x, y = x - mean_x, y - mean_y
    return mean_x, mean_y, *((weights * z).sum() for z in (x * x, y * y, x * y))


def _is_rounding(variance: Tensor, values: Tensor) -> Tensor:
    """Whether a variance is nothing but rounding: of equal numbers in float64."""
    # Numbers that differ in float32 have a variance of 1e-15 of their squares and more.
    return variance.detach() <= 1e-24 * values.detach().square().mean()


COEFFICIENTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "concordance": concordance,
    "pearson": pearson,
    "spearman": pearson,  # of ranks
}
