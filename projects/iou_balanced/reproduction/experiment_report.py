"""What the runs of an experiment show: numbers of each row, and differences to the first."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iou_balanced.analysis import Analysis, analyze
from iou_balanced.analysis.run_folder import read_run_folder

from . import run_files as files
from .experiments import Experiment, Variation
from .numbers import format_difference, rounded
from .parse import RecordError
from .runs import WEIGHTS, Run

METRICS = {
    "iou": ("AP", "AP50", "AP75", "AP80", "AP90"),
    "bofl": ("AP", "AP50", "AP75", "AP_tail", "AP_head"),
}
MOST_SEEDS = 100
_FOLDER = "train.output_dir="
_COSTS = {"CPU time": "cpu_seconds", "memory": "peak_memory_mib"}


@dataclass(frozen=True)
class Finished:
    """One row and the runs of it that have finished."""

    row: Variation
    """What was trained."""
    folders: tuple[Path, ...]
    """Of the runs, by seed."""
    records: tuple[Mapping, ...]
    """record.json of each."""


def finished_rows(experiment: Experiment, output_dir: Path) -> list[Finished]:
    """What has finished of each row, in the experiment's order; none is left out.

    Args:
        experiment: of `all_experiments`.
        output_dir: of all runs.

    Raises:
        RecordError: a record is damaged, of another version, or of a run with other overrides.
    """
    found = []
    for row in experiment.rows:
        pairs = []
        for run in experiment.runs(seeds=MOST_SEEDS, rows=[row.id]):
            folder = run.folder(output_dir)
            record = files.read_record(folder, files.NEEDED | files.CIRCUMSTANCES)
            if record is None:
                continue
            _check_overrides(record, run, folder)
            pairs.append((folder, record))
        found.append(
            Finished(row, tuple(f for f, _ in pairs), tuple(record for _, record in pairs))
        )
    return found


def _check_overrides(record: Mapping, run: Run, folder: Path) -> None:
    """A folder's name has the row's overrides only: those of the data set may be others by now.

    Where the weights of another run lie is not compared.

    Raises:
        RecordError: they are, or the row's.
    """
    overrides = run.all_overrides
    had = record.get("overrides", overrides)
    if run.start is not None:
        had = [x for x in had if not x.startswith(WEIGHTS)]
    if list(had) != list(overrides):
        differ = [x for x in had if x not in overrides] + [x for x in overrides if x not in had]
        raise RecordError(
            f"{folder} holds a run of other overrides ({', '.join(differ) or 'in another order'}): "
            "move it away, or give another output folder"
        )


def analyze_experiment(experiment: Experiment, output_dir: Path, **options) -> Analysis:
    """The paired comparison of all rows that have finished, the baseline first.

    Args:
        experiment: of `all_experiments`.
        output_dir: of all runs.
        options: of `iou_balanced.analysis.analyze`.

    Raises:
        RecordError: no run of the baseline has finished.
        OSError: a run's files are not there.
        ValueError: they are not what they should be.
    """
    rows = [x for x in finished_rows(experiment, output_dir) if x.folders]
    if not rows or rows[0].row != experiment.rows[0]:
        raise RecordError(f"{experiment.id}: no run of {experiment.rows[0].id!r} has finished")
    inputs = {x.row.name: [read_run_folder(folder) for folder in x.folders] for x in rows}
    first = inputs[rows[0].row.name][0]
    seeds = {x.row.name: [record["seed"] for record in x.records] for x in rows}
    same = [
        x.row.name
        for x in rows
        if x.row.evaluates == rows[0].row.id and seeds[x.row.name] == seeds[rows[0].row.name]
    ]
    return analyze(
        first.read_ground_truth(),
        {name: [str(one.detections) for one in members] for name, members in inputs.items()},
        train_counts=first.class_counts,
        same_weights=same,
        **options,
    )


def experiment_record(experiment: Experiment, rows: Sequence[Finished], analysis: Analysis) -> dict:
    """What benchmarks/records holds of it: a line for each row, and how it was measured.

    A cell of the first row is a number in percent, the mean over its seeds; of the others, the
    difference to it with its interval. The cost of a training, CPU time and peak memory of its
    process, is a multiple of the first row's with the same seeds, where the runs have it.

    Args:
        experiment: of `all_experiments`.
        rows: as `finished_rows` gives them.
        analysis: of them.
    """
    metrics = [m for m in METRICS[experiment.paper] if m in analysis.runs[analysis.first]]
    costs = [(name, key) for name, key in _COSTS.items() if _costs(rows[0], key)]
    lines = [
        [
            x.row.name,
            *_seeds(x),
            *(_cell(x, metric, analysis) for metric in metrics),
            *(_ratio(x, rows[0], key) for _, key in costs),
        ]
        for x in rows
    ]
    done = [record for x in rows for record in x.records]
    return {
        "name": experiment.id.replace("/", "_"),
        "reported_in": sorted(set(map(_commit, done))),
        "date": max(record["finished"] for record in done)[:10],
        "hardware": sorted({record["hardware"]["cpu"] for record in done}),
        "versions": _versions(done),
        "settings": " ".join(experiment.data_overrides),
        "draws": analysis.settings["draws"],
        "confidence": analysis.settings["confidence"],
        "verdict": analysis.verdict,
        "differences": {
            x.row.id: {
                metric: {k: rounded(found[k], 3) for k in ("value", "low", "high")}
                for metric, found in analysis.differences[x.row.name].items()
                if metric in metrics
            }
            for x in rows
            if x.row.name in analysis.differences
        },
        "runs": [
            {
                "row": x.row.id,
                "seed": record["seed"],
                "metrics": record["metrics"],
                "seconds": record["seconds"],
                "cpu_seconds": record.get("cpu_seconds"),
                "peak_memory_mib": record.get("peak_memory_mib"),
                # without folders, which are of one machine
                "command": [x for x in record["command"] if not x.startswith((_FOLDER, WEIGHTS))],
            }
            for x in rows
            for record in x.records
        ],
        "columns": ["losses", "seeds", *metrics, *(name for name, _ in costs)],
        "rows": lines,
    }


def _commit(record: Mapping) -> str:
    """As `git describe --dirty` has it."""
    git = record.get("git")  # None without a clone
    return f"{git['commit'][:7]}{'-dirty' if git.get('modified') else ''}" if git else "no clone"


def _versions(done: Sequence[Mapping]) -> dict[str, str | None]:
    """{package: version}, of several runs all that there are, in their order."""
    found: dict[str, list] = {}
    for record in done:
        for package, version in record["versions"].items():
            seen = found.setdefault(package, [])
            seen += [] if version in seen else [version]
    return {k: v[0] if len(v) == 1 else ", ".join(map(str, v)) for k, v in found.items()}


def _seeds(x: Finished) -> list[str]:
    return [", ".join(str(record["seed"]) for record in x.records) or "-"]


def _cell(x: Finished, metric: str, analysis: Analysis) -> str:
    if not x.records:
        return "not run"
    if x.row.name == analysis.first:
        return f"{analysis.runs[analysis.first][metric]['value']:.1f}"
    return format_difference(analysis.differences[x.row.name][metric])


def _costs(x: Finished, key: str) -> dict[int, float]:
    """{seed: value} of trainings that have it; one that was resumed has its last part's only."""
    if x.row.evaluates is not None:
        return {}
    known = (record for record in x.records if record.get(key) and not record.get("resumed"))
    return {record["seed"]: record[key] for record in known}


def _ratio(x: Finished, first: Finished, key: str) -> str:
    own, others = _costs(x, key), _costs(first, key)
    ratios = [own[seed] / others[seed] for seed in own.keys() & others.keys()]
    return f"{statistics.fmean(ratios):.2f}" if ratios else "-"
