"""A small ground truth with images, and result files."""

import json

import numpy as np
from PIL import Image

from iou_balanced.analysis import analyze

EVIL = "<script>alert('x')</script> & $x$"
NAMES = (EVIL, "dog", "bird")
SIZE = (200, 100)  # width, height
NUM_IMAGES = 8


def write_truth(folder, *, images="images"):
    """truth.json with a box of each class in every image; returns its path."""
    annotations = []
    for i in range(NUM_IMAGES):
        for k in range(len(NAMES)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + i,
                    "category_id": 1 + k,
                    "bbox": [10 + 60 * k, 20 + i, 40, 50],
                    "area": 2000,
                    "iscrowd": 0,
                }
            )
    truth = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]}
            for i in range(NUM_IMAGES)
        ],
        "categories": [{"id": 1 + k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    if images:
        (folder / images).mkdir()
        for i in range(NUM_IMAGES):
            Image.new("RGB", SIZE, (30 * i, 90, 90)).save(folder / images / f"{i}.png")
    return folder / "truth.json"


def detections(noise, *, seed=0, missing=()):
    """A detection of each object, moved by `noise` pixels in the mean."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(NUM_IMAGES):
        for k in range(len(NAMES)):
            score = float(rng.uniform(0.4, 1))
            box = np.add([10 + 60 * k, 20 + i, 40, 50], [*rng.normal(0, noise, 2), 0, 0])
            if (i, k) not in missing:
                row = {"image_id": 10 + i, "category_id": 1 + k, "score": score}
                found.append({**row, "bbox": box.round(2).tolist()})
    return found


def analysis_of(truth, runs, **options):
    """With few draws."""
    return analyze(truth, runs, draws=100, permutations=100, **options)
