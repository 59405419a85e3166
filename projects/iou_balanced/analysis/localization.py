"""How well the score of a detection tells its IoU: the numbers behind Figure 3 of
arXiv:1908.05641, section 4.3.

Letters: D detections, B bins.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO

from .rank_correlation import rank_correlation_influence

IOU_EDGES = tuple(np.round(np.linspace(0.5, 1.0, 11), 2).tolist())
"""Edges of the ten IoU ranges of Figure 3a."""

IOU_THRESHOLDS = IOU_EDGES[:-1]
"""The thresholds of COCO's AP, as in Figure 3b."""


class MatchedDetections(NamedTuple):
    """Scores and IoUs of detections, in the order of the results."""

    scores: np.ndarray
    """(D,) in 0..1."""
    ious: np.ndarray
    """(D,) in 0..1."""


class ScoreByIoU(NamedTuple):
    """The detections of each bin of IoU."""

    mean_score: np.ndarray
    """(B,) in 0..1, NaN where a bin is empty."""
    count: np.ndarray
    """(B,)"""


def match_detections(
    coco_gt: COCO,
    results: Iterable[Mapping],
    *,
    score_thresh: float = 0.05,
    category_ids: Sequence[int] | None = None,
) -> MatchedDetections:
    """The IoU of every detection with the best box of its class in its image.

    Unlike in AP, a box may be the best one of several detections. Crowd boxes are no ground truth.
    A detection without a box of its class in its image has IoU 0.

    Args:
        coco_gt: ground truth.
        results: dicts with image_id, category_id, bbox (XYWH, pixels) and score, as in
            `coco_instances_results.json`; or the evaluator's `instances_predictions.pth`, a list of
            {"image_id", "instances": such dicts} whose category_id counts from 0.
        score_thresh: detections below it are left out; 0.05 is the detectors' own floor.
        category_ids: category id of each class, for `instances_predictions.pth`. Default: the
            ground truth's ids in ascending order, as Detectron2 numbers them.

    Returns:
        scores (D,) and ious (D,), float64.
    """
    if category_ids is None:
        category_ids = sorted(coco_gt.getCatIds())
    images, categories, boxes, scores = [], [], [], []
    for result in _flat_results(results, category_ids):
        if result["score"] >= score_thresh:
            images.append(result["image_id"])
            categories.append(result["category_id"])
            boxes.append(result["bbox"])
            scores.append(result["score"])
    scores = np.asarray(scores, dtype=np.float64)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    ious = np.zeros(len(scores))

    truth = {}
    for ann in coco_gt.dataset.get("annotations", ()):
        if not ann.get("iscrowd", 0):
            truth.setdefault((ann["image_id"], ann["category_id"]), []).append(ann["bbox"])
    groups = {}
    for index, key in enumerate(zip(images, categories, strict=True)):
        if key in truth:
            groups.setdefault(key, []).append(index)
    for key, members in groups.items():
        gt = np.asarray(truth[key], dtype=np.float64)
        # The IoU of COCO's own evaluation.
        ious[members] = mask_util.iou(boxes[members], gt, [0] * len(gt)).max(axis=1)
    return MatchedDetections(scores, ious)


def mean_score_by_iou(
    scores: np.ndarray, ious: np.ndarray, edges: Sequence[float] = IOU_EDGES
) -> ScoreByIoU:
    """Average classification score of the detections in each IoU range (Figure 3a).

    Args:
        scores: (D,).
        ious: (D,).
        edges: B + 1 ascending numbers; a range holds its lower edge, the last one both.

    Raises:
        ValueError: shapes that differ, or edges that do not ascend.
    """
    scores, ious = _pair(scores, ious)
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"Expected argument `edges` to ascend, but got {edges.tolist()}")
    count, _ = np.histogram(ious, bins=edges)
    total, _ = np.histogram(ious, bins=edges, weights=scores)
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return ScoreByIoU(mean, count)


def fraction_above_iou(
    ious: np.ndarray, thresholds: Sequence[float] = IOU_THRESHOLDS
) -> np.ndarray:
    """Part of the detections whose IoU is higher than each threshold (Figure 3b).

    Args:
        ious: (D,) in [0, 1].
        thresholds: in [0, 1].

    Returns:
        The shape of `thresholds`, in 0..1 (the figure shows percent); NaN without detections.
    """
    ious = np.asarray(ious, dtype=np.float64)
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if ious.size == 0:
        return np.full(thresholds.shape, np.nan)
    above = ious.size - np.searchsorted(np.sort(ious), thresholds, side="right")
    return above / ious.size


def rank_correlation(scores: np.ndarray, ious: np.ndarray) -> float:
    """Spearman's rank correlation of score and IoU, in -1..1; ties get their mean rank.

    NaN where it is undefined: fewer than two detections, or all scores or all IoUs equal.

    Args:
        scores: (D,)
        ious: (D,)
    """
    scores, ious = _pair(scores, ious)
    return rank_correlation_influence(scores, ious, np.zeros(len(scores), np.int64), 1)[0]


def _flat_results(results, category_ids):
    for result in results:
        if "instances" not in result:
            yield result
            continue
        for instance in result["instances"]:
            yield {**instance, "category_id": category_ids[instance["category_id"]]}


def _pair(scores, ious):
    scores, ious = (np.asarray(values, dtype=np.float64) for values in (scores, ious))
    if scores.ndim != 1 or scores.shape != ious.shape:
        raise ValueError(
            "Expected arguments `scores` and `ious` to have the same shape (D,), "
            f"but got {scores.shape} and {ious.shape}"
        )
    return scores, ious
