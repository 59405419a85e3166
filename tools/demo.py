#!/usr/bin/env python
"""Train the baseline and the IoU-balanced RetinaNet on the digits, and compare them.

Writes output/demo/report.html, and prints the table. Minutes on two CPU cores.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate

from iou_balanced.evaluation import (
    Run,
    format_comparison,
    load_ground_truth,
    write_comparison_report,
)

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


def load_run(name: str, output_dir: Path) -> Run:
    """The metrics of the last evaluation in metrics.json, and the boxes behind them."""
    records = [json.loads(line) for line in (output_dir / "metrics.json").open()]
    metrics = [record for record in records if "bbox/AP" in record][-1]
    boxes = {key: value for key, value in metrics.items() if key.startswith("bbox/")}
    detections = json.loads((output_dir / "inference/coco_instances_results.json").read_text())
    return Run(name, boxes, detections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, default=Path("output/demo"))
    parser.add_argument("--num-images", type=int, default=4, help="images in the report")
    parser.add_argument("overrides", nargs="*", help="for both trainings, as in train_net.py")
    args = parser.parse_args()

    runs, notes = [], {}
    for name, config in RUNS.items():
        output_dir = args.output_dir / config.stem
        shutil.rmtree(output_dir, ignore_errors=True)  # of a former demo
        seconds = train(name, config, output_dir, args.overrides)
        notes[f"Training and evaluation of {name}"] = f"{seconds:.0f} s"
        runs.append(load_run(name, output_dir))

    cfg = LazyConfig.load(str(args.output_dir / RUNS["baseline"].stem / "config.yaml"))
    ground_truth = load_ground_truth(instantiate(cfg.datasets.test))
    folder = os.path.dirname(ground_truth_file(cfg))
    images = {
        image["id"]: os.path.join(folder, "images", os.path.basename(image["file_name"]))
        for image in ground_truth.loadImgs(sorted(ground_truth.imgs)[: args.num_images])
    }
    notes |= {
        "Iterations": cfg.train.max_iter,
        "Batch": cfg.dataloader.train.total_batch_size,
        "Seed": f"{cfg.train.seed} (one seed shows that it works, not by how much it gains)",
        "Device": torch.cuda.get_device_name() if cfg.train.device == "cuda" else cpu_name(),
        "Versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
    path = write_comparison_report(
        args.output_dir / "report.html",
        runs,
        coco_gt=ground_truth,
        images=images,
        title="Digits: RetinaNet with plain and with IoU-balanced losses",
        notes=notes,
    )
    print(format_comparison(runs))
    print(f"Report: {path}")


def ground_truth_file(cfg) -> str:
    """The annotation file of the test set."""
    from detectron2.data import MetadataCatalog

    return MetadataCatalog.get(instantiate(cfg.datasets.test)).json_file


def cpu_name() -> str:
    return f"CPU, {os.cpu_count()} cores ({platform.machine()})"


if __name__ == "__main__":
    main()
