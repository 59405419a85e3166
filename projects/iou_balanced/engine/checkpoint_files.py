"""The checkpoints of a run as files: which there are, how new each is, and whether it is whole."""

import os
import re
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = [
    "CheckpointFile",
    "checkpoints_in",
    "name_last_checkpoint",
    "number_of",
    "order_by_age",
    "problem_of",
]

LAST = "last_checkpoint"
_NUMBERED = re.compile(r"model_(\d{7,})\.pth")
_OTHERS = ("model_final.pth", "model_best.pth")
_UNKNOWN = sys.maxsize


class CheckpointFile(NamedTuple):
    """A checkpoint that may be resumed, or what is wrong with it."""

    path: Path
    """Of the file."""
    iteration: int
    """The last one that it has done; the largest number where nothing tells."""
    problem: str | None = None
    """Why it cannot be resumed; None where it can."""


def checkpoints_in(folder: str | os.PathLike) -> list[Path]:
    """The files of a run's checkpoints, whole or not: by their names, or named by last_checkpoint.

    Args:
        folder: of the run; may be missing.
    """
    folder = Path(folder)
    named = name_last_checkpoint(folder)
    return sorted(
        path
        for path in folder.glob("*.pth")
        if path.name in (*_OTHERS, named) or number_of(path) >= 0
    )


def name_last_checkpoint(folder: str | os.PathLike) -> str:
    """What the file last_checkpoint says; "" where it is missing, empty or no text.

    Args:
        folder: of the run.
    """
    try:
        name = (Path(folder) / LAST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in name else name


def number_of(path: Path) -> int:
    """The iteration in the name of a periodic checkpoint; -1 for other names.

    Args:
        path: of a file.
    """
    match = _NUMBERED.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def order_by_age(paths: Iterable[Path], needed: Iterable[str] = ()) -> list[CheckpointFile]:
    """Look into the files, and put the newest first.

    Only what is small is read here, so that `problem_of` is to follow. Of files of the same
    iteration, model_final.pth comes first and model_best.pth last.

    Args:
        paths: of checkpoints.
        needed: entries without which there is nothing to go on with.
    """
    needed = list(needed)
    found = [_look_into(path, needed) for path in paths]

    def key(file: CheckpointFile):
        name = file.path.name
        return file.iteration, name == "model_final.pth", name != "model_best.pth", name

    return sorted(found, key=key, reverse=True)


def problem_of(path: Path) -> str | None:
    """What is wrong with a file that torch.save wrote: the checksums of all its parts are compared.

    Args:
        path: of the file.

    Returns:
        None where it is whole.
    """
    try:
        if path.stat().st_size == 0:
            return "it is empty"
        if not zipfile.is_zipfile(path):
            return "it is torn, or no file of torch.save"
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except Exception as e:  # a flipped bit asks for a password, another for a compression
        return f"it is damaged ({type(e).__name__}: {_one_line(e)})"
    return None if bad is None else f"it is damaged: the checksum of {bad} in it is wrong"


def _look_into(path: Path, needed: list[str]) -> CheckpointFile:
    number = number_of(path)
    number = _UNKNOWN if number < 0 else number
    try:
        if path.stat().st_size == 0:
            return CheckpointFile(path, number, "it is empty")
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        lacking = [key for key in needed if key not in content]
        if lacking:
            text = f"it has no {lacking[0]}: it holds weights, and no state of a training"
            return CheckpointFile(path, number, text)
        if "trainer" in content:
            number = int(content["trainer"]["iteration"])
        return CheckpointFile(path, number)
    except Exception as e:  # damage of every kind
        problem = problem_of(path) or f"it cannot be read ({type(e).__name__}: {_one_line(e)})"
        return CheckpointFile(path, number, problem)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
