"""Time and memory of loading and checking a COCO JSON file of COCO's size; images are not opened.

python tools/benchmark_data.py [--against PROJECTS] [--repeats 3] [--output FILE]

PROJECTS is the folder `projects` of another version: both then run alternately, each time in a
process of its own, and ratios are printed. The data set is synthetic and made anew: 118,287 images
and 860,001 boxes of 80 classes, as in train2017, with polygons of eight points.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tabulate import tabulate

NUM_IMAGES, NUM_BOXES, NUM_CLASSES = 118_287, 860_001, 80
PROJECTS = Path(__file__).resolve().parents[1] / "projects"

# What a training does before its first batch: register, load, and check what was loaded.
MEASURED = """
import json, sys, time
from detectron2.data import DatasetCatalog
from iou_balanced.data import register_coco_json

def peak():  # not getrusage's, which starts at what the parent process had
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

base, start, cpu = peak(), time.perf_counter(), time.process_time()
name = register_coco_json(name="big", json_file=sys.argv[1], image_root=sys.argv[2])
dicts = DatasetCatalog.get(name)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
boxes = sum(len(d["annotations"]) for d in dicts)
result = {"s": seconds, "cpu_s": cpu, "MiB": peak() - base, "images": len(dicts), "boxes": boxes}
print(json.dumps(result))
"""


def make(folder: Path, num_images: int, num_boxes: int) -> tuple[Path, Path]:
    """Write the JSON file and empty image files; returns the file and the images' folder."""
    rng = np.random.default_rng(0)
    images_folder = folder / "images"
    images_folder.mkdir()
    images = []
    for i in range(1, num_images + 1):
        name = f"{i:012d}.jpg"
        (images_folder / name).touch()
        images.append({"id": i, "file_name": name, "height": 480, "width": 640})
    owner = np.sort(rng.integers(1, num_images + 1, num_boxes)).tolist()
    corner = (rng.random((num_boxes, 2)) * [500, 340]).round(2).tolist()
    sides = (rng.random((num_boxes, 2)) * 120 + 10).round(2).tolist()
    classes = rng.integers(1, NUM_CLASSES + 1, num_boxes).tolist()
    annotations = []
    for k, (image, (x, y), (w, h), category) in enumerate(
        zip(owner, corner, sides, classes, strict=True), start=1
    ):
        polygon = [x, y, x + w / 2, y, x + w, y, x + w, y + h / 2]
        polygon += [x + w, y + h, x + w / 2, y + h, x, y + h, x, y + h / 2]
        annotations.append(
            {
                "id": k,
                "image_id": image,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(k % 86 == 0),
                "segmentation": [[round(v, 2) for v in polygon]],
            }
        )
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, NUM_CLASSES + 1)]
    path = folder / "annotations.json"
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data))
    return path, images_folder


def measure(projects: Path, json_file: Path, images: Path) -> dict:
    """One run in a process of its own: seconds, MiB above the imports, images, boxes."""
    environment = {**os.environ, "PYTHONPATH": str(projects), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, str(json_file), str(images)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="folder `projects` of another version")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=NUM_IMAGES)
    parser.add_argument("--boxes", type=int, default=NUM_BOXES)
    parser.add_argument("--output", type=Path, help="JSON file for the record")
    args = parser.parse_args()
    versions = {"this": PROJECTS}
    if args.against is not None:
        versions["other"] = args.against.resolve()
    runs: dict[str, list[dict]] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder), args.images, args.boxes)
        for _ in range(args.repeats):
            for name, projects in versions.items():
                runs[name].append(measure(projects, *files))
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in ("s", "cpu_s", "MiB")}
        for name, found in runs.items()
    }
    rows = [
        [
            name,
            *(median[name][key] for key in ("s", "cpu_s", "MiB")),
            min(run["cpu_s"] for run in runs[name]),
            max(run["cpu_s"] for run in runs[name]),
            *(runs[name][0][key] for key in ("images", "boxes")),
        ]
        for name in versions
    ]
    headers = ["version", "s", "CPU s", "MiB above imports", "least CPU s", "most CPU s"]
    headers += ["images", "boxes"]
    print(tabulate(rows, headers, tablefmt="pipe", floatfmt=".2f"))
    if "other" in median:
        for key, what in (("s", "time"), ("cpu_s", "CPU time"), ("MiB", "memory")):
            print(f"{what}, this over other: {median['this'][key] / median['other'][key]:.3f}")
    if args.output is not None:
        record = {
            "benchmark": "loading a COCO JSON file",
            "images": args.images,
            "boxes": args.boxes,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "runs": runs,
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
