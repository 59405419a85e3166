"""Tasks over several processes, with a progress bar, in the order of the tasks."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tqdm import tqdm

__all__ = ["run_tasks"]

_shared: Any = None


def run_tasks(
    function: Callable,
    tasks: Sequence,
    *,
    make_shared: Callable[[], Any],
    processes: int = 1,
    label: str = "",
    progress: bool = False,
) -> Iterator:
    """`function(task, shared)` for each task.

    Args:
        function, tasks, make_shared: can be pickled, for more than one process.
        make_shared: called once in each process.
        processes: new ones are started for more than 1, so that a script needs its
            `if __name__ == "__main__":`.
        label: of the progress bar.
        progress: show it, on stderr.
    """
    with tqdm(total=len(tasks), desc=label, disable=not progress, leave=False) as bar:
        if processes <= 1 or len(tasks) <= 1:
            shared = make_shared()
            for task in tasks:
                yield function(task, shared)
                bar.update()
            return
        # Not forked: a process that has used a GPU or threads cannot be.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            min(processes, len(tasks)), context, initializer=_start, initargs=(make_shared,)
        )
        try:
            futures = [pool.submit(_call, function, task) for task in tasks]
            for i in range(len(futures)):
                yield futures[i].result()
                futures[i] = None  # a result is held by whoever took it
                bar.update()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(make_shared: Callable[[], Any]) -> None:
    global _shared
    # An interrupt ends the first process, which then lets these end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _shared = make_shared()


def _call(function: Callable, task):
    return function(task, _shared)
