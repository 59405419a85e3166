"""Which trainings the rows of the tables need: a run for each combination, not for each row."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .parse import RecordError
from .quick import quick_overrides
from .records import Row, all_rows

PROFILES = ("full", "quick")
WEIGHTS = "train.init_checkpoint="
"""The override with the weights of another run."""


@dataclass(frozen=True)
class Run:
    """One training of a config with overrides and a seed, or an evaluation of what it left.

    Several rows may share it.
    """

    config: str
    """A file of configs/, without .py."""
    overrides: tuple[str, ...]
    """The rows' own."""
    profile: str
    """ "full" or "quick"."""
    profile_overrides: tuple[str, ...]
    """What the profile adds to the rows' own."""
    seed: int
    """Of the training, from 0."""
    rows: tuple[str, ...]
    """Ids of the rows that show it, of those that were asked for."""
    starts_from: str | None = None
    """The config whose run of the same seed has the weights that this one starts from."""
    evaluates: tuple[str, ...] | None = None
    """Overrides of the run, of this config and seed, whose weights are evaluated; None: trains."""

    @property
    def all_overrides(self) -> list[str]:
        """The rows' and the profile's, as they stand on the command line."""
        return [*self.overrides, *self.profile_overrides]

    @property
    def name(self) -> str:
        """Where it is, below the output folder: profile/config/overrides/seed."""
        return f"{self.profile}/{self.config}/{slug(self.overrides)}/seed_{self.seed}"

    @property
    def start(self) -> "Run | None":
        """The run that has the weights this one starts from, or evaluates."""
        if self.evaluates is not None:
            added = self.profile_overrides
            return Run(self.config, self.evaluates, self.profile, added, self.seed, ())
        if self.starts_from is None:
            return None
        return Run(self.starts_from, (), self.profile, (), self.seed, ())

    def folder(self, output_dir: Path) -> Path:
        """Where everything of this run is.

        Args:
            output_dir: of all runs.
        """
        return Path(output_dir) / self.name

    def weights(self, output_dir: Path) -> Path:
        """What a finished training leaves.

        Args:
            output_dir: of all runs.
        """
        return self.folder(output_dir) / "model_final.pth"

    def overrides_in(self, output_dir: Path) -> list[str]:
        """All overrides but seed and output folder; with the weights of `start`.

        Args:
            output_dir: of all runs.
        """
        if self.start is None:
            return self.all_overrides
        weights = quote(str(self.start.weights(output_dir)))
        return [*self.all_overrides, f"{WEIGHTS}{weights}"]


def slug(overrides: Sequence[str]) -> str:
    """A folder's name that a person can read: "eta-1_schedule-null"; "as_written" for none."""
    return "_".join(map(_short, overrides)) or "as_written"


def _short(override: str) -> str:
    key, _, value = override.partition("=")
    if key.endswith("._target_"):
        return value.rsplit(".", 1)[-1]
    return re.sub(r"[^\w.-]", "_", f"{key.rsplit('.', 1)[-1]}-{value}")


def plan_runs(rows: Iterable[Row], *, profile: str = "full", seeds: int = 1) -> list[Run]:
    """The runs that these rows need, each once, a run after the one that it starts from.

    Args:
        rows: cited ones need no run.
        profile: "full" as the paper trains; "quick" with `quick_overrides`.
        seeds: number of runs of each, with the seeds 0, 1, ...

    Raises:
        RecordError: an argument makes no sense.
    """
    if profile not in PROFILES:
        raise RecordError(f"there is no profile {profile!r}; there are {', '.join(PROFILES)}")
    if seeds < 1:
        raise RecordError(f"{seeds} seeds: give a number from 1 on")
    runs = {}
    for row in rows:
        if row.config is None:
            continue
        for seed in range(seeds):
            start = row.starts_from if profile == "full" else None
            added = tuple(quick_overrides(row)) if profile == "quick" else ()
            run = Run(row.config, row.overrides, profile, added, seed, (row.id,), start)
            for needed in (run.start, run):
                if needed is not None:
                    _add(runs, needed)
    return list(runs.values())


def _add(runs: dict[str, Run], run: Run) -> None:
    known = runs.get(run.name)
    if known is None:
        runs[run.name] = run
        return
    if known.all_overrides != run.all_overrides:
        raise RecordError(f"{known.rows} and {run.rows} would share the folder {run.name}")
    values = {**vars(known), "rows": (*known.rows, *run.rows)}
    runs[run.name] = Run(**values)


def run_of(row: Row, *, profile: str, seed: int = 0) -> Run:
    """The run of a row that is not cited."""
    return plan_runs([row], profile=profile, seeds=seed + 1)[-1]


def rows_of_run(run: Run) -> list[str]:
    """The ids of all rows of both papers that show this run."""
    same = (run.config, run.overrides)
    return [row.id for row in all_rows() if (row.config, row.overrides) == same]


def command(run: Run, output_dir: Path, *, num_gpus: int = 1, resume: bool = False) -> list[str]:
    """Arguments of tools/train_net.py, and its name before them.

    Args:
        run: the training.
        output_dir: of all runs.
        num_gpus: processes of the training.
        resume: go on with its checkpoint.
    """
    words = ["tools/train_net.py", "--config-file", f"configs/{run.config}.py"]
    words += ["--num-gpus", str(num_gpus)] if num_gpus != 1 else []
    words += ["--resume"] if resume else []
    words += ["--eval-only"] if run.evaluates is not None else []
    folder = quote(str(run.folder(output_dir)))
    words += [*run.overrides_in(output_dir), f"train.seed={run.seed}"]
    return [*words, f"train.output_dir={folder}"]


def quote(value: str) -> str:
    """A value as overrides have it: in quotes where it has other than plain characters."""
    if re.fullmatch(r"[\w./-]+", value):
        return value
    # A backslash is one, but for those before a quotation mark or the end, which are doubled.
    escaped = re.sub(r'(\\+)("|$)', r"\1\1\2", value).replace('"', '\\"')
    return f'"{escaped}"'
