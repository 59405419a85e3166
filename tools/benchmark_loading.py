"""What exactness costs: time of loading training images, and of writing a checkpoint.

python tools/benchmark_loading.py [--workers 2] [--images 1000] [--repeats 5]
    [--parameters 30000000] [--output FILE]

Loading: digits of 128 px through the mapper of a config, by Detectron2's loader and by ours, with
batches of one aspect ratio. Checkpoint: `torch.save` with a flush to the disk, and ours. Both ways
run alternately. CPU seconds are of the process and of those that load for it.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from tabulate import tabulate
from torch import nn

from iou_balanced.data.stream import build_stream_loader
from iou_balanced.engine import load_config
from iou_balanced.engine.checkpoint import Checkpointer
from iou_balanced.engine.loader import read_train_dataset

ROOT = Path(__file__).resolve().parents[1]
BATCH = 4


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def alternate(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[dict]]:
    """Seconds of each call; which comes first changes each time, and a first round gets warm."""
    runs: dict[str, list[dict]] = {name: [] for name in ways}
    for i in range(repeats + 1):
        for name in list(ways)[:: 1 if i % 2 else -1]:
            start, cpu = time.perf_counter(), cpu_seconds()
            ways[name]()
            found = {"s": time.perf_counter() - start, "cpu_s": cpu_seconds() - cpu}
            if i:
                runs[name].append(found)
    return runs


def measure_loading(workers: int, images: int, repeats: int) -> dict[str, list[dict]]:
    """Seconds of loading `images` images, from the start of the workers to their end."""
    overrides = ["train.device=cpu", "datasets.train.num_images=200"]
    cfg = load_config(str(ROOT / "configs/Digits/retinanet_small.py"), overrides)
    dataset, mapper = read_train_dataset(cfg), instantiate(cfg.dataloader.train.mapper)
    kwargs = {"mapper": mapper, "total_batch_size": BATCH, "num_workers": workers}

    def take(loader) -> None:
        for _ in itertools.islice(loader, images // BATCH):
            pass

    return alternate(
        {
            "Detectron2's loader": lambda: take(build_detection_train_loader(dataset, **kwargs)),
            "ours": lambda: take(build_stream_loader(dataset, seed=0, **kwargs)),
        },
        repeats,
    )


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
    return alternate(ways, repeats)


def table(runs: dict[str, list[dict]]) -> str:
    """Medians, least values, and the ratios of the second to the first.

    On a busy machine the median of the ratios of two calls after each other says most.
    """
    rows = []
    for name, found in runs.items():
        values = [[run[key] for run in found] for key in ("s", "cpu_s")]
        rows.append([name, *(f(x) for x in values for f in (statistics.median, min))])
    headers = ["way", "s", "least s", "CPU s", "least CPU s"]
    text = tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f")
    (_, *first), (_, *second) = rows
    pairs = zip(headers[1:], first, second, strict=True)
    ratios = ", ".join(f"{header} {b / a:.3f}" for header, a, b in pairs)
    both = list(zip(*runs.values(), strict=True))
    each = [[b[key] / a[key] for a, b in both] for key in ("s", "cpu_s")]
    paired = ", ".join(
        f"{name} {statistics.median(x):.3f} ({min(x):.3f} to {max(x):.3f})"
        for name, x in zip(("s", "CPU s"), each, strict=True)
    )
    return f"{text}\nratio: {ratios}\nmedian of {len(both)} ratios: {paired}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parameters", type=int, default=30_000_000)
    parser.add_argument("--output", type=Path, help="JSON file for the record")
    args = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    record = {"machine": machine, "torch": torch.__version__}
    runs = measure_loading(args.workers, args.images, args.repeats)
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
