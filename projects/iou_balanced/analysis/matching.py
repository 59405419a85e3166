"""Which detection finds which object: COCO's rules, once for each run.

An independent implementation of `COCOeval.evaluateImg`, for all area ranges and thresholds.

Letters: N images, K classes, G objects, D detections, T IoU thresholds, A area ranges, and C
candidates: detections whose IoU with an object of their class in their image reaches the lowest
threshold.
"""

from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_util

from .detections import Detections
from .ground_truth import GroundTruth
from .metric_names import AREA_RANGES, IOU_THRESHOLDS

__all__ = ["FALSE", "IGNORED", "TRUE", "Matches", "match"]

IGNORED, TRUE, FALSE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of each detection."""

    detections: Detections
    in_range: np.ndarray
    """(A, D) bool: whether the detection's own area is in the range."""
    candidate: np.ndarray
    """(C,) int64 ascending; all other detections match nothing at any threshold."""
    status: np.ndarray
    """(A, T, C) int8: IGNORED, TRUE or FALSE."""
    best_iou: np.ndarray
    """(D,) IoU with the best object of the class in the image, taken or not; crowds are none."""
    matched_object: np.ndarray
    """(D,) int64, the object that is matched at IoU 0.5 among all areas, or -1."""
    matched_iou: np.ndarray
    """(D,) the IoU with it, or 0."""
    counted: np.ndarray
    """(A, G) bool: the objects of each range that are to be found."""


def match(truth: GroundTruth, detections: Detections) -> Matches:
    """Match each class in each image by falling score, as COCO does."""
    ranges = np.array(list(AREA_RANGES.values()))  # (A, 2)
    in_range = _within(detections.area, ranges)
    counted = _within(truth.area, ranges) & ~truth.ignored
    size = len(detections)
    best_iou, matched_iou = np.zeros(size), np.zeros(size)
    matched_object = np.full(size, -1, dtype=np.int64)
    candidates, states = [], []
    for found, objects in _groups(truth, detections):
        boxes, truth_boxes = detections.boxes[found], truth.boxes[objects]
        crowd = truth.crowd[objects]
        ious = np.asarray(mask_util.iou(boxes, truth_boxes, crowd.astype(np.uint8)))
        if not crowd.all():
            best_iou[found] = ious[:, ~crowd].max(axis=1)
        rows = np.flatnonzero(ious.max(axis=1) >= IOU_THRESHOLDS[0])
        if not len(rows):
            continue
        found, ious = found[rows], ious[rows]
        pairs = _match_areas(ious.tolist(), crowd.tolist(), ~counted[:, objects])
        ignored = np.append(~counted[:, objects], np.zeros((len(ranges), 1), bool), axis=1)
        matched = pairs >= 0  # (A, T, C)
        hits_ignored = np.take_along_axis(
            ignored[:, None, :].repeat(len(IOU_THRESHOLDS), axis=1), pairs, axis=2
        )
        beyond = ~matched & ~in_range[:, None, found]
        status = np.where(matched, TRUE, FALSE).astype(np.int8)
        status[(matched & hits_ignored) | beyond] = IGNORED
        candidates.append(found)
        states.append(status)
        best = pairs[0, 0]
        matched_object[found] = np.where(best >= 0, objects[best], -1)
        matched_iou[found] = np.where(best >= 0, ious[np.arange(len(best)), best], 0.0)
    shape = (len(ranges), len(IOU_THRESHOLDS), 0)
    candidate = np.concatenate([np.empty(0, np.int64), *candidates])
    status = np.concatenate([np.empty(shape, np.int8), *states], axis=2)
    order = np.argsort(candidate)
    return Matches(
        detections=detections,
        in_range=in_range,
        candidate=candidate[order],
        status=np.ascontiguousarray(status[:, :, order]),
        best_iou=best_iou,
        matched_object=matched_object,
        matched_iou=matched_iou,
        counted=counted,
    )


def _within(area: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    return (area >= ranges[:, :1]) & (area <= ranges[:, 1:])


def _groups(truth: GroundTruth, detections: Detections):
    """(detections by falling score, objects in the file's order) of each class in each image."""
    objects = _split(truth.category * truth.num_images + truth.image)
    for key, found in _split(detections.category * truth.num_images + detections.image).items():
        if key in objects:
            yield found, objects[key]


def _split(keys: np.ndarray) -> dict[int, np.ndarray]:
    """Key -> places, ascending."""
    order = np.argsort(keys, kind="stable")
    distinct, first = np.unique(keys[order], return_index=True)
    parts = np.split(order, first[1:]) if len(order) else []
    return dict(zip(distinct.tolist(), parts, strict=True))


def _match_areas(ious: list, crowd: list, ignored: np.ndarray) -> np.ndarray:
    """(A, T, C) the object that each detection is given, or -1.

    Area ranges differ by what they ignore only; where all or none of a group is ignored, the
    matches are the same.
    """
    known: dict = {}
    result = []
    for row in ignored.tolist():
        pattern = tuple(row) if any(row) and not all(row) else None
        if pattern not in known:
            known[pattern] = _match_group(ious, crowd, row)
        result.append(known[pattern])
    return np.array(result)


def _match_group(ious: list, crowd: list, ignored: list) -> list[list[int]]:
    """The loops of COCO's evaluation over thresholds, detections and objects."""
    # Those to be found first, else in the order of the file.
    order = sorted(range(len(crowd)), key=ignored.__getitem__)
    highest = [max(overlaps) for overlaps in ious]
    matches = []
    for threshold in IOU_THRESHOLDS.tolist():
        taken = [False] * len(order)
        row = []
        for overlaps, most in zip(ious, highest, strict=True):
            best, chosen = threshold, -1
            for g in order if most >= threshold else ():
                if taken[g] and not crowd[g]:
                    continue
                # An object to be found is not given up for an ignored one.
                if chosen > -1 and not ignored[chosen] and ignored[g]:
                    break
                if overlaps[g] < best:
                    continue
                best, chosen = overlaps[g], g
            if chosen > -1:
                taken[chosen] = True
            row.append(chosen)
        matches.append(row)
    return matches
