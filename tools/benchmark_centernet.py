#!/usr/bin/env python
"""CenterNet's training step and inference against its network alone, interleaved in one run.

The network alone is backbone, neck and heads on the same images, forward and backward from the sum
of their outputs. What a step takes beyond that is targets and losses; what inference takes beyond
it is decoding. Seconds depend on the machine and its load; the shares are what to quote.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate

CONFIGS = Path(__file__).resolve().parents[1] / "configs/COCO"


def make_batch(images: int, size: int, objects: int, num_classes: int) -> list[dict]:
    batch = []
    for _ in range(images):
        corner = torch.rand(objects, 2) * size * 0.6
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(
            torch.cat([corner, corner + 10 + torch.rand(objects, 2) * size * 0.3], dim=1)
        )
        instances.gt_classes = torch.randint(0, num_classes, (objects,))
        image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": size, "width": size})
    return batch


def run_network(model, batch):
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    return model.head([features[name] for name in model.head_in_features])


def train_network(model, batch) -> None:
    sum(x.sum() for x in run_network(model, batch)).backward()


def train_step(model, batch) -> None:
    sum(model(batch).values()).backward()


@torch.no_grad()
def infer_network(model, batch) -> None:
    run_network(model, batch)


@torch.no_grad()
def infer(model, batch) -> None:
    model(batch)


def seconds(function, model, batch, device: str) -> float:
    model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function(model, batch)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def benchmark(name: str, args) -> list[list]:
    torch.manual_seed(0)
    model = instantiate(LazyConfig.load(str(CONFIGS / f"{name}.py")).model).to(args.device)
    model.canvas = None  # images of the fixed size are given
    for module in model.modules():
        if hasattr(module, "set_class_counts"):
            module.set_class_counts(range(1, model.num_classes + 1))
            module.set_iteration(139, 140)
    batch = make_batch(args.images, args.size, args.objects, model.num_classes)
    rows = []
    for task, alone, whole in (
        ("training step", train_network, train_step),
        ("inference", infer_network, infer),
    ):
        model.train(task == "training step")
        times = {alone: [], whole: []}
        for repeat in range(args.repeats + 1):
            for function, found in times.items():  # interleaved: a busy machine slows both
                second = seconds(function, model, batch, args.device)
                if repeat:
                    found.append(second)
        network, full = (statistics.median(x) for x in times.values())
        rows.append([name, task, full * 1e3, network * 1e3, 100 * (full - network) / full])
    return rows


def main() -> None:
    names = [f"centernet_{x}_140e{y}" for x in ("MNV2", "R_18") for y in ("", "_bofl")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", default=names, help=f"of configs/COCO: {names}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--objects", type=int, default=7, help="in each image; 7 is COCO's mean")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    with EventStorage():
        rows = [row for name in args.configs for row in benchmark(name, args)]
    print(
        f"{args.images} images of {args.size} px, {args.objects} objects each, {args.device}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    headers = ["config", "", "ms", "network alone", "beyond it, %"]
    print(tabulate(rows, headers=headers, floatfmt=("", "", ".0f", ".0f", ".1f")))


if __name__ == "__main__":
    main()
