"""Whole training steps: stock Detectron2 against ours, forward and backward, random weights."""

import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

import iou_balanced

from .detectors import IOU, PLAIN, load_model, make_objects
from .timing import alternate, peak_memory

COLUMNS = ["detector", "losses", "ms", "CPU ms", "time", "95% interval", "peak MiB"]
DETECTORS = ("retinanet", "fcos", "faster_rcnn")


def make_batch(args) -> list[dict]:
    """Random images of `size` x 5/3 `size`, as 800 x 1333 is, with objects."""
    height, width = args.size, args.size * 5 // 3
    batch = []
    for instances in make_objects(args.images, args.size, args.objects):
        instances._image_size = (height, width)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "height": height, "width": width})
    return batch


def make_step(model, batch, args):
    def step():
        model.zero_grad(set_to_none=True)
        dtype = None if args.amp is None else getattr(torch, args.amp)
        with torch.autocast(args.device, dtype=dtype, enabled=dtype is not None):
            losses = model(batch)
        sum(losses.values()).backward()

    return step


def rows(args) -> list[list]:
    """The table, in the order of `COLUMNS`."""
    table = []
    for detector in args.detectors or DETECTORS:
        models, steps = {}, {}
        changes = {"Detectron2's": None, "plain": PLAIN, "IoU-balanced": IOU}
        torch.manual_seed(0)
        batch = make_batch(args)
        for name, change in changes.items():
            config = load_model(detector)
            if change is not None:
                iou_balanced.balance(config, **change)
            torch.manual_seed(0)
            models[name] = instantiate(config).to(args.device).train()
            steps[name] = make_step(models[name], batch, args)
        with EventStorage():
            timings = alternate(steps, args.repeats, args.device, warm_up=1)
            peaks = {}
            for name, step in steps.items():
                models[name].zero_grad(set_to_none=True)
                peaks[name] = peak_memory(step, args.device)
                models[name].zero_grad(set_to_none=True)
        base = timings["Detectron2's"]
        for name, t in timings.items():
            ratios, peak = [t.ratio(base), t.ratio_interval(base)], peaks[name] / 2**20
            table.append([detector, name, t.median, t.cpu, *ratios, peak])
    return table
