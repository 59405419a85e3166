"""Whether another scorer of boxes gives the numbers of pycocotools, which is the reference."""

import contextlib
import io
from collections.abc import Callable

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

TOLERANCE = 1e-6


def largest_difference(scorer: Callable, reference: Callable = COCOeval) -> float:
    """The largest difference of any precision, recall or summary number, on a built-in set.

    The set has crowds, equal scores, areas at COCO's borders, images without objects, classes
    without detections, and more detections than count. Identifiers are whole numbers from 1 on, as
    `COCOBoxEvaluator` makes them.

    Args:
        scorer: called as `(coco_gt, coco_dt, iou_type)`, gives a `COCOeval`.
        reference: what it is compared with, likewise.

    Returns:
        In 0..1; inf where the two have other shapes, or one has a number where the other has none.
    """
    truth, detections = _built_in_set()
    found = []
    for make in (reference, scorer):
        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO()
            gt.dataset = truth
            gt.createIndex()
            scored = make(gt, gt.loadRes(detections), "bbox")
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
        arrays = (scored.eval["precision"], scored.eval["recall"], scored.stats)
        found.append([np.asarray(x, dtype=float) for x in arrays])
    largest = 0.0
    for expected, actual in zip(*found, strict=True):
        if expected.shape != actual.shape or not np.array_equal(expected < 0, actual < 0):
            return float("inf")
        largest = max(largest, float(np.abs(expected - actual).max(initial=0.0)))
    return largest


def check_parity(name: str, scorer: Callable) -> None:
    """Refuse a scorer whose numbers are not pycocotools'.

    Args:
        name: for the message.
        scorer: see `largest_difference`.

    Raises:
        ValueError: they differ by more than 1e-6.
    """
    difference = largest_difference(scorer)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"scorer={name!r} is refused: on a set of 12 images its numbers differ from those of "
            f"pycocotools, the reference, by {difference:.3g}; install another version of it, or "
            "take scorer='pycocotools'"
        )


def _built_in_set() -> tuple[dict, list[dict]]:
    rng = np.random.default_rng(0)
    num_images, num_classes = 12, 4
    annotations, detections = [], []
    for image in range(1, num_images):  # the last image has no objects
        for _ in range(int(rng.integers(1, 8))):
            x, y = rng.integers(0, 200, 2)
            # Sides of 32 and 96: areas at the borders between small, medium and large.
            width, height = rng.choice([8, 20, 32, 60, 96, 150], 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(rng.integers(1, num_classes)),
                    "bbox": [float(x), float(y), float(width), float(height)],
                    "area": float(width * height),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
    for a in annotations:
        for _ in range(int(rng.integers(0, 4))):
            box = np.array(a["bbox"]) + rng.normal(0, 4, 4).round(1)
            detections.append(_detection(a["image_id"], a["category_id"], box, rng))
    for _ in range(130):  # more than the 100 of an image and class that count
        box = np.append(rng.integers(0, 200, 2), [20, 20])
        detections.append(_detection(1, 1, box, rng))
    truth = {
        "images": [{"id": i, "width": 400, "height": 400} for i in range(1, num_images + 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, num_classes + 1)],
        "annotations": annotations,
    }
    return truth, detections


def _detection(image: int, category: int, box, rng) -> dict:
    box = [float(box[0]), float(box[1]), float(max(box[2], 1)), float(max(box[3], 1))]
    score = float(rng.integers(1, 20)) / 20  # many are equal
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}
