"""All numbers of an analysis as plain data, and the files that hold them."""

import csv
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from iou_balanced.files import write_atomically

__all__ = ["CSV_FILE", "JSON_FILE", "Analysis"]

JSON_FILE = "analysis.json"
CSV_FILE = "analysis.csv"
_CSV_COLUMNS = (
    *("kind", "run", "metric", "value", "low", "high"),
    *("se_images", "se_seeds", "df", "p", "p_holm", "p_method"),
)


@dataclass
class Analysis:
    """Dicts, lists, texts and numbers. Undefined numbers are NaN, and null in the JSON file."""

    settings: dict
    """Draws, permutations, seed, confidence; and what was read: files, images, objects, classes."""
    runs: dict[str, dict[str, dict]]
    """Run -> metric -> its value with an interval, in percent."""
    differences: dict[str, dict[str, dict]]
    """Run -> metric -> its difference to the first run, in percentage points."""
    verdict: list[str] = field(default_factory=list)
    """What can be told apart and what cannot, in words, the most important first."""
    classes: list[dict] = field(default_factory=list)
    """Name, objects and images of each class."""
    localization: dict = field(default_factory=dict)
    """Scores against IoUs, see `localization_numbers`."""
    errors: dict = field(default_factory=dict)
    """AP50 that mending kinds of errors would give, see `tide_numbers`."""
    groups: dict = field(default_factory=dict)
    """Tail and head where training counts are given, see `group_of_classes`."""
    changes: dict = field(default_factory=dict)
    """Images and boxes that made the differences, see `changes`."""
    warnings: list[str] = field(default_factory=list)
    """What is odd about the files."""

    @property
    def first(self) -> str:
        """The run that the others are compared with."""
        return next(iter(self.runs))

    def to_dict(self) -> dict:
        """What `analysis.json` holds: null in the place of NaN."""
        return _without_nan({"first": self.first, **asdict(self)})

    def write(self, output_dir: str | os.PathLike) -> tuple[Path, Path]:
        """Write `analysis.json` and `analysis.csv`, each as a whole or not at all.

        Args:
            output_dir: folder; is made where it is missing.

        Returns:
            their paths.
        """
        folder = Path(output_dir)
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1)
        json_file = write_atomically(folder / JSON_FILE, lambda file: file.write(text + "\n"))
        return json_file, write_atomically(folder / CSV_FILE, self._write_csv)

    def rows(self):
        """(kind, run, metric, number) of everything with an interval."""
        for kind, table in (("run", self.runs), ("difference", self.differences)):
            for run, metrics in table.items():
                yield from ((kind, run, metric, number) for metric, number in metrics.items())
            part = f"{kind}s"
            for run, gains in self.errors.get(part, {}).items():
                yield from ((kind, run, f"errors/{name}", x) for name, x in gains.items())
            for run, populations in self.localization.get(part, {}).items():
                for population, numbers in populations.items():
                    for metric, number in _flat(numbers, self.localization):
                        yield kind, run, f"localization/{population}/{metric}", number

    def _write_csv(self, file) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_CSV_COLUMNS)
        for kind, run, metric, number in self.rows():
            values = (number.get(column) for column in _CSV_COLUMNS[3:])
            writer.writerow([kind, run, metric, *map(_cell, values)])


def _flat(numbers: dict, localization: dict):
    """(name, number) of a population, lists by where their bins begin."""
    for name, value in numbers.items():
        if name == "rank_correlation_by_class":
            yield from ((f"rank_correlation-{k}", x) for k, x in value.items())
        elif name in ("mean_score_by_iou", "share_above"):
            begins = localization["iou_thresholds"]
            yield from ((f"{name}_{b:.2f}", x) for b, x in zip(begins, value, strict=True))
        elif isinstance(value, dict):
            yield name, value


def _cell(value) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(float(value))


def _without_nan(value):
    if isinstance(value, dict):
        return {str(k): _without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
