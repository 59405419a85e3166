"""Our own trainings that test the papers' claims, as data: a file each in experiments/.

    data        name -> title, source, root (a folder below datasets/), overrides and own: what the
                config gets for this data set
    rows        lists of rows that several experiments share (YAML anchors); read by nobody else
    experiments id, data, title, paper (iou or bofl), rows, planned_seeds
    claims      see `claims`

A row is id, name, config and overrides; the first of an experiment is its baseline. With evaluates,
the id of another row of the same config, nothing is trained: that row's weights are evaluated with
these overrides.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .parse import RecordError, check_keys, read_yaml
from .runs import Run

FOLDER = Path(__file__).parent / "experiments"


@dataclass(frozen=True)
class Variation:
    """One row of an experiment: what is trained."""

    id: str
    """In commands."""
    name: str
    """In tables."""
    config: str
    """A file of configs/, without .py."""
    overrides: tuple[str, ...]
    """Of the config, "key=value"."""
    evaluates: str | None = None
    """The row whose weights are evaluated; None: this one is trained."""


@dataclass(frozen=True)
class Experiment:
    """Trainings of which the first is the baseline."""

    id: str
    """ "photos/fod_iou"."""
    title: str
    """What is compared, in short."""
    paper: str
    """Whose claim it tests: "iou" or "bofl"."""
    data: str
    """Name of the data set; the profile of its runs."""
    data_title: str
    """What the data set is."""
    data_source: str
    """Where it is from."""
    data_overrides: tuple[str, ...]
    """What every config of it gets."""
    planned_seeds: int
    """As many as were planned before the first result."""
    rows: tuple[Variation, ...]
    """The first is the baseline."""

    def runs(self, *, seeds: int, rows: Sequence[str] | None = None) -> list[Run]:
        """The trainings, all rows of a seed before those of the next.

        Args:
            seeds: number of them, from 0.
            rows: their ids; all by default.

        Raises:
            RecordError: there is no such row, or `seeds` is below 1.
        """
        if seeds < 1:
            raise RecordError(f"{seeds} seeds: give a number from 1 on")
        chosen = self.rows if rows is None else [self.row(name) for name in rows]
        profile, added = f"photos_{self.data}", self.data_overrides
        return [
            Run(
                row.config,
                row.overrides,
                profile,
                added,
                seed,
                (f"{self.id}/{row.id}",),
                evaluates=row.evaluates and self.row(row.evaluates).overrides,
            )
            for seed in range(seeds)
            for row in chosen
        ]

    def row(self, name: str) -> Variation:
        """The row of this id.

        Args:
            name: its id, such as "both".

        Raises:
            RecordError: there is none; names those that there are.
        """
        for row in self.rows:
            if name in (row.id, f"{self.id}/{row.id}"):
                return row
        names = ", ".join(row.id for row in self.rows)
        raise RecordError(f"{self.id} has no row {name!r}; it has {names}")


@functools.cache
def all_experiments() -> dict[str, Experiment]:
    """{"photos/fod_iou": ...}, those that come with the package."""
    files = sorted(FOLDER.glob("*.yaml"))
    found = [one for file in files for one in load_experiments(file)]
    refuse_shared_folders(found)
    return {one.id: one for one in found}


def refuse_shared_folders(experiments: Iterable[Experiment]) -> None:
    """See that two runs that would lie in one folder are the same run.

    Args:
        experiments: of all files.

    Raises:
        RecordError: they are not; names both and the folder.
    """
    known: dict[str, Run] = {}
    for run in (run for one in experiments for run in one.runs(seeds=1)):
        other = known.setdefault(run.name, run)
        if other.all_overrides != run.all_overrides:
            raise RecordError(
                f"{other.rows[0]} and {run.rows[0]} would share the folder {run.name}, but have "
                "other overrides"
            )


def find_experiment(name: str) -> Experiment:
    """The experiment "photos/fod_iou".

    Args:
        name: its id.

    Raises:
        RecordError: there is none; names those that there are.
    """
    if name not in all_experiments():
        raise RecordError(
            f"there is no experiment {name!r}; there are {', '.join(all_experiments())}"
        )
    return all_experiments()[name]


def load_experiments(file: Path) -> list[Experiment]:
    """Read and check a file of experiments.

    Args:
        file: YAML, with the keys that this module lists.

    Raises:
        RecordError: it is not as this module says; names the file, the experiment and the key.
        OSError: it cannot be read.
    """
    content = read_yaml(file)
    keys = {"data": dict, "experiments": list}
    check_keys(content, file.name, keys, {"rows": dict, "claims": list})
    found = {}
    for index, item in enumerate(content["experiments"]):
        one = _experiment(item, f"{file.name}, experiments[{index}]", file.stem, content["data"])
        if one.id in found:
            raise RecordError(f"{file.name}: the id {one.id!r} stands twice")
        found[one.id] = one
    return list(found.values())


def _experiment(item: dict, where: str, stem: str, data: dict) -> Experiment:
    keys = {"id": str, "data": str, "title": str, "paper": str, "rows": list, "planned_seeds": int}
    check_keys(item, where, keys, {})
    if item["data"] not in data:
        raise RecordError(f"{where}: data is {item['data']!r}; there are {', '.join(data)}")
    place = f"{where}, data {item['data']!r}"
    source = data[item["data"]]
    text = {"title": str, "source": str, "root": str, "overrides": list, "own": list}
    check_keys(source, place, text, {})
    rows = tuple(_row(row, f"{where}, rows[{i}]") for i, row in enumerate(item["rows"]))
    for key in ("id", "name"):  # in a report, rows are told apart by their names
        if len({getattr(row, key) for row in rows}) != len(rows) or not rows:
            raise RecordError(f"{where}: rows need an id and a name each, that stand once")
    for index, row in enumerate(rows):
        if row.evaluates is None:
            continue
        trained = {other.id: other for other in rows[:index] if other.evaluates is None}
        if row.evaluates not in trained:
            raise RecordError(
                f"{where}: {row.id!r} evaluates {row.evaluates!r}, which is no training before it; "
                f"there are {', '.join(trained)}"
            )
        if row.config != trained[row.evaluates].config:
            raise RecordError(
                f"{where}: {row.id!r} and {row.evaluates!r}, which it evaluates, need one config"
            )
    return Experiment(
        id=f"{stem}/{item['id']}",
        title=item["title"],
        paper=item["paper"],
        data=item["data"],
        data_title=source["title"],
        data_source=source["source"],
        data_overrides=(
            f"datasets.train.root=datasets/{source['root']}",
            *source["overrides"],
            *source["own"],
        ),
        planned_seeds=item["planned_seeds"],
        rows=rows,
    )


def _row(item: dict, where: str) -> Variation:
    optional = {"overrides": list, "evaluates": str}
    check_keys(item, where, {"id": str, "name": str, "config": str}, optional)
    overrides = tuple(map(str, item.get("overrides", [])))
    return Variation(item["id"], item["name"], item["config"], overrides, item.get("evaluates"))
