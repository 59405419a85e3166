"""Files that are made once from a data set, and kept beside it."""

import os
import tempfile
from collections.abc import Callable

from iopath.common.file_io import file_lock, get_cache_dir

from iou_balanced.files import write_atomically

from .checksums import sha256_of

__all__ = ["cached_file", "check_content"]


def cached_file(file_name: str, *, root: str, topic: str, make: Callable[[str], None]) -> str:
    """The path of `file_name`, which `make` makes where it is not there yet.

    It is looked for, and made, in `root`/iou_balanced, or where that cannot be written in iopath's
    cache folder. Several processes may call this at once: one makes the file, the others wait. A
    file that is there stays as it is, so `file_name` has to tell files of different content apart,
    such as by a hash of what they are made from. `check_content` says whether it is still whole.

    Args:
        file_name: without a folder.
        root: the data set's own folder.
        topic: the data set's name, for iopath's cache folder and for errors.
        make: gets the path; writes the file as a whole or not at all (`write_atomically`).

    Raises:
        OSError: neither folder can be written. What `make` raises.
    """
    folders = (
        os.path.join(root, "iou_balanced"),
        os.path.join(get_cache_dir(), "iou_balanced", topic),
    )
    for folder in folders:
        path = os.path.join(folder, file_name)
        if os.path.isfile(path):
            return path
    path = os.path.join(_first_writable(folders, topic), file_name)
    with file_lock(path):
        if not os.path.isfile(path):  # another process may have made it by now
            make(path)
            write_atomically(_sum_of(path), lambda f: f.write(sha256_of(path)))
    return path


def _sum_of(path: str) -> str:
    return f"{path}.sha256"


def check_content(path: str) -> None:
    """Refuse a cached file that no more holds what was written, by the checksum beside it.

    Args:
        path: of `cached_file`. Of a file without a checksum, as those of earlier versions, nothing
            is known.

    Raises:
        FileExistsError: it holds something else.
    """
    try:
        with open(_sum_of(path), encoding="utf-8") as f:
            expected = f.read().strip()
    except FileNotFoundError:
        return
    if sha256_of(path) != expected:
        raise FileExistsError(
            f"{path} is not what was written to it: delete it to have it made again, or move it "
            "elsewhere"
        )


def _first_writable(folders: tuple[str, ...], topic: str) -> str:
    errors = []
    for folder in folders:
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as e:
            errors.append(str(e))
    raise OSError(f"what is made from {topic} can be written nowhere: {'; '.join(errors)}")
