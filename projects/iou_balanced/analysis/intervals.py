"""Intervals of numbers and of their differences, from draws of the images and from several seeds.

A run is one result file for each of its seeds, and its value the mean over them. Two things make it
uncertain: which images the test set happens to have (the spread over draws, the same for all
runs), and which seed a training happened to have (the spread over the seeds). The interval is

    value -+ t sqrt(s_images^2 + s_seeds^2)

with Student's t for as many degrees of freedom as Welch and Satterthwaite give: with few images or
seeds the spread is known badly, which the t accounts for. Of a class with n images the spread of
the draws is too small by n / (n - 1), and has n - 1 degrees of freedom. A mean over classes, such
as AP, is often made uncertain by its rarest classes, whose own spread tells little. There, each
class's variance is moderated as in Smyth 2004 (limma): as if four more images had the mean variance
of an image, over all classes.

The percentiles of the draws cover less in simulations (see docs/analysis.md), most with rare
classes, and know nothing of seeds.

Letters: B draws, S seeds, K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .students_t import t_quantile, t_tail

__all__ = ["Estimate", "Sample", "difference", "estimate", "holm"]

_PRIOR_DF = 4


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
    df: float | None = None
    """Degrees of freedom of the interval's t."""
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
    """A number of one run, which may be a mean over classes."""

    draws: np.ndarray
    """(S, 1 + B): of the images as they are, then of each draw; NaN where undefined."""
    num_images: Sequence[int]
    """(K,) images with objects of each class that it is the mean of; (1,) of other numbers."""
    classes: Sequence[np.ndarray] | None = None
    """S arrays (K, 1 + B), of a mean."""
    limits: tuple[float, float] = (-math.inf, math.inf)
    """Lowest and highest number that it can be."""

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

    def parts(self) -> np.ndarray:
        """(K, B) the mean over the seeds, in the draws; NaN where the class has no object."""
        if self.classes is None:
            return self.draws[:, 1:].mean(axis=0)[None]
        return np.mean([x[:, 1:] for x in self.classes], axis=0)


def estimate(sample: Sample, confidence: float) -> Estimate:
    """The number of one run with its interval."""
    variance = sample.seed_variance()
    seeds = [] if variance is None else [(variance / sample.num_seeds, sample.num_seeds - 1)]
    images = _image_variance(sample.draws[:, 1:].mean(axis=0), sample.parts(), sample.num_images)
    return _interval(sample.value, images, seeds, confidence, sample.limits)


def difference(
    sample: Sample,
    first: Sample,
    confidence: float,
    swapped: np.ndarray | None = None,
    *,
    same_weights: bool = False,
) -> Estimate:
    """The difference of two runs, paired: both have the same draws of images.

    Where one run has several seeds and the other one, the spread of the other is taken to be as
    large. Seeds are no pairs, because two trainings with one seed part at the first rounding; the
    same weights, evaluated in two ways, are.

    Args:
        sample: of the run.
        first: of the run that it is compared with.
        confidence: such as 0.95.
        swapped: (permutations,) differences where the runs are swapped in half of the images; for
            runs of one seed.
        same_weights: whether each seed of the run has the weights of the first run's.
    """
    value = sample.value - first.value
    draws = sample.draws[:, 1:].mean(axis=0) - first.draws[:, 1:].mean(axis=0)
    images = _image_variance(draws, sample.parts() - first.parts(), sample.num_images)
    runs = (sample, first)
    known = {i: run.seed_variance() for i, run in enumerate(runs)}
    given = [v for v in known.values() if v is not None]
    seeds = []
    if same_weights and given:
        of_seeds = sample.draws[:, 0] - first.draws[:, 0]
        seeds = [(float(of_seeds.var(ddof=1)) / len(of_seeds), len(of_seeds) - 1)]
    elif len(given) == 2:
        seeds = [(known[i] / run.num_seeds, run.num_seeds - 1) for i, run in enumerate(runs)]
    elif given:
        most = max(run.num_seeds for run in runs)
        seeds = [(given[0] * sum(1 / run.num_seeds for run in runs), most - 1)]
    width = sample.limits[1] - sample.limits[0]
    result = _interval(value, images, seeds, confidence, (-width, width))
    if not seeds and swapped is not None:
        result.p, result.p_method = _permutation_p(value, swapped, images[1])
    elif result.df is not None:
        spread = math.hypot(result.se_images, result.se_seeds or 0.0)
        result.p = t_tail(value / spread, result.df) if spread > 0 else float(value == 0)
        result.p_method = "t"
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


def _image_variance(
    draws: np.ndarray, parts: np.ndarray, num_images: Sequence[int]
) -> tuple[float, float]:
    """(variance of a number by the choice of images, its degrees of freedom).

    Args:
        draws: (B,) of the number.
        parts: (K, B) of the classes that it is the mean of.
        num_images: (K,)
    """
    variance = _variances(parts)
    n = np.asarray(num_images, dtype=np.float64)
    defined = (n > 0) & ~np.isnan(variance)
    total = float(_variances(draws[None])[0])
    if math.isnan(total) or not defined.any():
        return math.nan, 0.0
    variance, n = variance[defined], n[defined]
    df = n - 1
    unbiased = variance * n / np.maximum(df, 1)
    if len(n) > 1 and df.sum() > 0:
        of_image = (df * unbiased * n).sum() / df.sum()
        unbiased = (df * unbiased + _PRIOR_DF * of_image / n) / (df + _PRIOR_DF)
        df = df + _PRIOR_DF
    share = unbiased / len(n) ** 2
    total = max(total, total + float((share - variance / len(n) ** 2).sum()))
    below = (share**2 / np.maximum(df, 1e-9)).sum()
    if below == 0:
        return total, float(df.max())
    return total, float(share.sum() ** 2 / below) if df.min() > 0 else 0.0


def _variances(rows: np.ndarray) -> np.ndarray:
    """(K,) over the draws that are defined; NaN where fewer than two are."""
    defined = ~np.isnan(rows)
    count = defined.sum(axis=1)
    filled = np.where(defined, rows, 0.0)
    mean = filled.sum(axis=1) / np.maximum(count, 1)
    squares = (np.where(defined, rows - mean[:, None], 0.0) ** 2).sum(axis=1)
    return np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)


def _interval(
    value: float,
    images: tuple[float, float],
    seeds: list[tuple[float, int]],
    confidence: float,
    limits: tuple[float, float],
) -> Estimate:
    """From (variance, degrees of freedom) of the choice of images, and of seeds."""
    parts = [images, *seeds]
    total = sum(variance for variance, _ in parts)
    se_seeds = math.sqrt(sum(variance for variance, _ in seeds)) if seeds else None
    result = Estimate(value, math.nan, math.nan, math.sqrt(images[0]), se_seeds)
    if math.isnan(value) or math.isnan(total) or images[1] <= 0:
        return result
    below = sum(variance**2 / df for variance, df in parts)
    result.df = total**2 / below if below > 0 else images[1]
    half = t_quantile(confidence, result.df) * math.sqrt(total)
    result.low, result.high = max(value - half, limits[0]), min(value + half, limits[1])
    return result


_FEW_EXCEEDING = 10


def _permutation_p(value: float, swapped: np.ndarray, df: float) -> tuple[float | None, str | None]:
    """The share of swaps with a difference as large.

    With fewer than ten such swaps the share says little more than "small", and cannot get below one
    over their number, which after a correction for 80 classes is nothing. Then it is the tail of
    Student's t with the spread of the swaps, where that is lower than ten over their number.
    """
    swapped = swapped[~np.isnan(swapped)]
    if math.isnan(value) or not len(swapped):
        return None, None
    # Sums in another order differ in the last digits.
    exceeding = int((np.abs(swapped) >= abs(value) - 1e-9).sum())
    share = (1 + exceeding) / (1 + len(swapped))
    spread = math.sqrt(float((swapped**2).mean()))
    if exceeding >= _FEW_EXCEEDING or spread == 0 or df <= 0:
        return share, "permutation"
    bound = (1 + _FEW_EXCEEDING) / (1 + len(swapped))
    return min(t_tail(value / spread, df), bound), "permutation, tail"
