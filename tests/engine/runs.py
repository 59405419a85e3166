"""Runs that are broken off and resumed, and the comparison of what they leave."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iou_balanced.engine import main

from .helpers import CONFIG, ROOT, TINY

DIGITS = ROOT / "configs/Digits"


def shapes_set(folder: Path) -> Path:
    """A COCO file of ten wide or high images of noise, with an object of a class each."""
    images, annotations = [], []
    for i in range(10):
        width, height = (64, 32) if i % 3 else (32, 64)
        pixels = np.random.RandomState(i).randint(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
        box = {"id": i + 1, "image_id": i, "bbox": [4, 6, 16, 18], "area": 288, "iscrowd": 0}
        annotations.append({**box, "category_id": 1 + i})
    categories = [{"id": 1 + k, "name": str(k)} for k in range(10)]
    file = folder / "shapes.json"
    data = {"images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(data))
    return file


def entries(value, path="") -> dict:
    """{dotted path: leaf} of a checkpoint."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {path: value}
    return {k: v for name, x in items for k, v in entries(x, f"{path}.{name}").items()}


def differing(one: Path, other: Path, name: str = "model_final.pth") -> list[str]:
    """Entries of two runs' checkpoints that are not the same to the last bit."""
    first, second = (entries(torch.load(f / name, weights_only=True)) for f in (one, other))
    assert len(first) > 20
    found = sorted(set(first) ^ set(second))
    for key in set(first) & set(second):
        a, b = first[key], second[key]
        both = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        same = torch.equal(a, b) if both else a == b or (a != a and b != b)
        found += [] if same else [key]
    return found


def records(folder: Path) -> list[dict]:
    """metrics.json by iteration, without what depends on the machine, NaN as a word."""
    lines = (folder / "metrics.json").read_text().splitlines()
    times = ("time", "data_time", "eta_seconds", "rank_data_time")
    found = [json.loads(line, parse_constant=str) for line in lines]
    found.sort(key=lambda record: record["iteration"])
    return [{k: v for k, v in record.items() if k not in times} for record in found]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def start(args) -> int:
    """Run `main` in a forked process, which need not import everything again; returns its id."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            main(args)
            code = 0
        except SystemExit as e:
            code = e.code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return process


def end_of(process: int) -> int:
    """Wait for it; its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_until(
    condition, process: int | subprocess.Popen | None = None, seconds: float = 600
) -> None:
    """Until it holds; the process, a child of this one, must not end before.

    One of `popen` is ended, with those that it has started, where the waiting is in vain.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            if isinstance(process, subprocess.Popen):
                os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError("waited in vain")
        if isinstance(process, subprocess.Popen):
            assert process.poll() is None, f"it has ended: {process.stderr.read()[-2000:]}"
        elif process is not None:
            assert os.waitpid(process, os.WNOHANG)[0] == 0, "it has ended"
        time.sleep(0.02)


def last_iteration(folder: Path) -> int:
    """The last one in metrics.json, -1 for none."""
    path = folder / "metrics.json"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["iteration"] if lines else -1


def popen(*opts, flags=(), launcher=(sys.executable,), config=CONFIG) -> subprocess.Popen:
    """tools/train_net.py with the tiny data set, under way; stderr is piped."""
    command = [*launcher, str(ROOT / "tools/train_net.py"), "--config-file", config, *flags]
    return subprocess.Popen(
        [*command, *TINY, *opts],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_gone(folder: Path) -> bool:
    """Whether no process has the folder in its command line."""
    return subprocess.run(["pgrep", "-f", str(folder)], capture_output=True).returncode == 1
