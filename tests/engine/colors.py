"""Images of one color each with one object, and a detector that tells the colors at once.

Its classifier has a row for each class and nothing before it: trained for a second, or with rows
set by hand, it finds every object, so that AP is 100 where classes go by their names.
"""

import json
from argparse import Namespace
from itertools import count
from pathlib import Path

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from PIL import Image
from torch import nn

from ..voc_files import write_voc

CONFIG = str(Path(__file__).parent / "colors_config.py")
COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
}
ORDER = ["red", "green", "blue"]
OTHER = ["blue", "red", "green"]
LISTS = "'red', 'green', 'blue'.*'blue', 'red', 'green'"  # a pattern: both, in a message
BOX = (4, 4, 12, 12)  # XYXY, of the object in each image
_names = count()


class Colors(nn.Module):
    """One detection for each image: `BOX`, with the class of the highest score."""

    def __init__(self, *, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.cls_score = nn.Linear(3, num_classes)
        self.bbox_pred = nn.Linear(3, 4)

    def forward(self, inputs: list[dict]):
        means = torch.stack([x["image"].float().mean(dim=(1, 2)) / 255 for x in inputs])
        logits = self.cls_score(means)
        if self.training:
            labels = torch.cat([x["instances"].gt_classes for x in inputs])
            loss = nn.functional.cross_entropy(logits, labels)
            return {"loss_cls": loss + 0 * self.bbox_pred(means).sum()}
        return [{"instances": _instances(x, row)} for x, row in zip(inputs, logits, strict=True)]


@META_ARCH_REGISTRY.register()
class YamlColors(Colors):
    """`Colors` of a yaml config."""

    def __init__(self, cfg):
        super().__init__(num_classes=cfg.MODEL.RETINANET.NUM_CLASSES)


def _instances(x: dict, logits: torch.Tensor) -> Instances:
    result = Instances((x["height"], x["width"]))
    result.pred_boxes = Boxes(torch.tensor([BOX], dtype=torch.float32))
    result.scores, result.pred_classes = logits.softmax(dim=0).max(dim=0, keepdim=True)
    return result


def knows(classes, model=None) -> Colors:
    """A detector with the given classes in this order, trained."""
    model = Colors(num_classes=len(classes)) if model is None else model
    with torch.no_grad():
        values = torch.tensor([COLORS[name.strip().lower()] for name in classes]) / 127.5 - 1
        model.cls_score.weight.copy_(10 * values)
        model.cls_score.bias.copy_(-10 * (values > 0).sum(dim=1))  # black is no color at all
    return model


def write_images(folder: Path, colors, copies: int = 2) -> dict[str, str]:
    """{file name: color}."""
    files = {f"{color}{i}.png": color for color in colors for i in range(copies)}
    for file, color in files.items():
        Image.new("RGB", (16, 16), COLORS[color.strip().lower()]).save(folder / file)
    return files


def coco_set(folder: Path, classes, split: str, *, copies: int = 2) -> list[str]:
    """Overrides for a COCO file with these classes, in this order."""
    files = write_images(folder, classes, copies)
    x0, y0, x1, y1 = BOX
    data = {
        "images": [
            {"id": i, "file_name": file, "width": 16, "height": 16}
            for i, file in enumerate(files, start=1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + classes.index(color),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            for i, color in enumerate(files.values(), start=1)
        ],
    }
    name = f"colors_{split}_{next(_names)}"
    json_file = folder / f"{name}.json"
    json_file.write_text(json.dumps(data))
    return [
        f"datasets.{split}._target_=iou_balanced.data.register_coco_json",
        f"datasets.{split}.name={name}",
        f"datasets.{split}.json_file={json_file}",
        f"datasets.{split}.image_root={folder}",
    ]


def voc_set(folder: Path, colors, split: str) -> list[str]:
    """Overrides for a folder in VOC format, whose classes are sorted."""
    x0, y0, x1, y1 = BOX
    images = {color: [(color, (x0 + 1, y0 + 1, x1, y1))] for color in colors}
    write_voc(folder, images, {"all": list(images)}, size=(16, 16))
    for color in colors:
        Image.new("RGB", (16, 16), COLORS[color]).save(folder / "JPEGImages" / f"{color}.jpg")
    return [
        f"datasets.{split}._target_=iou_balanced.data.register_voc_dir",
        f"datasets.{split}.name=colors_{split}_{next(_names)}",
        f"datasets.{split}.root={folder}",
        f"datasets.{split}.split=all",
    ]


def args_for(*opts, resume=False, eval_only=False):
    """What Detectron2's argument parser gives."""
    return Namespace(
        config_file=CONFIG,
        opts=list(opts),
        resume=resume,
        eval_only=eval_only,
        num_gpus=0,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
    )


def save(file: Path, classes, *, names=True, model=None) -> str:
    """Write a checkpoint of a detector that knows `classes`; returns the path."""
    content = {"model": knows(classes, model).state_dict()}
    if names:
        content["class_names"] = list(classes)
    torch.save(content, file)
    return str(file)
