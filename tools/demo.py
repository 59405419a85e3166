#!/usr/bin/env python
"""Train the baseline and the IoU-balanced RetinaNet on the digits, and compare them.

Writes output/demo/report.html, the page of tools/analyze.py, and prints its main numbers. Minutes
on two CPU cores.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from detectron2.config import LazyConfig

from iou_balanced.analysis import Analysis, analyze
from iou_balanced.analysis.page import NUM_IMAGES, format_table, make_page
from iou_balanced.analysis.run_folder import RunFolder, read_run_folder

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "baseline": ROOT / "configs/Digits/retinanet_small.py",
    "IoU-balanced": ROOT / "configs/Digits/retinanet_small_iou_balanced.py",
}


def train(name: str, config: Path, output_dir: Path, overrides: list[str]) -> float:
    """Run tools/train_net.py, echo its progress, and return the seconds it took."""
    print(f"Training {name} ({config.relative_to(ROOT)}) ...", flush=True)
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file", str(config)]
    command += ["train.log_period=100", *overrides, f"train.output_dir={output_dir}"]
    start = time.monotonic()
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            lines.append(line)
            progress = re.search(r"eta: \S+\s+iter: \d+\s+total_loss: \S+", line)
            if progress:
                print(f"  {progress[0]}", flush=True)
    if process.returncode:
        sys.exit("".join(lines[-30:]) + f"Training {name} failed; its log is above.")
    return time.monotonic() - start


def compare(folders: dict[str, RunFolder]) -> Analysis:
    """The analysis of the last evaluation of each run, with intervals."""
    first = next(iter(folders.values()))
    runs = {name: str(folder.detections) for name, folder in folders.items()}
    return analyze(first.read_ground_truth(), runs, train_counts=first.class_counts, progress=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("output/demo"))
    parser.add_argument("--num-images", type=int, default=NUM_IMAGES, help="images on the page")
    parser.add_argument("overrides", nargs="*", help="for both trainings, as in train_net.py")
    args = parser.parse_args()

    folders, notes = {}, {}
    for name, config in RUNS.items():
        output_dir = args.output_dir / config.stem
        shutil.rmtree(output_dir, ignore_errors=True)  # of a former demo
        seconds = train(name, config, output_dir, args.overrides)
        notes[f"Training and evaluation of {name}"] = f"{seconds:.0f} s"
        folders[name] = read_run_folder(output_dir)

    cfg = LazyConfig.load(str(args.output_dir / RUNS["baseline"].stem / "config.yaml"))
    notes |= {
        "Iterations": cfg.train.max_iter,
        "Batch": cfg.dataloader.train.total_batch_size,
        "Seed": f"{cfg.train.seed} (one seed shows that it works, not by how much it gains)",
        "Device": torch.cuda.get_device_name() if cfg.train.device == "cuda" else cpu_name(),
        "torch": torch.__version__,
    }
    analysis = compare(folders)
    page = make_page(
        analysis,
        images=folders["baseline"].images,
        num_images=args.num_images,
        title="Digits: RetinaNet with plain and with IoU-balanced losses",
        notes=notes,
        trainings={name: folder.metrics for name, folder in folders.items()},
    )
    path = page.write(args.output_dir)[0]
    analysis.write(args.output_dir)
    print(format_table(analysis))
    print(analysis.verdict[0])
    print(f"Report: {path}")


def cpu_name() -> str:
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


if __name__ == "__main__":
    main()
