"""Files that are made once from a data set, and kept beside it."""

import os
import tempfile
from collections.abc import Callable

from iopath.common.file_io import file_lock, get_cache_dir

__all__ = ["cached_file"]


def cached_file(file_name: str, *, root: str, topic: str, make: Callable[[str], None]) -> str:
    """The path of `file_name`, which `make` makes where it is not there yet.

    It is looked for, and made, in `root`/iou_balanced, or where that cannot be written in iopath's
    cache folder. Several processes may call this at once: one makes the file, the others wait. A
    file that is there stays as it is, so `file_name` has to tell files of different content apart,
    such as by a hash of what they are made from.

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
    return path


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
