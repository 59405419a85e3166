"""How often each image counts: bootstrap draws, and runs swapped image by image.

Letters: N images, W weightings, B draws.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from .class_statistics import ClassStatistics, class_statistics
from .class_tables import ClassTable, class_table, pooled
from .ground_truth import GroundTruth
from .matching import Matches
from .metric_names import AREA_RANGES, summarize
from .parallel import run_tasks

__all__ = ["RunDraws", "bootstrap", "multiplicities", "permute", "swaps"]


class RunDraws(NamedTuple):
    """The numbers of one result file: of the images as they are, then of each draw."""

    ap: np.ndarray
    """(T, K, 1 + B) by threshold and class, in 0..1, NaN where a class has no object."""
    sizes: np.ndarray
    """(3, K, 1 + B) of small, medium and large objects."""
    lrp: np.ndarray
    """(4, K, 1 + B) see `iou_balanced.analysis.lrp`."""

    def metrics(self, class_names: Sequence[str]) -> dict[str, np.ndarray]:
        """Metric -> (1 + B,), see `summarize`."""
        return summarize(self.ap, self.sizes, class_names)


def multiplicities(num_images: int, draws: int, seed: int) -> np.ndarray:
    """(N, 1 + B) uint16: each image once, then draws of N images with replacement."""
    rng = np.random.default_rng(seed)
    result = np.ones((num_images, 1 + draws), dtype=np.uint16)
    for i in range(1, 1 + draws):
        result[:, i] = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
    return result


def swaps(num_images: int, draws: int, seed: int) -> np.ndarray:
    """(N, B) uint8: 1 where the two runs of an image are swapped."""
    rng = np.random.default_rng([seed, 1])
    return rng.integers(2, size=(num_images, draws), dtype=np.uint8)


def bootstrap(
    truth: GroundTruth,
    members: Sequence[Matches],
    *,
    draws: int,
    seed: int,
    processes: int = 1,
    progress: bool = False,
) -> list[RunDraws]:
    """All numbers of all result files under the same draws.

    Args:
        truth: of N images and K classes.
        members: of each result file.
        draws: how many.
        seed: of the draws.
        processes: for more than 1, new processes are started.
        progress: show a bar on stderr.
    """
    areas = range(len(AREA_RANGES))
    tasks = [
        [class_table(matches, truth, k, a) for a in areas]
        for matches in members
        for k in range(truth.num_classes)
    ]
    make_shared = partial(multiplicities, truth.num_images, draws, seed)
    results = _in_order(
        class_statistics, tasks, make_shared, processes, "bootstrap draws", progress
    )
    size = truth.num_classes
    return [_stack(results[m * size : (m + 1) * size]) for m in range(len(members))]


def permute(
    truth: GroundTruth,
    first: Matches,
    second: Matches,
    *,
    draws: int,
    seed: int,
    processes: int = 1,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Differences of all metrics, second less first, with the runs swapped in half of the images.

    Returns:
        metric -> (B,).
    """
    num = truth.num_images
    tasks = [
        [
            pooled([class_table(m, truth, k, a) for m in (first, second)], num)
            for a in range(len(AREA_RANGES))
        ]
        for k in range(truth.num_classes)
    ]
    make_shared = partial(swaps, num, draws, seed)
    results = _in_order(_swapped, tasks, make_shared, processes, "permutations", progress)
    mixed = (_stack([pair[i] for pair in results]) for i in range(2))
    one, other = (draws_.metrics(truth.class_names) for draws_ in mixed)
    return {metric: other[metric] - one[metric] for metric in one}


def _swapped(
    areas: Sequence[ClassTable], swap: np.ndarray
) -> tuple[ClassStatistics, ClassStatistics]:
    """Of the first run with the second's detections where they are swapped; the other way round."""
    kept = 1 - swap
    return (
        class_statistics(areas, np.concatenate([kept, swap])),
        class_statistics(areas, np.concatenate([swap, kept])),
    )


def _in_order(function, tasks, make_shared, processes, label, progress) -> list:
    """The results in the order of the tasks, the longest of which are run first."""
    sizes = [sum(len(t.score) + len(t.other_image) / 9 for t in task) for task in tasks]
    order = np.argsort(sizes)[::-1].tolist()
    results: list = [None] * len(tasks)
    runs = run_tasks(
        function,
        [tasks[i] for i in order],
        make_shared=make_shared,
        processes=processes,
        label=label,
        progress=progress,
    )
    for i, result in zip(order, runs, strict=True):
        results[i] = result
    return results


def _stack(classes: Sequence[ClassStatistics]) -> RunDraws:
    fields = (np.stack(column, axis=1) for column in zip(*classes, strict=True))
    return RunDraws(*fields)
