"""Intervals of the rows of a table, where `report` looks for them: an analysis.json a row."""

from collections.abc import Callable, Iterable
from pathlib import Path

from iou_balanced.analysis import analyze
from iou_balanced.analysis.run_folder import read_run_folder

from . import run_files as files
from .records import Row
from .report import ANALYSIS, interval_folder
from .runs import run_of


def write_intervals(
    rows: Iterable[Row],
    *,
    output_dir: Path,
    profile: str,
    say: Callable[[str], None] = print,
    **options,
) -> None:
    """Analyze the finished runs of each row, all seeds together; what is there stays.

    Args:
        rows: of a table; those without a finished run are passed over.
        output_dir: of all runs.
        profile: whose runs, "full" or "quick".
        say: gets a line for each row that is analyzed, or cannot be.
        options: of `iou_balanced.analysis.analyze`.

    Raises:
        RecordError: a run's record is damaged, or of another version.
    """
    for row in rows:
        if row.config is None:
            continue
        run = run_of(row, profile=profile)
        found = files.finished_seeds(run.folder(output_dir))
        if not found:
            continue
        seeds = sorted(record["seed"] for record in found.values())
        path = interval_folder(found) / ANALYSIS[0]
        if (files.read_json(path) or {}).get("seeds") == seeds:
            continue
        say(f"{row.id}: intervals of seeds {', '.join(map(str, seeds))}")
        try:
            inputs = [read_run_folder(folder) for folder in found]
            analysis = analyze(
                inputs[0].read_ground_truth(),
                {row.short_id: [str(one.detections) for one in inputs]},
                train_counts=inputs[0].class_counts,
                **options,
            )
        except (ValueError, OSError) as e:
            say(f"{row.id}: no intervals: {e}")
            continue
        files.write_json(
            path, {"seeds": seeds, "settings": analysis.settings, "runs": analysis.runs}
        )
