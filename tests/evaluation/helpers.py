"""Small made-up data sets for the tests of this folder."""

import json
from itertools import count

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

SIZE = 400
_names = count()

BOXES = [
    [(0, 10, 10, 20, 20), (1, 100, 100, 60, 60)],  # areas 400 (small) and 3600 (medium)
    [(0, 50, 50, 120, 120)],  # area 14400 (large)
    [],
]


def unique_name(prefix="made_up"):
    return f"iou_balanced_test_{prefix}_{next(_names)}"


def coco_dict(boxes_by_image, category_ids=(3, 17), names=None, crowd=()):
    """boxes_by_image: per image a list of (class index, x, y, w, h)."""
    images, annotations = [], []
    for index, boxes in enumerate(boxes_by_image):
        image_id = 100 + index
        images.append({"id": image_id, "width": SIZE, "height": SIZE, "file_name": f"{index}.png"})
        for cls, *box in boxes:
            ann_id = len(annotations) + 1
            annotations.append(
                {
                    "id": ann_id,
                    "image_id": image_id,
                    "category_id": category_ids[cls],
                    "bbox": list(box),
                    "area": box[2] * box[3],
                    "iscrowd": int(ann_id in crowd),
                }
            )
    names = names or [f"class {i}" for i in range(len(category_ids))]
    categories = [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True)]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}


def register_json(folder, data, name=None):
    """Registers `data` as Detectron2 registers a COCO file, and returns the name."""
    name = name or unique_name()
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data))
    ids = sorted(c["id"] for c in data["categories"])
    by_id = {c["id"]: c["name"] for c in data["categories"]}
    MetadataCatalog.get(name).set(
        json_file=str(path),
        thing_classes=[by_id[i] for i in ids],
        thing_dataset_id_to_contiguous_id={i: n for n, i in enumerate(ids)},
    )
    return name


def register_dicts(records, classes):
    """Registers a data set that has no JSON file."""
    name = unique_name("dicts")
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=classes)
    return name


def instances(detections):
    """detections: (class index, score, x, y, w, h) -> Instances, as a model gives them."""
    table = torch.tensor(detections, dtype=torch.float64).reshape(-1, 6)
    boxes = table[:, 2:].clone()
    boxes[:, 2:] += boxes[:, :2]
    result = Instances((SIZE, SIZE))
    result.pred_boxes = Boxes(boxes.float())
    result.scores = table[:, 1].float()
    result.pred_classes = table[:, 0].long()
    return result


def evaluate(evaluator, detections_by_image, first_id=100, **kwargs):
    evaluator.reset()
    for index, detections in enumerate(detections_by_image):
        evaluator.process([{"image_id": first_id + index}], [{"instances": instances(detections)}])
    return evaluator.evaluate(**kwargs)


def random_scene(seed, num_images=25, num_classes=3):
    """Ground truth, and detections that are shaken copies of it among false ones."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(num_images):
        boxes, detections = [], []
        for _ in range(rng.integers(0, 9)):
            size = np.exp(rng.uniform(np.log(12), np.log(180), 2))
            corner = rng.uniform(0, SIZE - size)
            box = np.concatenate([corner, size])
            cls = int(rng.integers(num_classes))
            boxes.append((cls, *box.tolist()))
            for _ in range(rng.integers(0, 3)):
                shaken = box + rng.normal(0, 0.07, 4) * np.tile(size, 2)
                label = cls if rng.random() < 0.9 else int(rng.integers(num_classes))
                detections.append((label, rng.random(), *shaken[:2], *np.abs(shaken[2:])))
        for _ in range(rng.integers(0, 4)):
            detections.append(
                (int(rng.integers(num_classes)), rng.random() * 0.6, *rng.uniform(5, 150, 4))
            )
        truth.append(boxes)
        found.append(detections)
    return truth, found


def detections_of(data, class_of=None, score=0.9):
    """Detections equal to the ground truth."""
    class_of = class_of or {c["id"]: i for i, c in enumerate(data["categories"])}
    found = {image["id"]: [] for image in data["images"]}
    for ann in data["annotations"]:
        found[ann["image_id"]].append((class_of[ann["category_id"]], score, *ann["bbox"]))
    return list(found.values())
