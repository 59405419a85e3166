"""Simulated detectors, whose true AP is known from a large test set."""

import numpy as np

from iou_balanced.analysis import Detections, GroundTruth
from iou_balanced.analysis.matching import match

SIZE = 400.0


def draw_scene(rng, num_images, rates, seeds=(0.0, 0.0), sharp=(0.07, 0.09)):
    """Ground truth, and the detections of two detectors that share most of their mistakes.

    Args:
        rates: objects of each class in an image, in the mean.
        seeds: how far each detector's training was off by luck; raises its noise.
        sharp: noise of the boxes of each detector, in shares of their sides.
    """
    counts = rng.poisson(rates, (num_images, len(rates)))
    image = np.repeat(np.arange(num_images), counts.sum(axis=1))
    category = np.concatenate([np.repeat(np.arange(len(rates)), row) for row in counts])
    sides = np.exp(rng.uniform(np.log(16), np.log(160), (len(image), 2)))
    boxes = np.concatenate([rng.uniform(0, SIZE - sides), sides], axis=1)
    # Some images are hard for every detector.
    hard = rng.gamma(4, 1 / 4, num_images)
    nothing = np.zeros(len(image), bool)
    truth = GroundTruth(
        path="simulated",
        image_ids=list(range(num_images)),
        file_names=[""] * num_images,
        image_sizes=np.full((num_images, 2), SIZE),
        class_names=[f"class {k}" for k in range(len(rates))],
        category_ids=list(range(len(rates))),
        image=image,
        category=category,
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=nothing,
        ignored=nothing,
    )
    seen = rng.random(len(image)) < 0.85
    shared = rng.normal(size=(len(image), 4))
    false_image = np.repeat(np.arange(num_images), rng.poisson(2 * np.sum(rates), num_images))
    weights = np.asarray(rates) / np.sum(rates)
    false_category = rng.choice(len(rates), len(false_image), p=weights)
    false_boxes = np.concatenate(
        [rng.uniform(0, 300, (len(false_image), 2)), rng.uniform(10, 100, (len(false_image), 2))],
        axis=1,
    )
    luck = rng.beta(1, 4, len(false_image))
    runs = []
    for offset, noise in zip(seeds, sharp, strict=True):
        own = rng.normal(size=(len(image), 4))
        shake = (0.8 * shared + 0.6 * own) * (noise * (1 + offset) * hard[image])[:, None]
        found = boxes + shake * np.tile(sides, 2)
        found[:, 2:] = np.maximum(found[:, 2:], 1.0)
        quality = np.exp(-4 * np.abs(shake).mean(axis=1))
        score = np.clip(quality * rng.beta(6, 2, len(image)), 1e-6, 1)
        false_score = np.clip(luck * rng.beta(8, 2, len(luck)), 1e-6, 1)
        runs.append(
            Detections.from_columns(
                np.concatenate([image[seen], false_image]),
                np.concatenate([category[seen], false_category]),
                np.concatenate([found[seen], false_boxes]),
                np.concatenate([score[seen], false_score]),
                len(rates),
            )
        )
    return truth, [match(truth, run) for run in runs]
