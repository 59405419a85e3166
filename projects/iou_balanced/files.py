"""Writing files so that a reader never meets half of one."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: str | os.PathLike, write: Callable[[IO], None], *, mode="w") -> Path:
    """Call `write` with a temporary file beside `path`, then move that file to `path`.

    Args:
        path: the file to make or to replace; its folder is made where missing.
        write: gets the open file. Where it raises, `path` stays what it was.
        mode: "w" (UTF-8, line ends as written) or "wb".

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
        # mkstemp makes the file readable by its owner only; results are shared like other files.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
