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
    *("se_images", "se_seeds", "method", "p", "p_holm", "p_method"),
)


@dataclass
class Analysis:
    """Dicts, lists, texts and numbers. Undefined numbers are NaN, and null in the JSON file."""

    settings: dict
    """Draws, permutations, seed and confidence."""
    runs: dict[str, dict[str, dict]]
    """Run -> metric -> its value with an interval, in percent."""
    differences: dict[str, dict[str, dict]]
    """Run -> metric -> its difference to the first run, in percentage points."""
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
                for metric, number in metrics.items():
                    yield kind, run, metric, number

    def _write_csv(self, file) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_CSV_COLUMNS)
        for kind, run, metric, number in self.rows():
            values = (number.get(column) for column in _CSV_COLUMNS[3:])
            writer.writerow([kind, run, metric, *map(_cell, values)])


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
