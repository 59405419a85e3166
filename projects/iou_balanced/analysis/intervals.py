"""Intervals of numbers and of their differences, from draws of the images and from several seeds.

A run is one result file for each of its seeds, and its value the mean over them. Two things make it
uncertain: which images the test set happens to have (the spread over draws, the same for all
runs), and which seed a training happened to have (the spread over the seeds).

* One seed, and 50 objects or more: the percentiles of the draws.
* Fewer objects: value -+ t s, with the spread s of the draws and Student's t for as many degrees of
  freedom as images show the class, less 1. Percentiles cover too little there.
* Several seeds: value -+ t sqrt(s_images^2 + s_seeds^2), s_seeds^2 the variance over the seeds
  divided by their number, and degrees of freedom by Welch and Satterthwaite: with few seeds the
  spread over them is known badly, which the t accounts for.

Letters: B draws, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .students_t import t_quantile, t_tail

__all__ = ["FEW_OBJECTS", "Estimate", "Sample", "difference", "estimate", "holm"]

FEW_OBJECTS = 50
"""Classes with fewer objects have the wider interval."""


@dataclass
class Estimate:
    """A number with its interval, all in the same unit."""

    value: float
    low: float
    high: float
    se_images: float
    """Standard error from the choice of images."""
    se_seeds: float | None = None
    """Standard error from the choice of seeds; None with one seed, which cannot tell."""
    method: str = "percentile"
    """Or "t"."""
    p: float | None = None
    """Of a difference: how probable one as large is where there is none."""
    p_holm: float | None = None
    """Of a class's difference: corrected for the number of classes."""
    p_method: str | None = None
    """"permutation", "permutation, tail" or "t"."""

    def to_dict(self) -> dict:
        """Plain data, without what does not apply."""
        return {k: v for k, v in asdict(self).items() if v is not None}


@dataclass(frozen=True, eq=False)
class Sample:
    """A number of one run."""

    draws: np.ndarray
    """(S, 1 + B): of the images as they are, then of each draw; NaN where undefined."""
    num_objects: int
    """That it is about."""
    num_images: int
    """That have such objects."""

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(self.draws[:, 0].mean())

    @property
    def num_seeds(self) -> int:
        """S"""
        return len(self.draws)

    def seed_variance(self) -> float | None:
        """Over the seeds, of one seed's number; None where there is one seed only."""
        return float(self.draws[:, 0].var(ddof=1)) if self.num_seeds > 1 else None


def estimate(sample: Sample, confidence: float) -> Estimate:
    """The number of one run with its interval."""
    variance = sample.seed_variance()
    seeds = [] if variance is None else [(variance / sample.num_seeds, sample.num_seeds - 1)]
    return _interval(sample.value, sample.draws[:, 1:].mean(axis=0), seeds, sample, confidence)


def difference(
    sample: Sample, first: Sample, confidence: float, swapped: np.ndarray | None = None
) -> Estimate:
    """The difference of two runs, paired: both have the same draws of images.

    Where one run has several seeds and the other one, the spread of the other is taken to be as
    large.

    Args:
        sample, first: of the two runs; the difference is to `first`.
        confidence: such as 0.95.
        swapped: (permutations,) differences where the runs are swapped in half of the images; for
            runs of one seed.
    """
    value = sample.value - first.value
    draws = sample.draws[:, 1:].mean(axis=0) - first.draws[:, 1:].mean(axis=0)
    runs = (sample, first)
    known = {i: run.seed_variance() for i, run in enumerate(runs)}
    given = [v for v in known.values() if v is not None]
    seeds = []
    if len(given) == 2:
        seeds = [(known[i] / run.num_seeds, run.num_seeds - 1) for i, run in enumerate(runs)]
    elif given:
        most = max(run.num_seeds for run in runs)
        seeds = [(given[0] * sum(1 / run.num_seeds for run in runs), most - 1)]
    result = _interval(value, draws, seeds, sample, confidence)
    spread, df = _spread(draws, seeds, sample)
    if seeds or swapped is None:
        if spread > 0 and df > 0:
            result.p, result.p_method = t_tail(value / spread, df), "t"
        elif value == 0 and spread == 0:
            result.p, result.p_method = 1.0, "t"
    else:
        result.p, result.p_method = _permutation_p(value, swapped, sample)
    return result


def holm(p: Sequence[float | None]) -> list[float | None]:
    """p values corrected for their number (Holm 1979); None stays, and does not count."""
    places = [i for i, value in enumerate(p) if value is not None]
    places.sort(key=lambda i: p[i])
    result: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, i in enumerate(places):
        highest = max(highest, min(1.0, (len(places) - rank) * p[i]))
        result[i] = highest
    return result


def _spread(draws: np.ndarray, seeds: list, sample: Sample) -> tuple[float, float]:
    """(standard error, degrees of freedom) by Welch and Satterthwaite."""
    parts = [(_variance(draws), sample.num_images - 1), *seeds]
    total = sum(variance for variance, _ in parts)
    below = sum(variance**2 / df for variance, df in parts if df > 0)
    return math.sqrt(total), total**2 / below if below > 0 else 0.0


def _variance(draws: np.ndarray) -> float:
    draws = draws[~np.isnan(draws)]
    return float(draws.var(ddof=1)) if len(draws) > 1 else math.nan


def _interval(
    value: float, draws: np.ndarray, seeds: list, sample: Sample, confidence: float
) -> Estimate:
    se_images = math.sqrt(_variance(draws))
    se_seeds = math.sqrt(sum(variance for variance, _ in seeds)) if seeds else None
    if math.isnan(value) or math.isnan(se_images):
        return Estimate(value, math.nan, math.nan, se_images, se_seeds, "none")
    if not seeds and sample.num_objects >= FEW_OBJECTS:
        tail = (1 - confidence) / 2
        low, high = np.nanquantile(draws, [tail, 1 - tail]).tolist()
        return Estimate(value, low, high, se_images)
    spread, df = _spread(draws, seeds, sample)
    if spread == 0 and sample.num_images > 1:
        return Estimate(value, value, value, se_images, se_seeds, "t")
    if df <= 0:
        return Estimate(value, math.nan, math.nan, se_images, se_seeds, "none")
    half = t_quantile(confidence, df) * spread
    return Estimate(value, value - half, value + half, se_images, se_seeds, "t")


_FEW_EXCEEDING = 10


def _permutation_p(
    value: float, swapped: np.ndarray, sample: Sample
) -> tuple[float | None, str | None]:
    """The share of swaps with a difference as large.

    With fewer than ten such swaps the share says little more than "small", and cannot get below one
    over their number, which after a correction for 80 classes is nothing. Then it is the tail of
    Student's t with the spread of the swaps, where that is lower than ten over their number.
    """
    swapped = swapped[~np.isnan(swapped)]
    if math.isnan(value) or not len(swapped):
        return None, None
    # Sums in another order differ in the last digits.
    exceeding = int((np.abs(swapped) >= abs(value) - 1e-12).sum())
    share = (1 + exceeding) / (1 + len(swapped))
    spread = math.sqrt(float((swapped**2).mean()))
    if exceeding >= _FEW_EXCEEDING or spread == 0 or sample.num_images < 2:
        return share, "permutation"
    tail = t_tail(value / spread, sample.num_images - 1)
    bound = (1 + _FEW_EXCEEDING) / (1 + len(swapped))
    return min(max(tail, 0.0), bound), "permutation, tail"
