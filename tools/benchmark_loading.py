"""What exactness costs: time of loading training images, and of writing a checkpoint.

python tools/benchmark_loading.py [--against PROJECTS] [--workers 2] [--images 2000] [--repeats 5]
    [--parameters 30000000] [--output FILE]

Loading: digits of 128 px through the mapper of a config, by another version, whose folder
`projects` is PROJECTS, and by this one, alternately, each time in a process of its own.
Checkpoint: `torch.save` with a flush to disk, and ours, alternately. CPU seconds are of the
process and those that load for it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn

from iou_balanced.engine.checkpoint import Checkpointer

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = ROOT / "projects"

LOADING = """
import itertools, json, resource, sys, time
from iou_balanced.engine import load_config
from iou_balanced.engine.loader import build_train_loader, read_train_dataset

config, workers, images = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cfg = load_config(config, [f"dataloader.train.num_workers={workers}", "train.device=cpu",
    "datasets.train.num_images=200", "dataloader.train.aspect_ratio_grouping=true",
    "dataloader.train.total_batch_size=4", "train.seed=0"])
dataset = read_train_dataset(cfg)
loader = iter(build_train_loader(cfg, 0, dataset))
list(itertools.islice(loader, 2 * workers + 2))  # the workers are there

def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in
               (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

start, used = time.perf_counter(), cpu()
for _ in range(images // 4):
    next(loader)
wall = time.perf_counter() - start
del loader  # so that the children's time counts
print(json.dumps({"s": wall, "cpu_s": cpu() - used}))
"""


def load(projects: Path, workers: int, images: int) -> dict:
    """Seconds of loading `images` images in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(projects), "OMP_NUM_THREADS": "1"}
    config = str(ROOT / "configs/Digits/retinanet_small.py")
    command = [sys.executable, "-W", "ignore", "-c", LOADING, config, str(workers), str(images)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


class _State:
    def __init__(self, model: nn.Module):
        self.content = {f"{i}": torch.zeros_like(p) for i, p in enumerate(model.parameters())}

    def state_dict(self) -> dict:
        return self.content

    def load_state_dict(self, state: dict) -> None:
        self.content = state


def save_plainly(content: dict, path: Path) -> None:
    """The least that reaches the disk."""
    with path.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def measure_checkpoints(folder: Path, parameters: int, repeats: int) -> dict[str, list[dict]]:
    """Seconds of writing weights and as much state of an optimizer, alternately."""
    model = nn.Linear(1000, parameters // 1000, bias=False)
    state = _State(model)
    checkpointer = Checkpointer(model, str(folder), optimizer=state)
    content = {"model": model.state_dict(), "optimizer": state.state_dict(), "iteration": 1}
    ways = {
        "torch.save and fsync": lambda: save_plainly(content, folder / "plain.pth"),
        "checkpoint": lambda: checkpointer.save("model_0000001", iteration=1),
    }
    runs: dict[str, list[dict]] = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name in list(ways)[:: 1 if i % 2 else -1]:
            start, cpu = time.perf_counter(), time.process_time()
            ways[name]()
            found = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
            if i:  # the first is to get warm
                runs[name].append(found)
    return runs


def table(runs: dict[str, list[dict]]) -> str:
    """Medians, least values, and the ratios of the second to the first."""
    rows = []
    for name, found in runs.items():
        values = [[run[key] for run in found] for key in ("s", "cpu_s")]
        rows.append([name, *(f(x) for x in values for f in (statistics.median, min))])
    headers = ["way", "s", "least s", "CPU s", "least CPU s"]
    text = tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f")
    (_, *first), (_, *second) = rows
    pairs = zip(headers[1:], first, second, strict=True)
    ratios = ", ".join(f"{header} {b / a:.3f}" for header, a, b in pairs)
    return f"{text}\nratio: {ratios}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, help="folder `projects` of another version")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=30_000_000)
    parser.add_argument("--output", type=Path, help="JSON file for the record")
    args = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    record = {"machine": machine, "torch": torch.__version__}
    if args.against is not None:
        runs: dict[str, list[dict]] = {"other": [], "this": []}
        for i in range(args.repeats):
            for name in list(runs)[:: 1 if i % 2 else -1]:
                projects = PROJECTS if name == "this" else args.against.resolve()
                runs[name].append(load(projects, args.workers, args.images))
        print(f"{args.images} images, {args.workers} workers\n{table(runs)}")
        record["loading"] = runs
    with tempfile.TemporaryDirectory(dir=".") as folder:
        runs = measure_checkpoints(Path(folder), args.parameters, args.repeats)
    print(f"a checkpoint of {args.parameters / 1e6:g} million parameters\n{table(runs)}")
    record["checkpoint"] = runs
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
