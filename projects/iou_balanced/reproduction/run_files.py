"""What lies in the folder of a run: its state, its record and its metrics.

Beside what the training writes:

    started.json   the overrides it was started with, so that nothing else is resumed, and when
    output.txt     what it printed
    failure.json   why the last attempt ended, until one succeeds
    record.json    the finished run; written last, and at once
    run.lock       held while it runs
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from iou_balanced.files import write_atomically

from .parse import RecordError

RECORD, STARTED, FAILURE, OUTPUT = "record.json", "started.json", "failure.json", "output.txt"
LOCK = "run.lock"
NEEDED = {"seed": int, "metrics": dict}
"""What every report takes from a record."""
CIRCUMSTANCES = {"finished": str, "versions": dict, "hardware": dict}
"""What a record of an experiment takes from it beside."""
PREFIX = "bbox/"


def read_json(file: Path, kind: type = dict) -> dict | list | None:
    """The mapping (or list) in the file; None where there is no file, or it is something else."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, kind) else None


def read_record(folder: Path, needed: Mapping[str, type] = NEEDED) -> dict | None:
    """record.json of a finished run; None where there is none.

    Args:
        folder: of the run.
        needed: {key: type} of what it has to have.

    Raises:
        RecordError: it is damaged, or of a version that wrote less; names the file.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    record = read_json(file)
    if record is None:
        raise RecordError(f"{file} is damaged: move it away, and run again")
    absent = [key for key, kind in needed.items() if not isinstance(record.get(key), kind)]
    if absent:
        raise RecordError(f"{file} lacks {', '.join(absent)}: is it of another version?")
    return record


def write_json(file: Path, content: Mapping) -> None:
    """Write it so that a reader never meets half of it."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(file, lambda f: f.write(text))


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def has_checkpoint(folder: Path) -> bool:
    """Whether a training has something to go on with."""
    return (folder / "last_checkpoint").is_file() or any(folder.glob("model_*.pth"))


def state(folder: Path) -> str:
    """ "finished", "under way, or broken off", "failed: ..." or "not run"."""
    if read_json(folder / RECORD):
        return "finished"
    failure = read_json(folder / FAILURE)
    if failure:
        return f"failed: {failure.get('error', '')}"
    return "under way, or broken off" if (folder / STARTED).is_file() else "not run"


def finished_seeds(folder: Path) -> dict[Path, dict]:
    """{folder: record.json} of the finished runs that are this one with whatever seed.

    Args:
        folder: of one of them, there or not.

    Raises:
        RecordError: a record is damaged, or of another version.
    """
    folders = sorted(folder.parent.glob("seed_*"), key=lambda f: (len(f.name), f.name))
    records = {f: read_record(f) for f in folders}
    return {f: record for f, record in records.items() if record}


def read_metrics(folder: Path) -> tuple[int, dict[str, float | None]] | None:
    """(iteration, {metric: value in percent}) of the last evaluation in metrics.json.

    An undefined metric is None. A line that a broken-off run left half-written is passed over.
    None without an evaluation.
    """
    try:
        lines = (folder / "metrics.json").read_text("utf-8").splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and f"{PREFIX}AP" in record:
            boxes = {k.removeprefix(PREFIX): v for k, v in record.items() if k.startswith(PREFIX)}
            return record.get("iteration"), {k: None if v != v else v for k, v in boxes.items()}
    return None


def read_inference_seconds(output: str) -> float | None:
    """Seconds an image of the last evaluation, computing alone, from what Detectron2 prints."""
    found = re.findall(r"Total inference pure compute time: .*?\(([\d.]+) s / iter", output)
    return float(found[-1]) if found else None


def error_of(output: str) -> str:
    """What a failed training said: its one-line error, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("error: ")]
    if named:
        return named[-1].removeprefix("error: ")
    return lines[-1] if lines else "it printed nothing"
