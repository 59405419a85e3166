"""A folder like Cityscapes', made small."""

import json
from pathlib import Path

from PIL import Image

SIZE = (256, 128)  # width, height
ROAD = ("road", [[0, 0], [255, 0], [255, 127], [0, 127]])


def rectangle(label, x, y, width, height, **more):
    """An object whose polygon covers the pixels of the box XYWH, and no others."""
    x1, y1 = x + width - 1, y + height - 1  # a polygon's points belong to it
    return {"label": label, "polygon": [[x, y], [x1, y], [x1, y1], [x, y1]], **more}


def polygons(objects, size=SIZE):
    """The content of a polygon file, on a road that fills the image."""
    return {
        "imgWidth": size[0],
        "imgHeight": size[1],
        "objects": [{"label": ROAD[0], "polygon": ROAD[1]}, *objects],
    }


def make_cityscapes(root, split, images) -> Path:
    """Write `images`, {"aachen_000000_000019": [object, ...]}, as the official archives unpack."""
    root = Path(root)
    for stem, objects in images.items():
        city = stem.split("_")[0]
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / split / city).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
        polygon_file(root, split, stem).write_text(json.dumps(polygons(objects)))
    (root / "license.txt").write_text("what the archives hold beside the folders")
    return root


def polygon_file(root, split, stem) -> Path:
    return Path(root) / f"gtFine/{split}/{stem.split('_')[0]}/{stem}_gtFine_polygons.json"


# Of each kind of object one; what is expected of them stands in test_cityscapes_polygons.py.
STREET = [
    rectangle("car", 10, 20, 40, 40),
    rectangle("car", 40, 20, 40, 40),  # hides a quarter of the first
    rectangle("person", 100, 10, 20, 60),
    rectangle("pole", 100, 10, 10, 60),  # hides the person's left half, and is no instance
    rectangle("car", 10, 20, 70, 40, deleted=1),
    rectangle("license plate", 50, 40, 20, 10),
    rectangle("rider", 150, 50, 10, 30),
    rectangle("bicycle", 150, 90, 20, 10),
    rectangle("vegetation", 145, 85, 30, 20),  # hides the whole bicycle
    rectangle("persongroup", 180, 40, 50, 60),
    rectangle("persongroup", 0, 100, 10, 20),
    rectangle("caravan", 60, 90, 10, 10),  # has instances, but is none of the 8 classes
    {"label": "truck", "polygon": [[240, 100], [300, 100], [300, 150], [240, 150]]},
]
TRAIN = {
    "bochum_000000_000313": [{"label": "bus", "polygon": [[10, 10], [50, 10], [10, 50]]}],
    "aachen_000001_000019": [],
    "aachen_000000_000019": STREET,
}
VAL = {
    "lindau_000000_000019": [
        rectangle("car", 10, 10, 40, 40),
        rectangle("car", 100, 10, 40, 40),
        rectangle("rider", 200, 10, 20, 40),
    ],
    "frankfurt_000000_000294": [
        rectangle("person", 120, 60, 10, 40),
        rectangle("persongroup", 0, 60, 40, 40),
        rectangle("persongroup", 200, 60, 40, 40),
    ],
}
