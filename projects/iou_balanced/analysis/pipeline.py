"""From ground truth and result files to all numbers of an analysis."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from iou_balanced.formats.class_names import list_names

from .changes import changes
from .data import Analysis
from .estimates import compare, estimate_all, metric_samples
from .ground_truth import GroundTruth, read_ground_truth
from .groups import group_of_classes, read_train_counts
from .localization_numbers import localization_numbers
from .matching import Matches, match
from .parallel import run_tasks
from .resampling import bootstrap, permute
from .results import read_detections
from .settings import Settings
from .tide_numbers import tide_numbers
from .verdict import verdict

__all__ = ["analyze"]


def analyze(
    ground_truth: str | os.PathLike | GroundTruth,
    runs: Mapping[str, object],
    *,
    split: str | None = None,
    difficult: str = "count",
    train_counts: str | os.PathLike | None = None,
    draws: int = 1000,
    permutations: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    processes: int = 1,
    progress: bool = False,
    same_weights: Sequence[str] = (),
) -> Analysis:
    """Compare the detections of runs, with intervals.

    Args:
        ground_truth: COCO JSON, a folder in VOC format, or what `read_ground_truth` returned.
        runs: name -> a COCO result file or a list of its objects; or a list of these, one for each
            seed. Differences are to the first run.
        split: of a folder in VOC format, see `read_ground_truth`.
        difficult: of a folder in VOC format, see `read_ground_truth`.
        train_counts: file of the training instances of each class, see `read_train_counts`; with
            it there are AP_tail and AP_head, where the counts differ enough.
        draws: bootstrap draws of the images, the same for all runs.
        permutations: swaps of two runs image by image; 0 leaves them out.
        seed: of both. The same seed gives the same numbers.
        confidence: of the intervals.
        processes: for more than 1, new processes are started: a script then needs its
            `if __name__ == "__main__":`.
        progress: show a bar on stderr.
        same_weights: runs that are no trainings of their own: each of their files is of the weights
            of the first run's file in its place, evaluated in another way. Their differences are
            taken seed by seed.

    Raises:
        OSError: a file cannot be read.
        ValueError: no run; bad files, see `read_ground_truth` and `read_detections`; an argument
            that makes no sense.
    """
    members = _members(runs)
    same_weights = _check_same_weights(same_weights, members)
    settings = Settings(draws, permutations, seed, confidence, processes, progress, same_weights)
    truth = ground_truth
    if not isinstance(truth, GroundTruth):
        truth = read_ground_truth(truth, split=split, difficult=difficult)
    groups, of_counts = {}, []
    if train_counts is not None:
        counts = read_train_counts(train_counts, truth.class_names, warn=of_counts.append)
        groups = group_of_classes(counts, truth.class_names)
    matched = iter(_match_all(truth, members, settings))
    found = {name: [next(matched) for _ in seeds] for name, seeds in members.items()}
    matches = {name: [item.matches for item in items] for name, items in found.items()}
    numbers = _analyze(truth, matches, settings, groups)
    classes = _classes(truth)
    num_seeds = {name: len(seeds) for name, seeds in members.items()}
    return Analysis(
        settings=settings.to_dict()
        | {
            "ground_truth": truth.path,
            "files": {name: [_name_of(x) for x in seeds] for name, seeds in members.items()},
            "num_seeds": num_seeds,
            "num_images": truth.num_images,
            "num_objects": int((~truth.ignored).sum()),
            "num_classes": truth.num_classes,
        },
        classes=classes,
        groups=groups,
        warnings=[
            *truth.notes,
            *of_counts,
            *(w for items in found.values() for x in items for w in x.warnings),
        ],
        verdict=verdict(
            numbers["runs"],
            numbers["differences"],
            num_seeds,
            truth.class_names,
            confidence,
            numbers["localization"],
            numbers["errors"],
        ),
        **numbers,
    )


def _name_of(results) -> str | None:
    return os.fspath(results) if isinstance(results, (str, os.PathLike)) else None


class _Matched(NamedTuple):
    matches: Matches
    warnings: list[str]


def _members(runs: Mapping[str, object]) -> dict[str, list]:
    """Run -> its result files, one for each seed.

    Raises:
        ValueError: no run, a run without a name, or a file that is there twice.
    """
    if not runs:
        raise ValueError("Expected argument `runs` to have at least one run, but got none")
    members = {}
    for name, results in runs.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"Expected a run's name to be text, but got {name!r}")
        seeds = [results]
        several = isinstance(results, Sequence) and not isinstance(results, (str, os.PathLike))
        if several and len(results) and not isinstance(results[0], Mapping):
            seeds = list(results)
        files = [os.fspath(x) for x in seeds if isinstance(x, (str, os.PathLike))]
        if len(set(files)) < len(files):
            twice = sorted({file for file in files if files.count(file) > 1})
            raise ValueError(
                f"run {name!r} has {list_names(twice)} more than once: seeds are "
                "different trainings"
            )
        members[name] = seeds
    return members


def _check_same_weights(names: Sequence[str], members: Mapping[str, list]) -> tuple[str, ...]:
    """Return the names.

    Raises:
        ValueError: one is not of a run after the first, or its seeds are not as many.
    """
    first, *others = members
    for name in names:
        if name not in others:
            raise ValueError(
                f"Expected argument `same_weights` to name runs after the first, {others}, but "
                f"got {name!r}"
            )
        if len(members[name]) != len(members[first]):
            raise ValueError(
                f"run {name!r} has {len(members[name])} files, and {first!r}, whose weights they "
                f"are of, has {len(members[first])}"
            )
    return tuple(names)


def _match_all(truth: GroundTruth, members: Mapping[str, list], settings: Settings) -> list:
    """In the order of the runs and their seeds."""
    tasks = [results for seeds in members.values() for results in seeds]
    return list(
        run_tasks(
            _read_and_match,
            tasks,
            make_shared=partial(_same, truth),
            processes=settings.processes,
            label="reading and matching",
            progress=settings.progress,
        )
    )


def _same(value):
    return value


def _read_and_match(results, truth: GroundTruth) -> _Matched:
    warnings: list[str] = []
    detections = read_detections(results, truth, warn=warnings.append)
    return _Matched(match(truth, detections), warnings)


def _analyze(
    truth: GroundTruth,
    runs: Mapping[str, list[Matches]],
    settings: Settings,
    groups: dict,
) -> dict:
    options = {
        "seed": settings.seed,
        "processes": settings.processes,
        "progress": settings.progress,
    }
    members = [matches for seeds in runs.values() for matches in seeds]
    draws = iter(bootstrap(truth, members, draws=settings.draws, **options))
    tail_and_head = {f"AP_{g}": groups[g] for g in ("tail", "head") if groups.get(g)}
    samples = {
        name: metric_samples(truth, [next(draws) for _ in seeds], tail_and_head)
        for name, seeds in runs.items()
    }
    first, *others = runs
    differences = {}
    for name in others:
        swapped = None
        if settings.permutations and len(runs[first]) == len(runs[name]) == 1:
            pair = (runs[first][0], runs[name][0])
            swapped = permute(truth, *pair, draws=settings.permutations, **options)
        differences[name] = compare(
            samples[name],
            samples[first],
            settings.confidence,
            swapped,
            truth.class_names,
            same_weights=name in settings.same_weights,
        )
    options |= {"draws": settings.draws, "confidence": settings.confidence}
    options |= {"same_weights": settings.same_weights}
    return {
        "runs": {n: _plain(estimate_all(s, settings.confidence)) for n, s in samples.items()},
        "differences": {name: _plain(found) for name, found in differences.items()},
        "localization": localization_numbers(truth, runs, **options),
        "errors": tide_numbers(truth, runs, **options),
        "changes": changes(truth, runs),
    }


def _plain(estimates: Mapping) -> dict[str, dict]:
    return {name: item.to_dict() for name, item in estimates.items()}


def _classes(truth: GroundTruth) -> list[dict]:
    found = ~truth.ignored
    rows = []
    for k, name in enumerate(truth.class_names):
        images = truth.image[found & (truth.category == k)]
        rows.append(
            {"name": name, "num_objects": len(images), "num_images": len(set(images.tolist()))}
        )
    return rows
