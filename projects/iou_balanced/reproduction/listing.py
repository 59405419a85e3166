"""What there is to reproduce, in lines for a terminal."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from .experiments import Experiment, all_experiments
from .records import Table, papers
from .runs import command, plan_runs
from .server_files import server_command


def list_records() -> Iterator[str]:
    """A line for each table, figure and experiment."""
    for paper in papers().values():
        yield f"{paper.title} ({paper.source})"
        for table in paper.tables:
            rows = len([row for row in table.rows if row.config])
            cited = len(table.rows) - rows
            count = f"{rows} rows" + (f" and {cited} cited" if cited else "")
            yield f"  {table.id:8} p. {table.page:<3}{table.caption} ({table.data}, {count})"
        for figure in paper.figures:
            kind = {"losses": "no training", "runs": f"runs of {figure.table}"}
            needs = kind.get(figure.drawn_from, "result files")
            yield f"  figure {figure.id:8} p. {figure.page:<3}{figure.caption} (from {needs})"

    yield "Our own experiments"
    for one in all_experiments().values():
        rows = ", ".join(row.id for row in one.rows)
        yield f"  {one.id:16} {one.title} ({one.data_title}): {rows}"


def show_experiment(one: Experiment, output_dir: Path) -> Iterator[str]:
    """The rows of an experiment, and the command of each.

    Args:
        one: the experiment.
        output_dir: of all runs.
    """
    yield f"{one.id}: {one.title}. On {one.data_title}; {one.data_source}."
    for row, training in zip(one.rows, one.runs(seeds=1), strict=True):
        yield f"\n{row.id}: {row.name}\n  {shlex.join(command(training, output_dir))}"


def show_table(table: Table, profile: str, output_dir: Path) -> Iterator[str]:
    """The rows of a table, the published numbers, and the commands of each.

    Args:
        table: of one of the papers.
        profile: "full" or "quick".
        output_dir: of all runs.
    """
    yield f"Table {table.number}, page {table.page}: {table.caption}. On {table.data}."
    for row in table.rows:
        numbers = zip(table.columns, row.published.values(), strict=True)
        yield f"\n{row.short_id}: {row.name}"
        yield "  published: " + ", ".join(f"{column} {value:.1f}" for column, value in numbers)
        if row.config is None:
            yield f"  cited: {row.cited}; not trained here"
            continue
        for run in plan_runs([row], profile=profile):
            yield f"  {shlex.join(command(run, output_dir))}"
        if row.test_dev and profile == "full":
            yield f"  {shlex.join(server_command(row, run, output_dir))}"
