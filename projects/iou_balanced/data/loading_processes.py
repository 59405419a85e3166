"""Processes that load images leave it to their parent when they end."""

import os
import signal
import threading

__all__ = ["leave_signals_to_the_parent"]


def leave_signals_to_the_parent(worker_id: int = 0) -> None:
    """In a process that loads: only its parent ends it.

    A scheduler, or Ctrl-C, reaches all processes of a job; the one that trains finishes its
    iteration, for which it needs the images.

    Args:
        worker_id: of torch's `DataLoader`; any.
    """
    for name in ("SIGINT", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS: a SIGTERM to it ends the training
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()


def _end_when_the_parent_says_so() -> None:
    while True:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if sender == os.getppid():
            os._exit(0)
