"""A run that is asked to stop finishes its iteration, writes a checkpoint, and says so.

A scheduler sends SIGTERM or SIGUSR1 some time before it ends a job, a person SIGINT (Ctrl-C). It
may reach one of the processes or all, and their parent, which starts them, or not.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from .class_names import on_every_process
from .periodic_checkpointer import PeriodicCheckpointer

__all__ = ["EXIT_CODE", "StopHook", "Stopped", "stop_before_training", "stop_signals"]

logger = logging.getLogger(__name__)

EXIT_CODE = 75
"""Of every process of a run that was asked to stop and can be resumed: EX_TEMPFAIL of sysexits.h,
a failure after which to try again."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_APART = 1.0
"""Seconds below which two signals are one: that of a group of processes, sent on by the parent."""


class Stopped(SystemExit):
    """The run was asked to stop, and a checkpoint is written."""

    def __init__(self):
        super().__init__(EXIT_CODE)


class _Request:
    """What a process was asked: by a signal, or by its parent."""

    def __init__(self):
        self.process = os.getpid()
        self.number: int | None = None
        self.time = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a process that loads images
            return
        if self.number is None:
            self.number, self.time = number, time.monotonic()
            name = signal.Signals(number).name
            text = f"{name}: an iteration under way is finished and a checkpoint written; a second "
            os.write(2, f"{text}signal ends the run at once\n".encode())
        elif time.monotonic() - self.time >= _APART:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self.process, number)


asked_by_parent = None
"""In a process that `launch` has started: a shared number, by which its parent asks it to stop."""
_request: _Request | None = None


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """In the block, the first signal is only noted, for a `StopHook`; the second ends the process.

    Outside the main thread nothing changes, nor in another such block.
    """
    global _request
    is_noted = _request is not None and _request.process == os.getpid()
    if is_noted or threading.current_thread() is not threading.main_thread():
        yield
        return
    _request = _Request()
    before = {number: signal.signal(number, _request.receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _request = None


def is_asked() -> bool:
    """Whether this process was asked to stop."""
    by_signal = _request is not None and _request.number is not None
    return by_signal or (asked_by_parent is not None and bool(asked_by_parent.value))


def stop_before_training() -> None:
    """End, where any process was asked to stop while the data were read and the model built.

    Raises:
        Stopped: it was; there is nothing to save.
    """
    if is_asked_of_any():
        logger.info("Stopped before the first iteration: --resume starts there")
        raise Stopped


def is_asked_of_any() -> bool:
    """Whether one of all processes was asked to stop; to be called by all of them."""
    asked = is_asked()
    if comm.get_world_size() == 1:
        return asked
    flag = torch.tensor([int(asked)])
    dist.all_reduce(flag, dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return bool(flag)


class StopHook(HookBase):
    """Ends the training after an iteration in which any of its processes was asked to.

    It belongs behind the checkpointer and before the evaluation, which the resumed run makes up
    for. A training in its last iteration ends as it is.

    Args:
        checkpointer: of the main process; None on the others.

    Raises:
        Stopped: by `after_step`, on every process, with the checkpoint written.
    """

    def __init__(self, checkpointer: PeriodicCheckpointer | None):
        self._checkpointer = checkpointer

    def after_step(self) -> None:
        """Write a checkpoint and end, where any process was asked to.

        Raises:
            Stopped: it was.
        """
        iteration = self.trainer.iter
        if iteration + 1 >= self.trainer.max_iter or not is_asked_of_any():
            return
        with on_every_process():
            if self._checkpointer is not None:
                self._checkpointer.save_now(iteration)
        logger.info("Stopped after iteration %d: --resume goes on with it", iteration)
        raise Stopped


@contextlib.contextmanager
def pass_on(asked, processes) -> Iterator[None]:
    """In a process that only waits for others: the first signal is handed on, the second ends them.

    Args:
        asked: what the others have as `asked_by_parent`.
        processes: of multiprocessing.
    """
    request = _Request()

    def receive(number: int, frame: FrameType | None) -> None:
        is_second = request.number is not None and time.monotonic() - request.time >= _APART
        if is_second:
            for process in processes:
                process.kill()
        asked.value = 1
        request.receive(number, frame)

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
