"""Which images and classes made a difference, and the boxes there.

Letters: N images, K classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from .class_tables import class_table
from .ground_truth import GroundTruth
from .influence import ap_influence
from .matching import IGNORED, TRUE, Matches
from .metric_names import IOU_THRESHOLDS, mean_of_defined

__all__ = ["MAX_FALSE", "changes", "image_details"]

_NUM_IMAGES = 24
_NUM_OF_CLASS = 4
_MAX_DETAILS = 300
MAX_FALSE = 12
"""Detections that find no object, of the highest scores, that are kept of an image and run."""
_STATUS = {IGNORED: "ignored", TRUE: "true"}


def changes(truth: GroundTruth, runs: Mapping[str, Sequence[Matches]]) -> dict:
    """The images that made each difference to the first run, and the boxes in them; plain data.
    Of a single run, those that lower its AP most.

    The contribution of an image is by how many percentage points the difference of AP would change
    if the image counted once more. Over all images the contributions sum to 0: they say where the
    runs differ more or less than elsewhere.

    Args:
        truth: of N images and K classes.
        runs: run -> a result file for each seed; boxes are those of the first seed.
    """
    influence = {name: _influence(truth, members) for name, members in runs.items()}
    first, *others = runs
    result, shown = {}, {}
    for name in others or [first]:
        by_class = influence[name] - influence[first] if others else influence[first]
        total = mean_of_defined(by_class)  # (K, N), NaN without objects, to (N,)
        images = _largest(total, _NUM_IMAGES)
        if not others:
            images = np.argsort(total, kind="stable")[:_NUM_IMAGES].tolist()
            by_class = np.minimum(by_class, 0)
        classes = {
            class_name: _largest(np.nan_to_num(by_class[k]), _NUM_OF_CLASS)
            for k, class_name in enumerate(truth.class_names)
        }
        shown |= dict.fromkeys(images) | dict.fromkeys(i for x in classes.values() for i in x)
        result[name] = {
            "images": [_contribution(truth, i, total[i]) for i in images],
            "classes": {
                class_name: [_contribution(truth, i, by_class[k, i]) for i in classes[class_name]]
                for k, class_name in enumerate(truth.class_names)
            },
        }
    matches = {name: members[0] for name, members in runs.items()}
    details = image_details(truth, matches, list(shown)[:_MAX_DETAILS])
    kinds = {"differences": result} if others else {"runs": result, "differences": {}}
    return {**kinds, "images": details}


def image_details(
    truth: GroundTruth, runs: Mapping[str, Matches], images: Sequence[int]
) -> list[dict]:
    """Objects and detections of each image; plain data.

    Args:
        truth: of N images.
        runs: run -> its matched detections.
        images: in [0, N), in the order of `truth`.
    """
    boxes = {name: _Boxes(truth, matches) for name, matches in runs.items()}
    return [_details(truth, i, boxes) for i in images]


def _influence(truth: GroundTruth, members: Sequence[Matches]) -> np.ndarray:
    """(K, N) on the AP of each class in percent, the mean over seeds; NaN without objects."""
    result = np.zeros((truth.num_classes, truth.num_images))
    for matches in members:
        for k in range(truth.num_classes):
            table = class_table(matches, truth, k, 0)
            if not len(table.object_image):
                result[k] = np.nan
                continue
            for t in range(len(IOU_THRESHOLDS)):
                result[k] += ap_influence(table, t, truth.num_images)
    return 100 * result / (len(IOU_THRESHOLDS) * len(members))


def _largest(values: np.ndarray, number: int) -> list[int]:
    order = np.argsort(-np.abs(values), kind="stable")[:number]
    return [int(i) for i in order if values[i] != 0]


def _contribution(truth: GroundTruth, image: int, value: float) -> dict:
    return {
        "image_id": truth.image_ids[image],
        "file_name": truth.file_names[image],
        "contribution": float(value),
    }


class _Boxes:
    """The detections of a run by image."""

    def __init__(self, truth: GroundTruth, matches: Matches) -> None:
        self._truth, self._matches = truth, matches
        found = matches.detections
        self._order = np.argsort(found.image, kind="stable")
        self._start = np.searchsorted(found.image[self._order], np.arange(truth.num_images + 1))
        self._status = np.full(len(found), -1, np.int8)
        self._status[matches.candidate] = matches.status[0, 0]

    def of_image(self, image: int, places: Mapping[int, int]) -> list[dict]:
        """By falling score: all that find an object, and the best of the others."""
        found, matches = self._matches.detections, self._matches
        rows = self._order[self._start[image] : self._start[image + 1]]
        rows = rows[np.argsort(-found.score[rows], kind="stable")]
        result, num_false = [], 0
        for d in rows.tolist():
            status = _STATUS.get(int(self._status[d]), "false")
            num_false += status != "true"
            if status != "true" and num_false > MAX_FALSE:
                continue
            matched = int(matches.matched_object[d])
            iou = matches.matched_iou[d] if matched >= 0 else matches.best_iou[d]
            result.append(
                {
                    "class": self._truth.class_names[int(found.category[d])],
                    "bbox": [round(float(v), 2) for v in found.boxes[d]],
                    "score": float(found.score[d]),
                    "iou": float(iou),
                    "status": status,
                    "object": places.get(matched),
                }
            )
        return result


def _details(truth: GroundTruth, image: int, runs: Mapping[str, _Boxes]) -> dict:
    objects = np.flatnonzero(truth.image == image).tolist()
    places = {g: i for i, g in enumerate(objects)}
    width, height = truth.image_sizes[image].tolist()
    return {
        "image_id": truth.image_ids[image],
        "file_name": truth.file_names[image],
        "width": width,
        "height": height,
        "objects": [
            {
                "class": truth.class_names[int(truth.category[g])],
                "bbox": [round(float(v), 2) for v in truth.boxes[g]],
                "crowd": bool(truth.crowd[g]),
                "ignored": bool(truth.ignored[g]),
            }
            for g in objects
        ],
        "runs": {name: boxes.of_image(image, places) for name, boxes in runs.items()},
    }
