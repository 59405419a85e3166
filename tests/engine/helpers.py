"""What the tests of the engine share: a tiny data set and config, and a way to run train_net.py."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import torch

from ..environments import run_fork
from ..processes import START_METHOD

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs/Digits/retinanet_small_iou_balanced.py")
BASELINE = str(ROOT / "configs/Digits/retinanet_small.py")
# 8 scenes of 64 px: every iteration of a test takes a fraction of a second.
TINY = [
    "datasets.train.num_images=8",
    "datasets.train.image_size=64",
    "datasets.test.num_images=4",
    "datasets.test.image_size=64",
    "dataloader.train.total_batch_size=4",
    "train.reference_batch_size=null",
    "train.device=cpu",
    "train.log_period=1",
    "train.eval_period=0",
    "train.max_iter=4",
    "train.report=False",
]


def make_args(config_file=CONFIG, *, opts=(), resume=False, eval_only=False) -> Namespace:
    """What Detectron2's argument parser gives."""
    return Namespace(
        config_file=config_file,
        opts=[*TINY, *opts],
        resume=resume,
        eval_only=eval_only,
        num_gpus=1,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
    )


def train_net(*arguments, config=CONFIG, launcher=(), timeout=300):
    """Run tools/train_net.py in a process of its own, with the tiny data set.

    Args:
        launcher: the command before it, for example `[sys.executable]`. Without one the process
            and those that it starts are forks, for whom the imports are done; not with a GPU.
    """
    script = str(ROOT / "tools/train_net.py")
    arguments = ["--config-file", config, *arguments]
    changes = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    if not launcher and START_METHOD == "fork":
        return run_fork(script, *arguments, env=changes, cwd=ROOT, timeout=timeout)
    command = [*(launcher or [sys.executable]), script, *arguments]
    env = {**os.environ, **changes}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=env, cwd=ROOT
    )


def read_metrics(folder) -> dict[int, dict]:
    """metrics.json as {iteration: record}; a later record of an iteration adds to the earlier."""
    records = {}
    for line in (Path(folder) / "metrics.json").read_text().splitlines():
        record = json.loads(line)
        records.setdefault(record["iteration"], {}).update(record)
    return records


def load_checkpoint(folder, name="model_final.pth") -> dict:
    return torch.load(Path(folder) / name, weights_only=True)


def tiny_config(*opts, config_file=CONFIG):
    """The config with the tiny data set, for calls without a process."""
    from iou_balanced.engine import load_config

    return load_config(config_file, [*TINY, *opts])
