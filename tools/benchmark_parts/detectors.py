"""Loss part of a training step: Detectron2's detectors against ours, interleaved in one run.

Seconds depend on the machine and its load; the ratios are what to quote. Where Detectron2 has no
such detector, the first row is ours with plain losses.
"""

import functools
from pathlib import Path

import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

import iou_balanced
from iou_balanced.losses import BalanceOriented, ConstantSchedule, PenaltyReducedFocalLoss

from .timing import alternate, peak_memory

DETECTORS = ("retinanet", "fcos", "foveabox", "ssd300", "faster_rcnn", "heatmap")
COLUMNS = ["detector", "losses", "ms", "spread", "time", "peak memory"]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NUM_CLASSES = 80
PLAIN = dict(eta=None, lam=None, beta=None)
IOU = dict(weight=3.0, beta=None)
BOFL = L(BalanceOriented)(
    eta=0.8,
    class_counts=list(range(1, NUM_CLASSES + 1)),
    schedule=L(ConstantSchedule)(),  # the weights in force at once
)


def load_model(detector: str):
    """The LazyConfig of a detector; only its `losses` are called, so weights do not matter."""
    if detector in ("ssd300", "foveabox"):
        return LazyConfig.load(str(CONFIGS / f"common/models/{detector}.py")).model
    if detector == "faster_rcnn":
        model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
        for key in ("mask_in_features", "mask_pooler", "mask_head"):
            del model.roi_heads[key]  # the objects here have no masks
        return model
    model = model_zoo.get_config(f"common/models/{detector}.py").model
    if detector == "fcos":
        model.head.norm = ""  # v0.6 fails with the zoo's GN; a head takes no part here
    return model


def make_models(detector: str) -> dict:
    """Name -> what has `losses`: the detector, or the box head of an R-CNN."""
    in_detectron2 = detector not in ("ssd300", "foveabox")
    changes = {"Detectron2": None} if in_detectron2 else {}
    changes |= {
        "ours, plain losses": PLAIN,
        "ours, IoU-balanced": IOU,
        "ours, BOFL": PLAIN | dict(class_balance=BOFL),
        "ours, both": IOU | dict(class_balance=BOFL),
    }
    models = {}
    for name, change in changes.items():
        model = load_model(detector)
        if change is not None:
            iou_balanced.balance(model, **change)
        model = instantiate(model).train()
        for module in model.modules():
            if isinstance(module, BalanceOriented):
                module.set_iteration(0, 1)
        models[name] = model.roi_heads.box_predictor if detector == "faster_rcnn" else model
    return models


def make_objects(images: int, size: int, objects: int) -> list[Instances]:
    instances = []
    for _ in range(images):
        corner = torch.rand(objects, 2) * size * 0.7
        boxes = torch.cat([corner, corner + 20 + torch.rand(objects, 2) * size * 0.25], dim=1)
        x = Instances((size, size))
        x.gt_boxes, x.gt_classes = Boxes(boxes), torch.randint(0, NUM_CLASSES, (objects,))
        instances.append(x)
    return instances


def make_dense_inputs(models: dict, images: int, size: int, objects: int, device: str):
    """Arguments of each dense detector's `losses`; predictions are shared.

    Returns:
        Name -> arguments; the tensors that get gradients, logits first; and a line about them.
    """
    model = list(models.values())[-1]
    with torch.no_grad():
        maps = model.backbone.eval()(torch.zeros(1, 3, size, size))
    features = [maps[name].expand(images, -1, -1, -1) for name in model.head_in_features]
    anchors = model.anchor_generator(features)
    instances = make_objects(images, size, objects)
    columns = NUM_CLASSES + (type(model).__name__ == "SSD")
    shape = [(images, len(a)) for a in anchors]
    logits = [(torch.randn(*s, columns, device=device) - 4).requires_grad_() for s in shape]
    # Of any sign but for FCOS, whose distances are positive.
    is_fcos = hasattr(model, "compute_ctrness_targets")
    deltas = [torch.randn(*s, 4, device=device) * 0.1 + is_fcos for s in shape]
    deltas = [x.requires_grad_() for x in deltas]
    more = [[torch.randn(*s, 1, device=device) for s in shape]] if is_fcos else []
    arguments = {}
    for name, model in models.items():
        # In the form that this class gives: v0.6 has Boxes where others have tensors.
        labels, boxes = model.label_anchors(anchors, instances)
        on_device = ([x.to(device) for x in values] for values in (anchors, labels, boxes))
        own_anchors, labels, boxes = on_device
        arguments[name] = (own_anchors, logits, labels, deltas, boxes, *more)
        model._gt_classes = [x.gt_classes for x in instances]  # which `forward` would set
    about = f"{sum(len(x) for x in anchors)} anchors x {columns} classes"
    return arguments, logits, deltas, about


def make_head_inputs(models: dict, images: int, size: int, objects: int, device: str):
    """The same for box heads: 512 proposals an image, a quarter of them positive."""
    proposals = make_objects(images, size, 512)
    for x in proposals:
        x.proposal_boxes = Boxes(x.gt_boxes.tensor + torch.randn(512, 4) * 3)
        x.gt_classes[128:] = NUM_CLASSES
    for head in models.values():
        head.gt_classes = [x.gt_classes[:objects] for x in proposals]
    rows = images * 512
    logits = torch.randn(rows, NUM_CLASSES + 1, device=device, requires_grad=True)
    deltas = (torch.randn(rows, NUM_CLASSES * 4, device=device) * 0.1).requires_grad_()
    arguments = ((logits, deltas), [x.to(device) for x in proposals])
    about = f"{rows} proposals x {NUM_CLASSES + 1} classes"
    return dict.fromkeys(models, arguments), [logits], [deltas], about


def run(model, arguments, leaves) -> None:
    for x in leaves:
        x.grad = None
    sum(model.losses(*arguments).values()).backward()


class HeatMapLoss:
    """A loss of heat maps in the form of a detector's `losses`."""

    def __init__(self, loss):
        self.loss = loss

    def losses(self, pred_logits, gt_heatmap, class_weight) -> dict:
        return {"loss": self.loss(pred_logits, gt_heatmap, class_weight)}


def authors_focal_loss(pred_logits, gt_heatmap, class_weight):
    """As CornerNet and CenterNet compute it: by autograd, from the clamped sigmoid."""
    p = pred_logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    is_center = gt_heatmap.eq(1).float()
    positive = (1 - p) ** 2 * p.log() * is_center
    negative = (1 - gt_heatmap) ** 4 * p**2 * (1 - p).log() * (1 - is_center)
    return -(positive + negative).sum()


def benchmark_heat_maps(args) -> list[list]:
    """CenterNet's classification loss on maps of a fourth of the images' size."""
    side = args.size // 4
    logits = torch.randn(args.images, NUM_CLASSES, side, side, device=args.device) - 4
    heatmap = torch.rand_like(logits) ** 8 * (torch.rand_like(logits) < 0.05)
    heatmap[:, :: max(NUM_CLASSES // args.objects, 1), side // 2, side // 2] = 1
    table = torch.rand(args.images, NUM_CLASSES, device=args.device) + 0.5
    ours = PenaltyReducedFocalLoss()
    models = {
        "authors' formula": HeatMapLoss(authors_focal_loss),
        "ours, plain losses": HeatMapLoss(lambda x, y, w: ours(x, y)),
        "ours, BOFL": HeatMapLoss(lambda x, y, w: ours(x, y, class_weight=w)),
    }
    arguments = (logits.requires_grad_(), heatmap, table)
    about = f"maps {NUM_CLASSES} x {side} x {side}"
    return report("heatmap", models, dict.fromkeys(models, arguments), [logits], [], about, args)


def benchmark(detector: str, args) -> list[list]:
    """The rows of one detector, in the order of `COLUMNS`."""
    torch.manual_seed(0)
    if detector == "heatmap":
        return benchmark_heat_maps(args)
    size = 300 if detector == "ssd300" else args.size
    models = make_models(detector)
    make_inputs = make_head_inputs if detector == "faster_rcnn" else make_dense_inputs
    arguments, logits, deltas, about = make_inputs(
        models, args.images, size, args.objects, args.device
    )
    models = {name: model.to(args.device).train() for name, model in models.items()}
    return report(detector, models, arguments, logits, deltas, about, args)


def report(detector, models, arguments, logits, deltas, about: str, args) -> list[list]:
    """Measure `losses` of each model."""
    leaves = [*logits, *deltas]
    steps = {name: functools.partial(run, m, arguments[name], leaves) for name, m in models.items()}
    with EventStorage():
        timings = alternate(steps, args.repeats, args.device)
        peaks = {}
        for name, step in steps.items():
            for x in leaves:
                x.grad = None
            peaks[name] = peak_memory(step, args.device)
    first = next(iter(timings.values()))
    unit = sum(x.numel() * x.element_size() for x in logits)
    print(f"{detector}: {about}")
    return [
        [
            detector,
            name,
            t.median,
            t.spread,
            t.cost(args.device) / first.cost(args.device),
            peaks[name] / unit,
        ]
        for name, t in timings.items()
    ]


def rows(args) -> list[list]:
    """The table, in the order of `COLUMNS`."""
    return [row for detector in args.detectors or DETECTORS for row in benchmark(detector, args)]
