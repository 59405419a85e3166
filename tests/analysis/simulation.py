"""Simulated detectors: objects and false boxes that they share, boxes and scores of their own."""

import numpy as np

from iou_balanced.analysis import Detections, GroundTruth
from iou_balanced.analysis.matching import match

SIZE = 400.0


def draw_scene(rng, num_images, rates, *, noises=(0.08, 0.08), num_seeds=1, seed_spread=0.0):
    """Ground truth, and what each detector's trainings find in it.

    Args:
        rates: objects of each class in an image, in the mean.
        noises: of each detector's boxes, in shares of their sides. With equal ones the true
            differences of all metrics are 0.
        num_seeds: trainings of each detector.
        seed_spread: spread of the logarithm of a training's noise.

    Returns:
        (truth, for each detector its `Matches` for each training).
    """
    truth = draw_truth(rng, num_images, rates)
    num_objects = len(truth.image)
    # Some images are hard for every detector; some objects are seen by none.
    hard = rng.gamma(4, 1 / 4, num_images)[truth.image]
    seen = rng.random(num_objects) < 0.85
    shared = rng.normal(size=(num_objects, 4))
    false_image = np.repeat(np.arange(num_images), rng.poisson(2 * np.sum(rates), num_images))
    share = np.asarray(rates) / np.sum(rates)
    number = len(false_image)
    false_category = rng.choice(len(rates), number, p=share)
    false_boxes = np.concatenate(
        [rng.uniform(0, 300, (number, 2)), rng.uniform(10, 100, (number, 2))], axis=1
    )
    luck = rng.beta(1, 4, number)
    detectors = []
    for noise in noises:
        trainings = []
        for _ in range(num_seeds):
            own = rng.normal(size=(num_objects, 4))
            scale = noise * np.exp(seed_spread * rng.normal()) * hard
            shake = (0.8 * shared + 0.6 * own) * scale[:, None]
            found = truth.boxes + shake * np.tile(truth.boxes[:, 2:], 2)
            found[:, 2:] = np.maximum(found[:, 2:], 1.0)
            quality = np.exp(-4 * np.abs(shake).mean(axis=1))
            columns = (
                np.concatenate([truth.image[seen], false_image]),
                np.concatenate([truth.category[seen], false_category]),
                np.concatenate([found[seen], false_boxes]),
                np.concatenate(
                    [(quality * rng.beta(6, 2, num_objects))[seen], luck * rng.beta(8, 2, number)]
                ),
            )
            trainings.append(match(truth, Detections.from_columns(*columns, len(rates))))
        detectors.append(trainings)
    return truth, detectors


def draw_truth(rng, num_images, rates):
    """Objects without crowds."""
    counts = rng.poisson(rates, (num_images, len(rates)))
    image = np.repeat(np.arange(num_images), counts.sum(axis=1))
    category = np.concatenate([np.repeat(np.arange(len(rates)), row) for row in counts])
    sides = np.exp(rng.uniform(np.log(16), np.log(160), (len(image), 2)))
    boxes = np.concatenate([rng.uniform(0, SIZE - sides), sides], axis=1)
    return make_truth(image, category, boxes, num_images, len(rates))


def make_truth(image, category, boxes, num_images, num_classes, *, crowd=None, area=None):
    """Columns as ground truth; image i has the id i + 1, class k the category k + 1."""
    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    crowd = np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool)
    return GroundTruth(
        path="simulated",
        image_ids=list(range(1, num_images + 1)),
        file_names=[f"{i + 1}.jpg" for i in range(num_images)],
        image_sizes=np.full((num_images, 2), SIZE),
        class_names=[f"class {k}" for k in range(num_classes)],
        category_ids=list(range(1, num_classes + 1)),
        image=np.asarray(image, dtype=np.int64),
        category=np.asarray(category, dtype=np.int64),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3] if area is None else np.asarray(area, float),
        crowd=crowd,
        ignored=crowd,
    )
