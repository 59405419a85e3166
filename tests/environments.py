"""Processes and Python environments apart from the one that runs the tests."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path


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
