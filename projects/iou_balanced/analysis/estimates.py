"""Values, intervals and differences of all metrics, from the draws of each result file.

Letters: B draws, S seeds, K classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .ground_truth import GroundTruth
from .intervals import Estimate, Sample, difference, estimate, holm
from .lrp import LRP_METRICS
from .metric_names import AREA_RANGES, class_metric
from .resampling import RunDraws

__all__ = ["compare", "metric_samples", "estimate_all"]


def metric_samples(truth: GroundTruth, members: Sequence[RunDraws]) -> dict[str, Sample]:
    """Metric -> its numbers in one run, in percent.

    Args:
        members: one for each seed.
    """
    metrics = [draws.metrics(truth.class_names) for draws in members]
    for metric, draws in zip(metrics, members, strict=True):
        with np.errstate(invalid="ignore"):
            metric |= {name: _mean(draws.lrp[i]) for i, name in enumerate(LRP_METRICS)}
    sizes = _sizes(truth)
    return {
        name: Sample(100 * np.stack([m[name] for m in metrics]), *sizes.get(name, sizes["AP"]))
        for name in metrics[0]
    }


def _mean(values: np.ndarray) -> np.ndarray:
    """(B,) over the classes that have a value."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _sizes(truth: GroundTruth) -> dict[str, tuple[int, int]]:
    """Metric -> objects that it is about, and images that have them."""

    def size(which: np.ndarray) -> tuple[int, int]:
        return int(which.sum()), len(np.unique(truth.image[which]))

    found = ~truth.ignored
    result = {"AP": size(found)}
    for name, (low, high) in zip(
        ("APs", "APm", "APl"), list(AREA_RANGES.values())[1:], strict=True
    ):
        result[name] = size(found & (truth.area >= low) & (truth.area <= high))
    for k, name in enumerate(truth.class_names):
        result[class_metric(name)] = size(found & (truth.category == k))
    return result


def estimate_all(samples: Mapping[str, Sample], confidence: float) -> dict[str, Estimate]:
    """Metric -> its value in a run with its interval."""
    return {name: estimate(sample, confidence) for name, sample in samples.items()}


def compare(
    samples: Mapping[str, Sample],
    first: Mapping[str, Sample],
    confidence: float,
    swapped: Mapping[str, np.ndarray] | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, Estimate]:
    """Metric -> difference to the first run, classes corrected for their number.

    Args:
        swapped: metric -> differences under permutation, in 0..1.
        class_names: (K,) whose metrics are corrected together.
    """
    result = {}
    for name, sample in samples.items():
        draws = None if swapped is None or name not in swapped else 100 * swapped[name]
        result[name] = difference(sample, first[name], confidence, draws)
    classes = [result[class_metric(name)] for name in class_names]
    for item, corrected in zip(classes, holm([item.p for item in classes]), strict=True):
        item.p_holm = corrected
    return result
