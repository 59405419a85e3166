"""Focal losses by themselves, forward and backward: ours beside those of other packages."""

import sys
import warnings

import torch
import torch.nn.functional as F
from fvcore.nn import sigmoid_focal_loss as fvcore_loss
from fvcore.nn import sigmoid_focal_loss_jit as fvcore_jit
from torchvision.ops import sigmoid_focal_loss as torchvision_loss

from iou_balanced.losses import iou_balanced_focal_loss, sigmoid_focal_loss

from .timing import alternate, peak_memory, slope

COLUMNS = ["loss", "ms", "spread", "CPU ms", "of fvcore", "of compiled fvcore", "peak / logits"]
COMPILED = "fvcore, compiled, targets given"


class Inputs:
    """Logits, labels and what the losses weigh with, of R anchors in one image each."""

    def __init__(self, anchors: int, classes: int, device: str, dtype, share: float = 0.01):
        generator = torch.Generator().manual_seed(0)
        rows = max(anchors // 2, 1)
        logits = torch.randn(2, rows, classes, generator=generator) - 4
        self.logits = logits.to(device, dtype).requires_grad_()
        labels = torch.full((2, rows), classes)
        draw = torch.rand(2, rows, generator=generator)
        positive = draw < share
        labels[positive] = torch.randint(0, classes, (int(positive.sum()),), generator=generator)
        labels[draw > 0.99] = -1
        self.labels, self.classes = labels.to(device), classes
        self.num_positives = int(positive.sum())
        self.iou = torch.rand(self.num_positives, generator=generator).to(device)
        self.table = (torch.rand(2, classes, generator=generator) + 0.5).to(device)
        self.targets = None

    def dense(self):
        """Logits and one-hot targets of the rows that count, as Detectron2 makes them."""
        valid = self.labels >= 0
        targets = F.one_hot(self.labels[valid], self.classes + 1)[:, :-1]
        return self.logits[valid], targets.to(self.logits.dtype)

    def given(self):
        """The same with targets that were made before, and are not paid for."""
        if self.targets is None:
            self.targets = F.one_hot(self.labels.clamp(min=0), self.classes + 1)[..., :-1].to(
                self.logits.dtype
            )
        return self.logits, self.targets


def peers(x: Inputs) -> dict:
    """Name -> loss, of other packages."""
    settings = {"alpha": 0.25, "gamma": 2.0, "reduction": "sum"}
    compiled = torch.compile(lambda logits, y: fvcore_loss(logits, y, **settings))
    return {
        "fvcore": lambda: fvcore_loss(*x.dense(), **settings),
        "fvcore, jit": lambda: fvcore_jit(*x.dense(), **settings),
        "torchvision": lambda: torchvision_loss(*x.dense(), **settings),
        COMPILED: lambda: compiled(*x.given()),
    }


def ours(x: Inputs, backend: str) -> dict:
    """Name -> loss, of one of our backends."""
    plain = {"num_positives": x.num_positives, "backend": backend}
    balanced, weighted = {"backend": backend}, {"class_weight": x.table}
    return {
        f"ours, {backend}, plain": lambda: sigmoid_focal_loss(x.logits, x.labels, **plain),
        f"ours, {backend}, IoU-balanced": lambda: iou_balanced_focal_loss(
            x.logits, x.labels, x.iou, **balanced
        ),
        f"ours, {backend}, class weights": lambda: sigmoid_focal_loss(
            x.logits, x.labels, **plain, **weighted
        ),
        f"ours, {backend}, both": lambda: iou_balanced_focal_loss(
            x.logits, x.labels, x.iou, **balanced, **weighted
        ),
    }


def left_out(name: str, step) -> bool:
    """Whether the first call fails, or falls back to another backend; says so."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="iou_balanced: ")
            step()
    except Exception as e:  # of a compiler, anything
        line = (str(e).strip() or type(e).__name__).splitlines()[0]
        print(f"{name}: left out: {line}", file=sys.stderr)
        return True
    return False


def forward_and_backward(x: Inputs, loss):
    def step():
        x.logits.grad = None
        loss().backward()

    return step


def rows(args) -> list[list]:
    """The table, in the order of `COLUMNS`."""
    x = Inputs(args.anchors, args.classes, args.device, getattr(torch, args.dtype))
    steps = {name: forward_and_backward(x, loss) for name, loss in peers(x).items()}
    if left_out(COMPILED, steps[COMPILED]):
        del steps[COMPILED]
    for backend in args.backends:
        own = {name: forward_and_backward(x, loss) for name, loss in ours(x, backend).items()}
        name, first = next(iter(own.items()))
        steps |= {} if left_out(name, first) else own
    timings = alternate(steps, args.repeats, args.device)
    size = x.logits.numel() * x.logits.element_size()
    others = [timings.get(name) for name in ("fvcore", COMPILED)]
    table = []
    for name, t in timings.items():
        x.logits.grad = None
        cost = t.cost(args.device)
        ratios = [cost / other.cost(args.device) if other else "-" for other in others]
        peak = peak_memory(steps[name], args.device) / size
        table.append([name, t.median, t.spread, t.cpu, *ratios, peak])
    return table


def slopes(args) -> list[list]:
    """How the cost of ours grows: log-log slopes against anchors, classes and positives."""
    anchors, classes = args.anchors, args.classes
    kinds = {
        "anchors": [(anchors // d, classes, 0.01) for d in (4, 2, 1)],
        "classes": [(anchors, max(classes // d, 1), 0.01) for d in (4, 2, 1)],
        "positives": [(anchors, classes, s) for s in (0.001, 0.01, 0.1)],
    }
    table = []
    for backend in args.backends:
        x = Inputs(8, classes, args.device, getattr(torch, args.dtype))
        name, loss = next(iter(ours(x, backend).items()))
        if left_out(name, forward_and_backward(x, loss)):
            continue
        for place, (kind, settings) in enumerate(kinds.items()):
            inputs = [
                Inputs(r, k, args.device, getattr(torch, args.dtype), s) for r, k, s in settings
            ]
            steps = {
                str(i): forward_and_backward(x, ours(x, backend)[f"ours, {backend}, IoU-balanced"])
                for i, x in enumerate(inputs)
            }
            timings = alternate(steps, args.repeats, args.device).values()
            sizes = [setting[place] for setting in settings]
            table.append([backend, kind, slope(sizes, [t.cost(args.device) for t in timings])])
    return table
