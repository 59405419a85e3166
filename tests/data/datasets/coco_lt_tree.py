"""A small COCO train2017 in the official layout, with objects of all classes in its images."""

import json
import random
from pathlib import Path

from detectron2.data import MetadataCatalog

from iou_balanced.data.datasets.coco_lt_profile import coco_lt_targets

from ..conftest import coco_box

SCALE = 0.01


def small_coco(scale=SCALE, num_images=600):
    """Twice what the profile wants at `scale`, crowd regions, and persons in most images."""
    rng = random.Random(0)
    classes = MetadataCatalog.get("coco_2017_val").thing_dataset_id_to_contiguous_id
    targets = coco_lt_targets(scale)
    categories = [{"id": i, "name": list(targets)[k]} for i, k in classes.items()]
    # Category ids have gaps, image ids are in no order, annotation ids need 64 bits: as in COCO.
    image_ids = rng.sample(range(10**6), num_images)
    size = {"width": 40, "height": 30}
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "license": 3, **size} for i in image_ids]
    objects = [("person", i, 0) for i in image_ids[:200]]
    for name, target in targets.items():
        number = 10 if target is None else 2 * target + 1
        objects += [(name, rng.choice(image_ids), 0) for _ in range(number)]
        objects += [(name, rng.choice(image_ids), 1) for _ in range(2)]
    rng.shuffle(objects)
    category_ids = {c["name"]: c["id"] for c in categories}
    annotations = [
        coco_box(number, image, category_ids[name], iscrowd=crowd)
        for number, (name, image, crowd) in zip(
            rng.sample(range(10**12), len(objects)), objects, strict=True
        )
    ]
    info = {"description": "a small COCO"}
    return {
        "info": info,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def write_coco(root, data, name="instances_train2017.json") -> Path:
    """Write `data` as annotations/`name`, with files of no content for its images."""
    for folder in ("train2017", "val2017", "annotations"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    folder = "val2017" if "val" in name else "train2017"
    for image in data["images"]:
        (root / folder / image["file_name"]).touch()
    path = root / "annotations" / name
    path.write_text(json.dumps(data))
    return path
