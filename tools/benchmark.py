#!/usr/bin/env python
"""Loss part of a training step: Detectron2's RetinaNet against ours, interleaved in one run.

Seconds depend on the machine and its load; the ratios to Detectron2 are what to quote.
"""

import argparse
import statistics
import time

import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate

import iou_balanced


def make_losses() -> dict:
    """Name -> detector; only their `losses` are called, so the backbones do not matter."""

    def build(change=None):
        model = model_zoo.get_config("common/models/retinanet.py").model
        model.backbone.bottom_up.stages.depth = 18
        del model.backbone.bottom_up.stages.stride_in_1x1
        model.backbone.top_block.in_channels = 512
        if change is not None:
            iou_balanced.balance(model, **change)
        return instantiate(model).train()

    return {
        "Detectron2": build(),
        "ours, plain losses": build(dict(eta=None, lam=None, beta=None)),
        "ours, IoU-balanced": build(dict(weight=3.049, beta=None)),
    }


def make_inputs(model, images: int, size: int, objects: int, device: str):
    """Anchors, predictions and matched labels of `images` square images."""
    generator = torch.Generator().manual_seed(0)
    strides = (8, 16, 32, 64, 128)
    features = [torch.zeros(images, 256, -(-size // s), -(-size // s)) for s in strides]
    anchors = model.anchor_generator(features)
    instances = []
    for _ in range(images):
        corner = torch.rand(objects, 2, generator=generator) * size * 0.7
        boxes = torch.cat([corner, corner + 20 + torch.rand(objects, 2) * size * 0.25], dim=1)
        x = Instances((size, size))
        x.gt_boxes, x.gt_classes = Boxes(boxes), torch.randint(0, 80, (objects,))
        instances.append(x)
    labels, boxes = model.label_anchors(anchors, instances)
    logits = [torch.randn(images, len(a), 80, generator=generator) - 4 for a in anchors]
    deltas = [torch.randn(images, len(a), 4, generator=generator) * 0.1 for a in anchors]
    return (
        [a.to(device) for a in anchors],
        [x.to(device).requires_grad_() for x in logits],
        [x.to(device) for x in labels],
        [x.to(device).requires_grad_() for x in deltas],
        [x.to(device) for x in boxes],
    )


def step(model, inputs, device: str) -> tuple[float, float]:
    """Seconds and peak GPU memory (GiB; NaN on a CPU) of one forward and backward pass."""
    cuda = device == "cuda"
    for x in (*inputs[1], *inputs[3]):
        x.grad = None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
    start = time.perf_counter()
    sum(model.losses(*inputs).values()).backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30 if cuda else float("nan")
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, default=640, help="side of the images in pixels")
    parser.add_argument("--objects", type=int, default=8, help="in each image")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()

    models = {name: model.to(args.device) for name, model in make_losses().items()}
    inputs = make_inputs(
        models["Detectron2"].cpu(), args.images, args.size, args.objects, args.device
    )
    models["Detectron2"].to(args.device)
    measured = {name: [] for name in models}
    with EventStorage():
        for repeat in range(args.repeats + 3):
            for name, model in models.items():  # interleaved: a busy machine slows all alike
                result = step(model, inputs, args.device)
                if repeat >= 3:
                    measured[name].append(result)

    base = statistics.median(t for t, _ in measured["Detectron2"])
    rows = []
    for name, results in measured.items():
        seconds = statistics.median(t for t, _ in results)
        rows.append([name, seconds * 1e3, seconds / base, base / seconds, results[-1][1]])
    anchors = sum(len(x) for x in inputs[0])
    print(
        f"{args.images} images of {args.size} px, {anchors} anchors x 80 classes, "
        f"{args.device}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    headers = ["losses, forward and backward", "ms", "of Detectron2", "times faster", "peak GiB"]
    print(tabulate(rows, headers=headers, floatfmt=("", ".1f", ".2f", ".1f", ".2f")))


if __name__ == "__main__":
    main()
