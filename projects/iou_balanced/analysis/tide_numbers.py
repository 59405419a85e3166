"""AP50 that mending each kind of error alone would give, for each run, with intervals.

Letters: N images, K classes, B draws.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np

from .ground_truth import GroundTruth
from .influence import ap_influence
from .intervals import Sample, difference, estimate
from .matching import Matches
from .metric_names import mean_of_defined
from .parallel import run_tasks
from .resampling import multiplicities
from .tide import KINDS, find_errors, mended
from .weighted_ap import weighted_ap

__all__ = ["tide_numbers"]


def tide_numbers(
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
    """Gains in percentage points of AP50, and counts, for each run and difference; plain data.

    The spread is that of the gain's derivatives by each image (`ap_influence`), under the same
    draws as all else.
    """
    tasks = [matches for members in runs.values() for matches in members]
    results = run_tasks(
        _gains,
        tasks,
        make_shared=partial(_shared, truth, draws, seed),
        processes=processes,
        label="kinds of errors",
        progress=progress,
    )
    objects = [
        truth.image[~truth.ignored & (truth.category == k)] for k in range(truth.num_classes)
    ]
    images = [len(np.unique(x)) for x in objects]
    samples, counts = {}, {}
    for name, members in runs.items():
        found = [next(results) for _ in members]
        counts[name] = {
            kind: float(np.mean([numbers[kind] for _, numbers in found])) for kind in KINDS
        }
        samples[name] = {
            kind: Sample(
                np.stack([mean_of_defined(gains[i]) for gains, _ in found]),
                images,
                [gains[i] for gains, _ in found],
            )
            for i, kind in enumerate(KINDS)
        }
    first, *others = samples
    return {
        "kinds": list(KINDS),
        "runs": {
            name: {
                kind: {**estimate(x, confidence).to_dict(), "count": counts[name][kind]}
                for kind, x in kinds.items()
            }
            for name, kinds in samples.items()
        },
        "differences": {
            name: {
                kind: difference(
                    x, samples[first][kind], confidence, same_weights=name in same_weights
                ).to_dict()
                for kind, x in samples[name].items()
            }
            for name in others
        },
    }


def _shared(truth: GroundTruth, draws: int, seed: int) -> tuple[GroundTruth, np.ndarray]:
    return truth, multiplicities(truth.num_images, draws, seed).astype(np.float64) - 1


def _gains(matches: Matches, shared: tuple) -> tuple[np.ndarray, dict[str, int]]:
    """((6, K, 1 + B) gains in percentage points, counts) of a result file."""
    truth, weights = shared
    errors = find_errors(truth, matches)
    ones = list(np.ones((truth.num_images, 1)))

    def numbers(kind: str | None) -> tuple[np.ndarray, np.ndarray]:
        tables = mended(truth, matches, errors, kind)
        ap = np.array([weighted_ap(table, ones)[0, 0] for table in tables])
        return ap, np.stack([ap_influence(table, 0, truth.num_images) for table in tables])

    plain, change = numbers(None)
    gains = []
    for kind in KINDS:
        ap, mended_change = numbers(kind)
        if kind == "missed":
            ap = np.where(np.isnan(ap) & ~np.isnan(plain), plain, ap)  # all objects were missed
        gains.append((ap - plain)[:, None] + (mended_change - change) @ weights)
    return 100 * np.stack(gains), errors.counts()
