"""Runs what has not run, goes on with what broke off, and survives a run that fails."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iou_balanced.files import exclusive_lock

from . import run_files as files
from .provenance import git_commit, hardware, versions
from .runs import Run, command, rows_of_run

POLL_SECONDS = 0.5
PROGRESS = re.compile(r"eta: \S+\s+iter: \d+\s+total_loss: \S+")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: Run
    """The training."""
    status: str
    """ "finished", "was finished", "failed" or "left" to another process."""
    message: str = ""
    """Its AP and time, or why it failed; one line."""


def run_all(
    runs: Iterable[Run],
    *,
    output_dir: Path,
    root: Path,
    num_gpus: int = 1,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run each in turn, whatever becomes of the others.

    Args:
        runs: in an order in which those that others start from come first.
        output_dir: where the runs' folders are, or will be.
        root: the folder of tools/ and configs/.
        num_gpus: processes of a training.
        say: gets the lines of progress.
    """
    # A row that starts from another run's weights needs them by a path that holds everywhere.
    output_dir = Path(output_dir).absolute()
    outcomes = []
    for run in runs:
        outcome = _run_one(run, output_dir, Path(root), num_gpus, say)
        say(f"{run.name}: {outcome.status}{outcome.message and ': ' + outcome.message}")
        outcomes.append(outcome)
    return outcomes


def _run_one(run, output_dir, root, num_gpus, say) -> Outcome:
    folder = run.folder(output_dir)
    try:
        with exclusive_lock(folder / files.LOCK) as lock:
            if lock is None:
                return Outcome(run, "left", "another process runs it")
            return _run_locked(run, folder, output_dir, root, num_gpus, say, lock)
    except OSError as e:
        return Outcome(run, "failed", str(e))


def _run_locked(run, folder, output_dir, root, num_gpus, say, lock) -> Outcome:
    what = {"config": run.config, "overrides": run.overrides_in(output_dir), "seed": run.seed}
    outcome = _without_training(run, folder, output_dir, what)
    if outcome is not None:
        return outcome
    resumed = files.has_checkpoint(folder)
    words = command(run, output_dir, num_gpus=num_gpus, resume=resumed)
    git = git_commit(root)
    before = (files.read_json(folder / files.STARTED) or {}).get("attempts", []) if resumed else []
    attempts = [*before, {"started": files.now(), "git": git}]
    files.write_json(folder / files.STARTED, {**what, "attempts": attempts})
    record = {
        "rows": rows_of_run(run),
        "profile": run.profile,
        **what,
        "command": words,
        "versions": versions(),
        "git": git,
        "hardware": hardware(num_gpus),
        "attempts": attempts,
        "resumed": resumed,
    }
    say(f"{run.name}: {'goes on' if resumed else 'starts'} ({', '.join(run.rows) or 'first'})")
    begin = time.monotonic()
    ended = run_command(words, folder, root, say, lock)
    if ended.status:
        return _failed(run, folder, files.error_of(ended.output))
    record |= {"cpu_seconds": ended.cpu_seconds, "peak_memory_mib": ended.peak_memory_mib}
    return _finish(run, folder, record, round(time.monotonic() - begin, 1), ended.output)


def _without_training(run, folder, output_dir, what) -> Outcome | None:
    """How it ends where nothing is to be trained: it has finished, or cannot go on."""
    started = files.read_json(folder / files.STARTED)
    finished = files.read_json(folder / files.RECORD) is not None
    other = started is not None and {key: started.get(key) for key in what} != what
    if other and (finished or files.has_checkpoint(folder)):
        return Outcome(
            run,
            "failed",
            f"{folder} holds a run of other overrides (its {files.STARTED} has them): move it "
            "away, or give another output folder",
        )
    if finished:
        return Outcome(run, "was finished")
    if run.start is not None and not run.start.weights(output_dir).is_file():
        verb = "starts from" if run.evaluates is None else "evaluates"
        return _failed(run, folder, f"it {verb} {run.start.name}, which has not finished")
    return None


def _finish(run: Run, folder: Path, record: dict, seconds: float, output: str) -> Outcome:
    """Write the record of a training that has ended."""
    found = files.read_metrics(folder)
    if found is None:
        return _failed(run, folder, "the training ended without an evaluation")
    iteration, metrics = found
    record |= {"finished": files.now(), "seconds": seconds}
    record |= {"iteration": iteration, "metrics": metrics}
    record |= {"inference_seconds_per_image": files.read_inference_seconds(output)}
    files.write_json(folder / files.RECORD, record)
    (folder / files.FAILURE).unlink(missing_ok=True)
    return Outcome(run, "finished", f"AP {_text(metrics['AP'])} in {seconds:.0f} s")


def _failed(run: Run, folder: Path, error: str) -> Outcome:
    files.write_json(folder / files.FAILURE, {"error": error, "time": files.now()})
    output = folder / files.OUTPUT
    return Outcome(run, "failed", f"{error} ({output})" if output.is_file() else error)


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int
    """Its exit status, negative for a signal."""
    output: str
    """What it printed."""
    cpu_seconds: float | None
    """Of all its threads, and of the processes that it started and waited for; None on Windows."""
    peak_memory_mib: float | None
    """The most that it had resident at a time; None on Windows."""


def run_command(
    words: Sequence[str], folder: Path, root: Path, say: Callable[[str], None], lock: int
) -> Ended:
    """Run a Python script, tell its progress, and wait for its end.

    It prints into output.txt, and has a part in the lock: where this process is killed, it goes on,
    and nobody else starts the same.

    Args:
        words: the script and its arguments.
        folder: of output.txt.
        root: the script's working folder.
        say: gets the lines of progress.
        lock: as `exclusive_lock` gives it.
    """
    path = folder / files.OUTPUT
    keep = {"pass_fds": (lock,)} if os.name == "posix" else {}
    with open(path, "ab") as output, open(path, "rb") as reader:
        start = reader.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            [sys.executable, *words], stdout=output, stderr=subprocess.STDOUT, cwd=root, **keep
        )
        try:
            while (cost := _cost_at_end(process)) is None:
                time.sleep(POLL_SECONDS)
                _tell(reader.read(), say)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        _tell(reader.read(), say)
        reader.seek(start)
        text = reader.read().decode("utf-8", errors="replace")
        return Ended(process.returncode, text, *cost)


def _cost_at_end(process: subprocess.Popen) -> tuple[float | None, float | None] | None:
    """CPU seconds and peak memory in MiB of a process that has ended; None while it runs."""
    if os.name != "posix":
        return None if process.poll() is None else (None, None)
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss, per MiB
    return round(usage.ru_utime + usage.ru_stime, 3), round(usage.ru_maxrss / unit, 1)


def _tell(new: bytes, say: Callable[[str], None]) -> None:
    """The last progress in what was printed since."""
    found = PROGRESS.findall(new.decode("utf-8", errors="replace"))
    if found:
        say(f"  {found[-1]}")


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1f}"
