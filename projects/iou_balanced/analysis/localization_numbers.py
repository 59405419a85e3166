"""How well scores tell IoUs, for each run and population, with intervals.

Letters: K classes, W weightings, S seeds.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np

from .ground_truth import GroundTruth
from .intervals import Sample, difference, estimate
from .localization import IOU_EDGES, IOU_THRESHOLDS
from .matching import Matches
from .parallel import run_tasks
from .populations import POPULATIONS, SCORE_EDGES, SHOWN, WHY_SHOWN, Population, population
from .resampling import multiplicities

__all__ = ["localization_numbers"]

_NUMBERS = ("rank_correlation", "mean_iou", "mean_score", "calibration_error")
_LISTS = ("mean_score_by_iou", "share_above")
_BINS = ("calibration_count", "calibration_score", "calibration_iou")


def localization_numbers(
    truth: GroundTruth,
    runs: Mapping[str, Sequence[Matches]],
    *,
    draws: int,
    seed: int,
    confidence: float,
    processes: int = 1,
    progress: bool = False,
    same_weights: Collection[str] = (),
) -> dict:
    """All numbers of `populations`, for each run and each difference to the first; plain data.

    Scores, IoUs and shares are in 0..1, as they are everywhere else but in AP.
    """
    tasks = [
        (population(kind, truth, matches), truth.num_classes)
        for members in runs.values()
        for matches in members
        for kind in POPULATIONS
    ]
    results = run_tasks(
        _numbers,
        tasks,
        make_shared=partial(multiplicities, truth.num_images, draws, seed),
        processes=processes,
        label="scores and IoUs",
        progress=progress,
    )
    samples = {}
    for name, members in runs.items():
        by_kind = [{kind: next(results) for kind in POPULATIONS} for _ in members]
        samples[name] = {
            kind: _samples([numbers[kind] for numbers in by_kind]) for kind in POPULATIONS
        }
    first, *others = samples
    return {
        "shown": SHOWN,
        "why": WHY_SHOWN,
        "populations": dict(POPULATIONS),
        "iou_edges": list(IOU_EDGES),
        "iou_thresholds": list(IOU_THRESHOLDS),
        "score_edges": list(SCORE_EDGES),
        "runs": {
            name: {
                kind: {
                    **_estimates(found, truth, partial(_estimate, confidence)),
                    **_counts(found),
                }
                for kind, found in kinds.items()
            }
            for name, kinds in samples.items()
        },
        "differences": {
            name: {
                kind: _estimates(
                    samples[name][kind],
                    truth,
                    partial(_difference, confidence, name in same_weights),
                    samples[first][kind],
                )
                for kind in POPULATIONS
            }
            for name in others
        },
    }


def _numbers(task: tuple[Population, int], weights: np.ndarray) -> dict:
    found, num_classes = task
    weights = weights.astype(np.float64)
    classes = [found.of_class(k) for k in range(num_classes)]
    return {
        **found.sums(weights),
        "rank_correlation": found.rank_correlation(weights),
        "by_class": [x.rank_correlation(weights) for x in classes],
        "sizes": [(len(x.score), len(np.unique(x.image))) for x in (found, *classes)],
    }


def _samples(members: Sequence[dict]) -> dict:
    """Name -> its numbers over the seeds."""
    sizes = [np.array(m["sizes"]).astype(int) for m in members]
    size = np.mean(sizes, axis=0).astype(int).tolist()

    def sample(arrays, which: int = 0, lowest: float = 0.0) -> Sample:
        return Sample(np.stack(arrays), [size[which][1]], limits=(lowest, 1.0))

    result: dict = {
        name: sample([m[name] for m in members], lowest=-1.0 if "correlation" in name else 0.0)
        for name in _NUMBERS
    }
    for name in _LISTS:
        bins = range(len(members[0][name]))
        result[name] = [sample([m[name][i] for m in members]) for i in bins]
    result["by_class"] = [
        sample([m["by_class"][k] for m in members], 1 + k, lowest=-1.0)
        for k in range(len(members[0]["by_class"]))
    ]
    for name in _BINS:
        result[name] = np.mean([m[name][:, 0] for m in members], axis=0).tolist()
    result["sizes"] = size
    return result


def _estimate(confidence: float, sample: Sample, first: None) -> dict:
    return estimate(sample, confidence).to_dict()


def _difference(confidence: float, same_weights: bool, sample: Sample, first: Sample) -> dict:
    return difference(sample, first, confidence, same_weights=same_weights).to_dict()


def _estimates(samples: dict, truth: GroundTruth, make, first: dict | None = None) -> dict:
    def other(name, i=None):
        if first is None:
            return None
        return first[name] if i is None else first[name][i]

    result: dict = {name: make(samples[name], other(name)) for name in _NUMBERS}
    for name in _LISTS:
        result[name] = [make(x, other(name, i)) for i, x in enumerate(samples[name])]
    result["rank_correlation_by_class"] = {
        class_name: make(samples["by_class"][k], other("by_class", k))
        for k, class_name in enumerate(truth.class_names)
    }
    return result


def _counts(samples: dict) -> dict:
    bins = zip(*(samples[name] for name in _BINS), strict=True)
    return {
        "num_detections": samples["sizes"][0][0],
        "calibration": [
            {"count": count, "mean_score": score, "mean_iou": iou} for count, score, iou in bins
        ],
    }
