"""What targets, losses and decoding take of CenterNet's training step and inference.

The parts are timed by themselves, interleaved in one run: the network (backbone, neck and heads,
forward and backward); targets and losses on its predictions, with their gradient; decoding; and
the counting that gradient accumulation adds. The share is that of the part in the sum of it and
the network; all of it is processor time on a CPU. Milliseconds depend on the machine and its load;
the shares are what to quote.
"""

from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from iou_balanced.losses import ClassBalance
from iou_balanced.modeling.centernet.head import CenterNetPredictions

from .timing import alternate

CONFIGS = Path(__file__).resolve().parents[2] / "configs/COCO"
CONFIG_NAMES = [f"centernet_{x}_140e{y}" for x in ("MNV2", "R_18") for y in ("", "_bofl")]
COLUMNS = ["config", "part", "ms", "network, ms", "share, %"]


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


class Parts:
    """The parts of a step, each by itself; predictions and gradients are those of a real step."""

    def __init__(self, model, batch):
        self.model, self.batch = model, batch
        self.images = model.preprocess_image(batch)
        self.size = tuple(self.images.tensor.shape[-2:])
        self.predictions = [x.detach().requires_grad_() for x in self.network()]
        self.objects = [x["instances"].to(model.device) for x in batch]
        self.targets_and_losses()
        self.gradients = [x.grad for x in self.predictions]

    def network(self):
        features = self.model.backbone(self.images.tensor)
        return self.model.head([features[name] for name in self.model.head_in_features])

    def network_and_gradient(self):
        torch.autograd.backward(self.network(), self.gradients)

    def targets_and_losses(self):
        for x in self.predictions:
            x.grad = None
        predictions = CenterNetPredictions(*self.predictions)
        losses = self.model.forward_training(self.images, [], predictions, self.objects)
        sum(losses.values()).backward()

    def count(self):
        self.model.count_positives(self.batch)

    @torch.no_grad()
    def inference_network(self):
        self.network()

    @torch.no_grad()
    def decode(self):
        self.model.forward_inference(self.images, [], CenterNetPredictions(*self.predictions))


def benchmark(name: str, args) -> list[list]:
    torch.manual_seed(0)
    model = instantiate(LazyConfig.load(str(CONFIGS / f"{name}.py")).model).to(args.device)
    for module in model.modules():
        if isinstance(module, ClassBalance):
            module.set_class_counts(range(1, model.num_classes + 1))
            module.set_iteration(139, 140)
    parts = Parts(model.train(), make_batch(args.images, args.size, args.objects, 80))
    pairs = {  # what is timed, and the network that it is compared with
        "targets and losses": (parts.targets_and_losses, parts.network_and_gradient, True),
        "counting for accumulation": (parts.count, parts.network_and_gradient, True),
        "decoding": (parts.decode, parts.inference_network, False),
    }
    steps = {}
    for part, (function, network, training) in pairs.items():
        for name_of, called in ((part, function), (f"{part}, network", network)):
            steps[name_of] = _in_mode(model, training, called)
    timings = alternate(steps, args.repeats, args.device, warm_up=1)
    rows = []
    for part in pairs:
        own, network = (timings[x].cost(args.device) for x in (part, f"{part}, network"))
        rows.append([name, part, own, network, 100 * own / (own + network)])
    return rows


def _in_mode(model, training: bool, function):
    def step():
        model.train(training)
        model.zero_grad(set_to_none=True)
        function()

    return step


def rows(args) -> list[list]:
    """The table, in the order of `COLUMNS`."""
    with EventStorage():
        return [row for name in CONFIG_NAMES for row in benchmark(name, args)]
