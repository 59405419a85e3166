"""Checkpoints that survive a kill, a full disk and a damaged file."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm

from iou_balanced.files import remove_leftovers, write_atomically

from .checkpoint_files import (
    LAST,
    CheckpointFile,
    checkpoints_in,
    name_last_checkpoint,
    number_of,
    order_by_age,
    problem_of,
)
from .errors import UserError

__all__ = ["DurableCheckpointer", "full_disk_as_user_error"]

logger = logging.getLogger(__name__)

_RESUME = "go on with --resume; what was written before is whole"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DurableCheckpointer(DetectionCheckpointer):
    """Detectron2's, which loses nothing.

    A file is written beside its place, flushed to the disk and renamed, and so is last_checkpoint.
    A resume takes the newest file in the folder that is whole, by the checksums in it, whatever
    last_checkpoint says.

    Args:
        model, save_dir, save_to_disk, checkpointables: see `DetectionCheckpointer`. A `save_dir`
            that is no local folder is written to as Detectron2 does.
    """

    def save(self, name: str, **kwargs) -> None:
        """Write the model and everything else to `name`.pth.

        Args:
            name: of the file, without its suffix.
            **kwargs: further entries.

        Raises:
            UserError: the disk is full; no file was changed.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if not self._is_local():
            super().save(name, **kwargs)
            return
        content = {"model": self.model.state_dict()}
        content.update({key: x.state_dict() for key, x in self.checkpointables.items()})
        content.update(kwargs)
        path = Path(self.save_dir, f"{name}.pth")
        assert path.name == f"{name}.pth", name
        logger.info("Saving checkpoint to %s", path)
        with full_disk_as_user_error(path):
            write_atomically(path, lambda file: _save(content, file), mode="wb", durable=True)
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write a file's name to last_checkpoint.

        Args:
            last_filename_basename: of the file.
        """
        if not self._is_local():
            super().tag_last_checkpoint(last_filename_basename)
            return
        path = Path(self.save_dir, LAST)
        with full_disk_as_user_error(path):
            write_atomically(path, lambda file: file.write(last_filename_basename), durable=True)

    def has_checkpoint(self) -> bool:
        """Whether the folder holds a run, whole or not."""
        if not self._is_local():
            return super().has_checkpoint()
        return bool(checkpoints_in(self.save_dir)) or Path(self.save_dir, LAST).exists()

    def get_checkpoint_file(self) -> str:
        """The newest checkpoint by what last_checkpoint says, else by the names of the files."""
        if not self._is_local():
            return super().get_checkpoint_file()
        files = checkpoints_in(self.save_dir)
        named = Path(self.save_dir, name_last_checkpoint(self.save_dir))
        if named in files or not files:
            return str(named)
        return str(max(files, key=number_of))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """Load the newest whole checkpoint of the folder, or weights only.

        Args:
            path: of the weights, where it is no resume or the folder holds no run.
            resume: whether to go on with the run in the folder.

        Returns:
            what else the file holds.

        Raises:
            UserError: there are checkpoints, but none of them is whole.
        """
        if resume and self.has_checkpoint():
            return self.load(
                self.newest_whole() if self._is_local() else self.get_checkpoint_file()
            )
        return self.load(path, checkpointables=[])

    def newest_whole(self) -> str:
        """The path of the checkpoint to go on with, found by the main process for all of them.

        Raises:
            UserError: there is none.
        """
        found, error = None, None
        if comm.is_main_process():
            try:
                found = self._find_newest_whole()
            except UserError as e:
                error = str(e)
        found, error = comm.all_gather((found, error))[0]
        if error is not None:
            raise UserError(error)
        return found

    def remove_leftovers(self) -> None:
        """Remove what a killed process wrote only a part of; nobody else may be writing."""
        if self._is_local() and self.save_dir and self.save_to_disk:
            remove_leftovers(self.save_dir, "model_*.pth", LAST)

    def _find_newest_whole(self) -> str:
        passed_over: list[CheckpointFile] = []
        named = name_last_checkpoint(self.save_dir)
        for file in order_by_age(checkpoints_in(self.save_dir), ["model", *self.checkpointables]):
            problem = file.problem or problem_of(file.path)
            if problem is None:
                self._warn_of(passed_over, file)
                return str(file.path)
            passed_over.append(file._replace(problem=problem))
        if not passed_over:
            what = f"names {named}, which is missing" if named else "names no file"
            raise UserError(
                f"{self.save_dir} has no checkpoint to resume, and its {LAST} {what}. Bring the "
                f"checkpoints back, or remove {LAST} to start anew"
            )
        files = "; ".join(f"{file.path.name}: {file.problem}" for file in passed_over)
        raise UserError(
            f"{self.save_dir} has no whole checkpoint to resume ({files}). Nothing was changed: "
            "bring a whole one back, or start anew in another folder"
        )

    def _warn_of(self, passed_over: list[CheckpointFile], taken: CheckpointFile) -> None:
        for file in passed_over:
            logger.warning("%s cannot be resumed: %s", file.path, file.problem)
        if passed_over:
            logger.warning("Going on with %s, the newest whole checkpoint", taken.path)

    def _is_local(self) -> bool:
        return "://" not in str(self.save_dir)


@contextmanager
def full_disk_as_user_error(path: str | os.PathLike, *, then=_RESUME) -> Iterator[None]:
    """Say in one line that a disk is full.

    Args:
        path: what is written, for the message.
        then: continues "make room, and ".

    Raises:
        UserError: in the place of such an error.
    """  # noqa: DOC501
    try:
        yield
    except OSError as e:
        if e.errno not in _FULL:
            raise
        raise UserError(f"{path} could not be written ({e.strerror}): make room, and {then}") from e


class _Remembering:
    """A file whose errors are kept: torch.save turns them into others."""

    def __init__(self, file: IO[bytes]):
        self.file, self.error = file, None

    def write(self, content) -> int:
        try:
            return self.file.write(content)
        except OSError as e:
            self.error = e
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(content: dict, file: IO[bytes]) -> None:
    watched = _Remembering(file)
    try:
        torch.save(content, watched)
    except Exception:
        if watched.error is not None:
            raise watched.error from None
        raise
