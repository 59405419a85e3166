"""Values, intervals and differences of all metrics, from the draws of each result file.

Letters: B draws, S seeds, K classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .ground_truth import GroundTruth
from .intervals import Estimate, Sample, difference, estimate, holm
from .lrp import LRP_METRICS
from .metric_names import (
    AREA_RANGES,
    SIZE_METRICS,
    THRESHOLD_METRICS,
    class_metric,
    mean_of_defined,
)
from .resampling import RunDraws

__all__ = ["compare", "estimate_all", "metric_samples"]


def metric_samples(
    truth: GroundTruth,
    members: Sequence[RunDraws],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Sample]:
    """Metric -> its numbers in one run, in percent.

    Args:
        truth: that the runs were matched with.
        members: one for each seed.
        groups: metric -> the classes whose AP it is the mean of.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for draws in members:
        for name, classes in _parts(draws).items():
            parts.setdefault(name, []).append(100 * classes)
    images = _images_by_class(truth)
    for name, members_of_group in (groups or {}).items():
        which = [truth.class_names.index(member) for member in members_of_group]
        parts[name] = [x[which] for x in parts["AP"]]
        images[name] = images["AP"][which]
    samples = {}
    for name, classes in parts.items():
        draws = np.stack([mean_of_defined(x) for x in classes])
        samples[name] = Sample(draws, images.get(name, images["AP"]), classes, (0.0, 100.0))
        if name == "APl":
            for k, class_name in enumerate(truth.class_names):
                of_class = np.stack([x[k] for x in parts["AP"]])
                samples[class_metric(class_name)] = Sample(
                    of_class, images["AP"][k : k + 1], None, (0.0, 100.0)
                )
    return samples


def _parts(draws: RunDraws) -> dict[str, np.ndarray]:
    """Metric -> (K, 1 + B) of the classes that it is the mean of."""
    parts = {"AP": draws.ap.mean(axis=0)}
    parts |= {name: draws.ap[t] for t, name in enumerate(THRESHOLD_METRICS)}
    parts |= {name: draws.sizes[i] for i, name in enumerate(SIZE_METRICS)}
    return parts | {name: draws.lrp[i] for i, name in enumerate(LRP_METRICS)}


def _images_by_class(truth: GroundTruth) -> dict[str, np.ndarray]:
    """Metric -> (K,) images with objects of each class that it is about."""
    result = {}
    ranges = list(AREA_RANGES.values())
    for name, (low, high) in zip(("AP", *SIZE_METRICS), ranges, strict=True):
        which = ~truth.ignored & (truth.area >= low) & (truth.area <= high)
        pairs = np.unique(np.stack([truth.category[which], truth.image[which]]), axis=1)
        result[name] = np.bincount(pairs[0], minlength=truth.num_classes)
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
    *,
    same_weights: bool = False,
) -> dict[str, Estimate]:
    """Metric -> difference to the first run, classes corrected for their number.

    Args:
        samples: metric -> numbers of the run.
        first: metric -> numbers of the first run.
        confidence: of the intervals, such as 0.95.
        swapped: metric -> differences under permutation, in 0..1.
        class_names: (K,) whose metrics are corrected together.
        same_weights: see `difference`.
    """
    result = {}
    for name, sample in samples.items():
        draws = None if swapped is None or name not in swapped else 100 * swapped[name]
        result[name] = difference(sample, first[name], confidence, draws, same_weights=same_weights)
    classes = [result[class_metric(name)] for name in class_names]
    for item, corrected in zip(classes, holm([item.p for item in classes]), strict=True):
        item.p_holm = corrected
    return result
