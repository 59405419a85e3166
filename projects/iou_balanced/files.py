"""Writing files so that a reader never meets half of one, and locks between processes."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


def write_atomically(
    path: str | os.PathLike, write: Callable[[IO], None], *, mode="w", durable: bool = False
) -> Path:
    """Call `write` with a temporary file beside `path`, then move that file to `path`.

    Args:
        path: the file to make or to replace; its folder is made where missing.
        write: gets the open file. Where it raises, `path` stays what it was.
        mode: "w" (UTF-8, line ends as written) or "wb".
        durable: flush the file to the disk before it is moved, and the move too, so that also a
            machine that loses its power leaves the old file or the new one.

    Returns:
        `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, **text) as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes the file readable by its owner only; results are shared like other files.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        _flush_folder(path.parent)
    return path


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot, and Windows has no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike, *names: str) -> None:
    """Remove the temporary files of `write_atomically` that a killed process left.

    Args:
        folder: nobody may be writing there.
        names: of the files that were to be written; a * stands for anything.
    """
    for name in names:
        for path in Path(folder).glob(f".{name}.*"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive_lock(path: str | os.PathLike) -> Iterator[int | None]:
    """Hold the lock `path`, unless another process does.

    The lock ends with the processes that have the file open, however they end. One that is started
    in the block takes part in it where it gets the descriptor (`pass_fds`).

    Args:
        path: a file of its own, which is made where missing and stays; its folder too.

    Yields:
        The file's descriptor, or None where another process holds the lock.
    """
    import fcntl  # not on Windows

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)
