"""Processes and Python environments apart from the one that runs the tests."""

import importlib.util
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import torch.multiprocessing


def clean_env(**changes):
    """This process's environment without PYTHONPATH, which might bring another Detectron2."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**env, **{key: str(value) for key, value in changes.items()}}


def run(*command, check=True, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def run_fork(script, *arguments, env, cwd, timeout=300):
    """What `subprocess.run([python, script, *arguments], capture_output=True, text=True)` gives.

    The script starts in a copy of this process, which has imported everything.

    Args:
        env: what changes in the environment.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdout", "stderr")]
        process = context.Process(target=_run_script, args=(script, arguments, streams, env, cwd))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired([script, *arguments], timeout)
        return subprocess.CompletedProcess(
            [script, *arguments], process.exitcode, *(x.read_text() for x in streams)
        )


def _run_script(script, arguments, streams, env, cwd):
    for fd, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), fd)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [script, *arguments]
    start = torch.multiprocessing.start_processes
    torch.multiprocessing.start_processes = lambda *args, **kwargs: start(
        *args, **{**kwargs, "start_method": "fork"}
    )
    runpy.run_path(script, run_name="__main__")


def fresh_environment(folder, hidden, pip=True):
    """A new environment that has everything of this one except the packages `hidden`.

    Symbolic links into this environment's packages stand for an installation of torch, which
    would take gigabytes. Returns (its python, its site-packages).
    """
    links = folder / "links"
    links.mkdir()
    packages = Path(importlib.util.find_spec("torch").origin).parent.parent
    detectron2 = Path(importlib.util.find_spec("detectron2").origin).parent
    for entry in [*packages.iterdir(), detectron2]:
        link = links / entry.name
        left_out = entry.name.startswith((*hidden, "unearth", "pip", "__"))
        if not (left_out or entry.suffix == ".pth" or link.is_symlink()):
            link.symlink_to(entry)
    run(sys.executable, "-m", "venv", folder / "venv", *([] if pip else ["--without-pip"]))
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (site / "links.pth").write_text(f"{links}\n")
    return folder / "venv" / "bin" / "python", site
