"""Random data of all kinds, as columns and for pycocotools, which evaluates it."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .simulation import SIZE, make_truth


def random_data(seed, *, num_images=40, num_classes=3, crowds=0.1, ties=False, many=False):
    """(truth, (image, category, boxes, score) of detections), with empty images and classes."""
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for image in range(num_images):
        for _ in range(rng.integers(0, 6)):
            sides = np.exp(rng.uniform(np.log(10), np.log(200), 2))
            box = np.concatenate([rng.uniform(0, SIZE - sides), sides])
            k = int(rng.integers(num_classes))
            objects.append((image, k, box, rng.random() < crowds, rng.uniform(0.6, 1)))
            for _ in range(rng.integers(0, 3)):
                shaken = box + rng.normal(0, 0.08, 4) * np.tile(sides, 2)
                shaken[2:] = np.abs(shaken[2:]) + 0.1
                label = k if rng.random() < 0.9 else int(rng.integers(num_classes))
                found.append((image, label, shaken, rng.random()))
        for _ in range(130 if many and image == 1 else rng.integers(0, 4)):
            label = 0 if many else int(rng.integers(num_classes))
            found.append((image, label, rng.uniform(5, 150, 4), 0.7 * rng.random()))
    image, category, boxes, crowd, share = (np.array(x) for x in zip(*objects, strict=True))
    truth = make_truth(
        *(image, category, boxes, num_images, num_classes + 1),
        crowd=crowd,
        area=boxes[:, 2] * boxes[:, 3] * share,
    )
    columns = [np.array(x) for x in zip(*found, strict=True)]
    if ties:
        columns[3] = np.round(columns[3], 1)
    return truth, tuple(columns)


def coco_json(truth, times=None):
    """The ground truth in COCO's format, each image as often as `times` says, one after another."""
    times = np.ones(truth.num_images, int) if times is None else times
    copies = np.repeat(np.arange(truth.num_images), times)
    annotations = [
        {
            "image_id": number,
            "category_id": int(truth.category[g]) + 1,
            "bbox": truth.boxes[g].tolist(),
            "area": float(truth.area[g]),
            "iscrowd": int(truth.crowd[g]),
        }
        for number, image in enumerate(copies.tolist(), start=1)
        for g in np.flatnonzero(truth.image == image)
    ]
    return {
        "images": [
            {"id": number, "width": SIZE, "height": SIZE, "file_name": f"{number}.jpg"}
            for number in range(1, len(copies) + 1)
        ],
        "categories": [{"id": k + 1, "name": n} for k, n in enumerate(truth.class_names)],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
    }


def coco_results(detections, times):
    """Detections likewise."""
    image, category, boxes, score = detections
    copies = np.repeat(np.arange(len(times)), times)
    return [
        {
            "image_id": number,
            "category_id": int(category[d]) + 1,
            "bbox": boxes[d].tolist(),
            "score": float(score[d]),
        }
        for number, i in enumerate(copies.tolist(), start=1)
        for d in np.flatnonzero(image == i)
    ]


def pycocotools_ap(truth, detections, times=None):
    """(A, T, K) by pycocotools, NaN where a class has no object."""
    times = np.ones(truth.num_images, int) if times is None else times
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = coco_json(truth, times)
        coco.createIndex()
        results = coco.loadRes(coco_results(detections, times))
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # (T, R, K, A)
    defined = (precision > -1).all(axis=1)
    return np.where(defined, precision.mean(axis=1), np.nan).transpose(2, 0, 1)
