"""Published numbers and our own, side by side."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from . import run_files as files
from .records import Row, Table
from .runs import run_of

ANALYSIS = ("analysis.json", "report/analysis.json")


@dataclass(frozen=True)
class Measured:
    """A number in percent: the mean over the seeds, and its interval where one is known."""

    value: float
    """In percent."""
    low: float | None = None
    """Where the interval begins, in percent."""
    high: float | None = None
    """Where the interval ends, in percent."""

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class RowReport:
    """One row of a table: what the paper has, and what the runs here have."""

    row: Row
    """With the published numbers."""
    state: str
    """ "cited", or as `run_files.state` has it."""
    records: Sequence[Mapping]
    """record.json of each finished seed."""
    ours: Mapping[str, Measured]
    """{name of our metric: value}, of the table's columns; {} where no run has finished."""


def report_rows(table: Table, *, output_dir: Path, profile: str = "full") -> list[RowReport]:
    """What the runs below `output_dir` have for each row of the table.

    Args:
        table: of one of the papers.
        output_dir: of all runs.
        profile: whose runs, "full" or "quick".

    Raises:
        RecordError: a run's record is damaged, or of another version.
    """
    return [_report_row(row, Path(output_dir), profile) for row in table.rows]


def _report_row(row: Row, output_dir: Path, profile: str) -> RowReport:
    if row.config is None:
        return RowReport(row, "cited", (), {})
    run = run_of(row, profile=profile)
    first = run.folder(output_dir)
    found = files.finished_seeds(first)
    if not found:
        others = sorted(first.parent.glob("seed_*"), key=lambda f: (len(f.name), f.name))
        return RowReport(row, files.state((others or [first])[0]), (), {})
    records = list(found.values())
    seeds = sorted(record["seed"] for record in records)
    ours = measure(records, list(row.published), read_intervals(interval_folder(found), seeds))
    return RowReport(row, "finished", records, ours)


def interval_folder(found: Mapping[Path, Mapping]) -> Path:
    """Where the analysis of these runs lies: of several seeds beside their folders.

    Args:
        found: as `run_files.finished_seeds` gives it, not empty.
    """
    first = next(iter(found))
    return first.parent if len(found) > 1 else first


def measure(
    records: Iterable[Mapping], metrics: Sequence[str], intervals: Mapping[str, tuple]
) -> dict[str, Measured]:
    """The mean of each metric over the seeds that have it.

    Args:
        records: record.json of each seed.
        metrics: their names, "AP" and so on.
        intervals: {metric: (low, high)}, as `read_intervals` gives them.
    """
    measured = {}
    for metric in metrics:
        values = [r["metrics"][metric] for r in records if r["metrics"].get(metric) is not None]
        if values:
            low, high = intervals.get(metric, (None, None))
            measured[metric] = Measured(statistics.fmean(values), low, high)
    return measured


def read_intervals(
    folder: Path, seeds: Sequence[int] | None = None
) -> dict[str, tuple[float, float]]:
    """{metric: (low, high)} in percent of the analysis in a folder; {} where there is none.

    An analysis has `runs.NAME.METRIC`, each {value, low, high}; that of one run is taken.

    Args:
        folder: of a run, or of the seeds of one.
        seeds: sorted; an analysis that says that it is of others is passed over.
    """
    for name in ANALYSIS:
        analysis = files.read_json(folder / name) or {}
        if seeds is not None and analysis.get("seeds", seeds) != seeds:
            continue
        runs = analysis.get("runs")
        if isinstance(runs, dict) and len(runs) == 1:
            (metrics,) = runs.values()
            return {
                metric: (x["low"], x["high"])
                for metric, x in metrics.items()
                if isinstance(x, dict) and None not in (x.get("low"), x.get("high"))
            }
    return {}


def format_report(table: Table, rows: Sequence[RowReport], *, profile: str = "full") -> str:
    """A table in Markdown: "published / ours" in each cell, and the state of each row.

    Args:
        table: of one of the papers.
        rows: its rows, as `report_rows` gives them.
        profile: of the runs; says what their numbers are worth.
    """
    header = ["row", *table.columns, "seeds", "state"]
    lines = []
    for x in rows:
        cells = [
            f"{published:.1f} / {x.ours.get(metric, '-')}"
            for metric, published in x.row.published.items()
        ]
        seeds = ", ".join(str(record["seed"]) for record in x.records) or "-"
        lines.append([x.row.name, *cells, seeds, x.state])
    title = f"Table {table.number} ({table.id}), page {table.page}: {table.caption}."
    notes = [f"Published on {table.data} / ours"]
    if profile == "quick":
        notes.append("by the quick profile: digits, a small model; no reproduction")
    elif table.data == "COCO test-dev":
        notes.append("on val2017; numbers on test-dev come from COCO's server")
    body = tabulate(lines, headers=header, tablefmt="pipe", disable_numparse=True)
    return f"{title}\n\n{', '.join(notes)}.\n\n{body}"


def as_record(table: Table, rows: Sequence[RowReport], *, profile: str) -> dict:
    """The report as a record of benchmarks/records, which tools/list_results.py shows.

    It has the rows that have finished.

    Args:
        table: of one of the papers.
        rows: its rows, as `report_rows` gives them.
        profile: of the runs, "full" or "quick".
    """
    columns = ["row"]
    for column in table.columns:
        columns += [f"{column} (paper)", column]
    lines = [
        [x.row.name, *(v for metric, p in x.row.published.items() for v in _pair(p, x, metric))]
        for x in rows
        if x.ours
    ]
    records = [record for x in rows for record in x.records]
    return {
        "name": f"{table.id.replace('/', '_')}_{profile}",
        "reported_in": _distinct((record["git"] or {}).get("commit") for record in records),
        "date": max((record["finished"] for record in records), default=None),
        "hardware": _distinct(record["hardware"]["cpu"] for record in records),
        "gpus": _distinct(", ".join(record["hardware"]["gpus"]) for record in records),
        "versions": records[0]["versions"] if records else {},
        "settings": f"tools/reproduce.py run {table.id} --profile {profile}; means over seeds "
        + (", ".join(sorted({str(record["seed"]) for record in records})) or "-"),
        "columns": columns,
        "rows": lines,
    }


def _pair(published: float, x: RowReport, metric: str) -> tuple:
    ours = x.ours.get(metric)
    return published, "-" if ours is None else ours.value


def _distinct(values: Iterable) -> str:
    return "; ".join(sorted({str(value) for value in values if value}))
