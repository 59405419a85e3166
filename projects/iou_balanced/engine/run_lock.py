"""One run a folder."""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from detectron2.utils import comm

from .class_names import on_every_process
from .errors import UserError

__all__ = ["LOCK", "lock_folder", "only_run_in"]

LOCK = ".run.lock"
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_held: set[str] = set()


@contextlib.contextmanager
def only_run_in(folder: str, key: str = "train.output_dir") -> Iterator[None]:
    """Hold the lock of a run's folder, by the main process for all of them.

    Args:
        folder: of the run; one that is not on this machine is not locked.
        key: of the folder in the config, for messages.

    Raises:
        UserError: another run has it.
    """
    with contextlib.ExitStack() as stack:
        with on_every_process():
            if comm.is_main_process() and "://" not in folder:
                stack.enter_context(lock_folder(folder, key))
        yield


@contextlib.contextmanager
def lock_folder(folder: str, key: str = "train.output_dir") -> Iterator[None]:
    """Hold the lock of a folder; the file names host and process, and is empty when they let go.

    The lock is the system's and ends with the process, however it ends, so that a file that a
    killed run left is taken over. On a file system without locks, the process in the file decides.

    Args:
        folder: is made where missing.
        key: see `only_run_in`.

    Raises:
        UserError: another process holds it.
    """
    import fcntl  # not on Windows

    path = Path(folder, LOCK).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    if str(path) in _held:  # to itself, the system would give it again
        raise UserError(_refusal(folder, key, _read(path)))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        # Not flock: the processes that load images would inherit it and outlive a killed run.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        owner = _read(path)
        if e.errno not in _UNSUPPORTED or _may_be_alive(owner):
            os.close(descriptor)
            raise UserError(_refusal(folder, key, owner)) from e
    _held.add(str(path))
    try:
        own = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(own).encode(), 0)
        yield
    finally:
        _held.discard(str(path))
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _read(path: Path) -> dict:
    """Who has the lock; without opening the file in a process that holds it, which would end it."""
    if str(path) in _held:
        return {"host": socket.gethostname(), "process": os.getpid()}
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return owner if isinstance(owner, dict) else {}
    except (OSError, ValueError):
        return {}


def _may_be_alive(owner: dict) -> bool:
    """Whether the process may run still: one of another machine may."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(owner["process"]), 0)
    except PermissionError:
        return True
    except (OSError, KeyError, ValueError, TypeError):
        return False
    return True


def _refusal(folder: str, key: str, owner: dict) -> str:
    who = f"process {owner.get('process', '?')} on {owner.get('host', 'some machine')}"
    since = owner.get("since")
    if isinstance(since, (int, float)):
        who += time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since))
    return (
        f"another run is training in {folder} ({who}): wait until it has ended, or give another "
        f"{key}. If it has ended and its machine is gone, remove {folder}/{LOCK}"
    )
