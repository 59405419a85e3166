"""What is given to predict on: files, folders and globs; and names for their pictures."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from iou_balanced.engine import UserError

IMAGES = frozenset(
    [
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
VIDEOS = frozenset(
    [".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"]
)


class Input(NamedTuple):
    """One file to predict on."""

    path: Path
    is_video: bool


def find_inputs(patterns: Iterable[str | os.PathLike]) -> list[Input]:
    """The files that are meant, each once, in the order given; those of a folder by name.

    Args:
        patterns: files; folders, whose images and videos are taken, but not those of folders in
            them; or globs, in which ** stands for folders at any depth.

    Raises:
        UserError: one of them is not there, or has no image or video; names all of these.
    """
    found: dict[Path, Input] = {}
    faults = []
    for pattern in patterns:
        paths, fault = _expand(str(pattern))
        if fault:
            faults.append(fault)
        for path in paths:
            found.setdefault(path.resolve(), Input(path, path.suffix.lower() in VIDEOS))
    if faults:
        raise UserError("; ".join(faults))
    if not found:
        raise UserError("no inputs: give images, folders, globs or videos")
    return list(found.values())


def _expand(pattern: str) -> tuple[list[Path], str]:
    """The files, and what is wrong."""
    path = Path(pattern)
    if path.is_file():
        return [path], ""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _is_known(file))
        deeper = any(file.is_dir() for file in path.iterdir())
        hint = f"; for the folders in it give '{pattern}/**/*.jpg'" if deeper else ""
        return files, "" if files else f"folder {pattern} has no image and no video{hint}"
    if not glob.has_magic(pattern):
        return [], f"there is no file {pattern}"
    files = sorted(Path(file) for file in glob.glob(pattern, recursive=True))
    files = [file for file in files if _is_file(file)]
    # A glob with a suffix says itself what is meant.
    if not Path(pattern).suffix or glob.has_magic(Path(pattern).suffix):
        files = [file for file in files if _is_known(file)]
    return files, "" if files else f"no file is like {pattern}"


def _is_known(path: Path) -> bool:
    return _is_file(path) and path.suffix.lower() in IMAGES | VIDEOS


def _is_file(path: Path) -> bool:
    """Also a link to nothing, which then is named as what cannot be read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def picture_names(paths: Sequence[Path], suffixes: Sequence[str]) -> list[Path]:
    """A relative path for each input's picture, no two of which are the same on any file system.

    It is the input's own below the folder that all are in, with another suffix; inputs that differ
    in their suffix only keep it in the name: a_png.jpg.

    Args:
        paths: the inputs.
        suffixes: of the pictures, ".jpg" for example.
    """
    folder = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    wanted = [
        path.resolve().relative_to(folder).with_suffix(suffix)
        for path, suffix in zip(paths, suffixes, strict=True)
    ]
    counts: dict[str, int] = {}
    for name in wanted:
        counts[_key(name)] = counts.get(_key(name), 0) + 1
    taken = {key for key, count in counts.items() if count == 1}
    names = []
    for path, name in zip(paths, wanted, strict=True):
        if counts[_key(name)] > 1:
            name = _free_name(path, name, taken)
            taken.add(_key(name))
        names.append(name)
    return names


def _free_name(path: Path, name: Path, taken: set[str]) -> Path:
    stem = f"{path.stem}_{path.suffix.lstrip('.')}"
    candidate, number = name.with_name(f"{stem}{name.suffix}"), 2
    while _key(candidate) in taken:
        candidate, number = name.with_name(f"{stem}_{number}{name.suffix}"), number + 1
    return candidate


def _key(name: Path) -> str:
    return name.as_posix().casefold()
