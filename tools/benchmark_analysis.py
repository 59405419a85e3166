#!/usr/bin/env python
"""Time and memory of an analysis of two runs, against one evaluation with pycocotools.

    python tools/benchmark_analysis.py --output benchmarks/records/analysis.json

Two made-up runs over 5,000 images with 100 detections each, 80 classes whose frequencies fall as
1 / rank. Memory is the resident memory of all processes together, so that shared pages count
more than once. "2,000 evaluations" is what an interval of one difference would take with
pycocotools: two runs, 1,000 draws.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIZE = 640


def make_files(folder: Path, num_images: int, per_image: int, num_classes: int) -> list[Path]:
    """Ground truth and two result files."""
    rng = np.random.default_rng(0)
    per_class = 1 / np.arange(1, num_classes + 1)
    per_class /= per_class.sum()
    num_objects = rng.poisson(7.3, num_images)
    image = np.repeat(np.arange(num_images), num_objects)
    category = rng.choice(num_classes, len(image), p=per_class)
    sides = np.exp(rng.uniform(np.log(10), np.log(300), (len(image), 2)))
    boxes = np.concatenate([rng.uniform(0, SIZE - sides), sides], axis=1)
    truth = {
        "images": [
            {"id": i + 1, "width": SIZE, "height": SIZE, "file_name": f"{i}.jpg"}
            for i in range(num_images)
        ],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(num_classes)],
        "annotations": [
            {
                "id": g + 1,
                "image_id": int(image[g]) + 1,
                "category_id": int(category[g]) + 1,
                "bbox": boxes[g].round(2).tolist(),
                "area": float(0.7 * sides[g].prod()),
                "iscrowd": int(rng.random() < 0.01),
            }
            for g in range(len(image))
        ],
    }
    paths = [folder / name for name in ("truth.json", "plain.json", "balanced.json")]
    paths[0].write_text(json.dumps(truth))
    for path, noise in zip(paths[1:], (0.08, 0.07), strict=True):
        copies = rng.integers(1, 4, len(image))
        source = np.repeat(np.arange(len(image)), copies)
        shake = noise * rng.standard_normal((len(source), 4)) * np.tile(sides[source], 2)
        near = boxes[source] + shake
        wrong = rng.random(len(source)) < 0.1
        classes = np.where(wrong, rng.choice(num_classes, len(source)), category[source])
        scores = rng.beta(4, 3, len(source))
        missing = np.maximum(per_image - np.bincount(image[source], minlength=num_images), 0)
        other = np.repeat(np.arange(num_images), missing)
        corner = rng.uniform(0, 450, (len(other), 2))
        false = np.concatenate([corner, rng.uniform(10, 180, (len(other), 2))], axis=1)
        columns = (
            np.concatenate([image[source], other]) + 1,
            np.concatenate([classes, rng.choice(num_classes, len(other), p=per_class)]) + 1,
            np.concatenate([np.maximum(near, 1.0), false]).round(2),
            np.concatenate([scores, rng.beta(1, 6, len(other))]).round(5),
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        keys = ("image_id", "category_id", "bbox", "score")
        path.write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    return paths


def resident_mib(pid: int) -> float:
    """Of a process and all that it started."""
    total = 0.0
    pending = [pid]
    while pending:
        current = pending.pop()
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(f"/proc/{current}/status").read_text().splitlines()
            total += next(int(x.split()[1]) for x in lines if x.startswith("VmRSS")) / 1024
            for task in Path(f"/proc/{current}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
    return total


def measure(command: list[str]) -> tuple[float, float, float]:
    """(seconds, CPU seconds, most MiB of all processes) of a command."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        most, done = [0.0], threading.Event()

        def watch():
            while not done.wait(0.1):
                most[0] = max(most[0], resident_mib(process.pid))

        thread = threading.Thread(target=watch)
        thread.start()
        process.wait()
        done.set()
        thread.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, most[0]


def evaluate_once(truth: Path, results: Path) -> tuple[float, float]:
    """(seconds, CPU seconds) of one evaluation with pycocotools, reading included."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    start, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(None):
        ground_truth = COCO(str(truth))
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="of each image, about")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file for the record")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), args.images, args.detections, args.classes)
        command = [sys.executable, str(ROOT / "tools/analyze.py"), str(paths[0])]
        command += [f"plain={paths[1]}", f"balanced={paths[2]}", "--output-dir", f"{folder}/report"]
        command += ["--draws", str(args.draws), "--processes", str(args.processes)]
        for name, permutations in (("without permutations", 0), ("all", args.draws)):
            seconds, cpu, most = measure([*command, "--permutations", str(permutations)])
            rows.append([f"analysis, {name}", round(seconds, 1), round(cpu, 1), round(most)])
            print(*rows[-1], flush=True)
        once, cpu = evaluate_once(paths[0], paths[1])
    rows.append(["one evaluation with pycocotools", round(once, 1), round(cpu, 1), "-"])
    number = 2 * args.draws
    rows.append([f"{number:,} of these", round(number * once, 1), round(number * cpu, 1), "-"])
    # Of CPU seconds, which a machine's other work changes less.
    ratio = round(number * cpu / rows[0][2], 1)
    print(
        *(" ".join(map(str, row)) for row in rows[-2:]),
        f"{ratio} times the CPU time of the first",
        sep="\n",
    )
    if args.output is not None:
        record = {
            "name": "analysis",
            "date": date.today().isoformat(),
            "hardware": f"CPU, {args.processes} processes of one thread, {os.cpu_count()} cores",
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "settings": f"{args.images} images, {args.detections} detections each, "
            f"{args.classes} classes, {args.draws} draws",
            "ratio": ratio,
            "columns": ["what", "seconds", "CPU seconds", "MiB in all processes"],
            "rows": rows,
        }
        args.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
