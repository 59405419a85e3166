"""The records of a training, metrics.json and TensorBoard's, which a resumed run continues.

What an iteration recorded before the run was broken off, and records again after it, stands there
once.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.engine import hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter, JSONWriter, TensorboardXWriter

from iou_balanced.files import write_atomically

from .durable import full_disk_as_user_error

__all__ = ["METRICS", "RecordWriter", "append_record", "cut_metrics", "set_metrics_aside"]

logger = logging.getLogger(__name__)

METRICS = "metrics.json"
_WINDOW = 20  # values that Detectron2's writers smooth over
# They are of a machine and not of the training, so that a checkpoint is the same on each.
_NEVER = {"latest": (None, -1)}
_TIMES = ("time", "data_time", "rank_data_time", "eta_seconds")


class RecordWriter(hooks.PeriodicWriter):
    """Detectron2's, whose records go on where the checkpoint has them.

    It belongs last among the hooks, on every process. After a resume it also makes up for what was
    due at the checkpoint's iteration and is not recorded: an evaluation, and the best checkpoint.

    Args:
        writers: of the main process; none on the others.
        period: iterations between two records.
        folder: where metrics.json and TensorBoard's files are.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int, folder: str):
        super().__init__(writers, period=period)
        self._folder = folder
        self._restored: dict = {}

    def before_train(self) -> None:
        trainer = self.trainer
        start = trainer.start_iter
        last, newest = -1, {}
        if comm.is_main_process() and "://" not in self._folder:
            last, newest = self._continue_files(start)
        if start == 0:
            return
        known = self._restored.get("scalars", {})
        self._restored = {}
        _restore(trainer.storage, known)
        # The checkpoint was written before the evaluation, so that it lacks what that has found.
        found = {k: v for k, v in newest.items() if known.get(k, _NEVER)["latest"][1] != start - 1}
        is_evaluated = comm.all_gather(bool(found))[0]
        if start >= trainer.max_iter:
            return
        with _at_iteration(trainer, start - 1):
            trainer.storage.put_scalars(**found, smoothing_hint=False)
            if not is_evaluated:
                for hook in trainer._hooks:
                    if isinstance(hook, (hooks.EvalHook, hooks.BestCheckpointer)):
                        hook.after_step()
            if last < start - 1:
                self.after_step()
        if not known:  # of 0.1, and which of the values are the training's own is not known
            for name in found:
                _forget(trainer.storage, name)

    def after_step(self) -> None:
        with full_disk_as_user_error(os.path.join(self._folder, METRICS)):
            super().after_step()
            for writer in self._writers:
                if isinstance(writer, TensorboardXWriter):
                    writer._writer.flush()  # it would keep two minutes of records in memory

    def after_train(self) -> None:
        if self.trainer.iter < self.trainer.max_iter:
            # Broken off: the values are in the checkpoint, and the resumed run writes what the
            # period asks for.
            for writer in self._writers:
                writer.close()
            return
        super().after_train()

    def state_dict(self) -> dict:
        storage = getattr(self.trainer, "storage", None)
        if storage is None:
            return {}
        return {"max_iter": self.trainer.max_iter, "scalars": _state_of(storage)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Keep it until the training starts.

        Args:
            state_dict: of the interrupted run.
        """
        self._restored = state_dict

    def _continue_files(self, start: int) -> tuple[int, dict]:
        """The last iteration recorded, and what is recorded of the one before `start`."""
        path = Path(self._folder, METRICS)
        last, newest = -1, {}
        if start == 0:
            set_metrics_aside(path)
        else:
            prolonged = self._restored.get("max_iter", start) == start < self.trainer.max_iter
            records = cut_metrics(path, start, keep_evaluation=prolonged)
            last = max((r["iteration"] for r in records if r["iteration"] < start), default=-1)
            for record in records:
                if record["iteration"] == start - 1:
                    newest.update(record)
        for writer in self._writers:
            if isinstance(writer, JSONWriter):
                writer._file_handle.close()  # of the file that was replaced
                writer._file_handle = path.open("a")
                writer._last_write = last
            elif isinstance(writer, TensorboardXWriter):
                writer._last_write = last
                _purge(writer, last + 1)
        return last, {k: v for k, v in newest.items() if k not in (*_TIMES, "iteration")}


def cut_metrics(path: Path, start: int, *, keep_evaluation: bool = False) -> list[dict]:
    """Leave out what a run that goes on at iteration `start` records again, and torn lines.

    Args:
        path: of metrics.json; may be missing.
        start: iterations that were done.
        keep_evaluation: keep that after the last iteration of a run that had ended there.

    Returns:
        the training's records that stay.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    kept, records = [], []
    for line in lines:
        record = _parse(line)
        if record is None:
            continue
        iteration = record.get("iteration")
        if isinstance(iteration, int) and "checkpoint" not in record:  # else of --eval-only
            is_final = iteration == start and "total_loss" not in record
            if iteration >= start and not (is_final and keep_evaluation):
                continue
            records.append(record)
        kept.append(line)
    if kept != lines:
        logger.info(
            "%s: %d of %d lines are left out: the run goes on at iteration %d, or they are torn",
            path,
            len(lines) - len(kept),
            len(lines),
            start,
        )
        with full_disk_as_user_error(path):
            write_atomically(path, lambda file: file.writelines(kept), mode="wb", durable=True)
    return records


def append_record(path: Path, record: dict) -> None:
    """Write a record in a line of its own, also where a kill has torn the last one.

    Args:
        path: of metrics.json; may be missing.
        record: of numbers and texts.
    """
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record, sort_keys=True).encode() + b"\n")


def set_metrics_aside(path: Path) -> None:
    """Rename the records of a training that left no checkpoint to metrics.json.1 and so on.

    Args:
        path: of metrics.json; may be missing. One with evaluations only stays.
    """
    if not path.exists():
        return
    records = map(_parse, path.read_bytes().splitlines(keepends=True))
    if all(record is not None and "checkpoint" in record for record in records):
        return
    number = 1
    while path.with_name(f"{path.name}.{number}").exists():
        number += 1
    path.replace(path.with_name(f"{path.name}.{number}"))


def _parse(line: bytes) -> dict | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _purge(writer: TensorboardXWriter, step: int) -> None:
    """Have TensorBoard leave out what earlier event files say of `step` and what follows.

    It is what torch's `SummaryWriter` does with `purge_step`.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    event_file = writer._writer.file_writer
    event_file.add_event(Event(step=step, file_version="brain.Event:2"))
    event_file.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


def _state_of(storage: EventStorage) -> dict:
    smoothed, latest = storage.smoothing_hints(), storage.latest()
    return {
        name: {
            "values": [list(pair) for pair in history.values()[-_WINDOW:]],
            "latest": list(latest[name]),
            "smoothed": smoothed[name],
        }
        for name, history in storage.histories().items()
        if name in latest and name not in _TIMES
    }


def _forget(storage: EventStorage, name: str) -> None:
    """Whoever puts the value says anew whether it is smoothed."""
    for values in (storage._history, storage._latest_scalars, storage._smoothing_hints):
        values.pop(name, None)


def _restore(storage: EventStorage, state: dict) -> None:
    for name, scalar in state.items():
        for value, iteration in scalar["values"]:
            storage._history[name].update(value, iteration)
        storage._latest_scalars[name] = tuple(scalar["latest"])
        storage._smoothing_hints[name] = scalar["smoothed"]


@contextlib.contextmanager
def _at_iteration(trainer, iteration: int) -> Iterator[None]:
    """As if the trainer were there."""
    trainer.iter = trainer.storage.iter = iteration
    yield
    trainer.iter = trainer.storage.iter = iteration + 1
