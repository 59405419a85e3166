"""Average precision as the PASCAL VOC challenge defines it, with numpy alone.

The rules are those of the challenge's development kit (Everingham et al., "The PASCAL Visual Object
Classes (VOC) Challenge", IJCV 2010; VOCevaldet.m and VOCap.m):

* Detections of a class are gone through by falling score. Each belongs to the ground truth of its
  class and image that it overlaps most, taken or not; the first one where two overlap equally.
* It is true if the IoU reaches the threshold (>=; Detectron2's copy has >) and the object has not
  been found before; a second detection of an object is false.
* Where that object is difficult, the detection is neither true nor false, and a difficult object
  that is not found is no miss.
* The development kit counts pixels: a box from xmin to xmax is xmax - xmin + 1 wide. Detectron2
  takes 1 from xmin when it loads a box, so that this is plain x1 - x0 here, and IoU the usual one.

Letters: D detections, G ground truths, T IoU thresholds, K classes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

VOC_IOU_THRESHOLDS = np.arange(50, 100, 5) / 100
"""0.50, 0.55, ..., 0.95: each the double next to it, as IoUs of whole pixels are."""

# name -> IoU threshold or None for the mean over all of them, as in Table 5 of arXiv:1908.05641
# (AP75 is COCO's).
_METRICS = OrderedDict(AP=None, AP50=0.5, AP60=0.6, AP70=0.7, AP75=0.75, AP80=0.8, AP90=0.9)


class GroundTruth(NamedTuple):
    """The objects of a data set."""

    images: np.ndarray  # (G,) int64, any number that stands for an image
    classes: np.ndarray  # (G,) int64 in [0, K)
    boxes: np.ndarray  # (G, 4) XYXY, absolute
    difficult: np.ndarray  # (G,) bool


class Detections(NamedTuple):
    """The boxes found in a data set. Where scores are equal, the first box goes first."""

    images: np.ndarray  # (D,) int64, as in GroundTruth
    classes: np.ndarray  # (D,) int64
    boxes: np.ndarray  # (D, 4) XYXY, absolute
    scores: np.ndarray  # (D,)


def voc_average_precision(
    ground_truth: GroundTruth,
    detections: Detections,
    *,
    num_classes: int,
    iou_thresholds: Sequence[float] = VOC_IOU_THRESHOLDS,
) -> dict[str, np.ndarray]:
    """AP by both of the challenge's metrics.

    Args:
        ground_truth: the objects.
        detections: the boxes found.
        num_classes: K.
        iou_thresholds: (T,) in (0, 1].

    Returns:
        {"11point": (T, K), "area": (T, K)} in 0..100. "11point" (until 2009) is the mean of the
        highest precisions at a recall of at least 0, 0.1, ..., 1; "area" (since 2010) the area
        below the precision that was made monotonic. NaN for a class whose objects are all
        difficult, or which has none.
    """
    shape = (len(iou_thresholds), num_classes)
    ap = {"11point": np.full(shape, np.nan), "area": np.full(shape, np.nan)}
    for k in range(num_classes):
        truth = _select(ground_truth, ground_truth.classes == k)
        num_objects = int(np.count_nonzero(~truth.difficult))
        if num_objects == 0:
            continue
        found = _select(detections, detections.classes == k)
        found = _select(found, np.argsort(-found.scores, kind="stable"))
        ious, objects = _best_overlaps(truth, found)
        for t, threshold in enumerate(iou_thresholds):
            is_true = _true_positives(ious >= threshold, objects, truth.difficult)
            ap["11point"][t, k] = 100 * _ap_11point(is_true, num_objects)
            ap["area"][t, k] = 100 * _ap_area(is_true, num_objects)
    return ap


def summarize_voc_ap(
    ap: np.ndarray,
    class_names: Sequence[str],
    *,
    iou_thresholds: Sequence[float] = VOC_IOU_THRESHOLDS,
) -> OrderedDict[str, float]:
    """AP (mean over the thresholds), AP50, AP60, AP70, AP75, AP80, AP90, and "AP-<class>".

    Args:
        ap: (T, K), NaN where undefined: such a class is left out of the means.
        class_names: K names.
        iou_thresholds: (T,) those of `ap`.

    Returns:
        Values as in `ap`, not rounded.
    """
    metrics = OrderedDict()
    for name, threshold in _METRICS.items():
        rows = ap if threshold is None else ap[np.isclose(iou_thresholds, threshold)]
        metrics[name] = _mean(rows)
    for k, name in enumerate(class_names):
        metrics[f"AP-{name}"] = _mean(ap[:, k])
    return metrics


def _select(table, which):
    return type(table)(*(column[which] for column in table))


def _best_overlaps(truth: GroundTruth, found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """(D,) IoU with the object that a detection overlaps most, and (D,) the object's index.

    Where the image has no object of the class, the IoU is -1.
    """
    order = np.argsort(truth.images, kind="stable")
    images = truth.images[order]
    first = np.searchsorted(images, found.images, side="left")
    count = np.searchsorted(images, found.images, side="right") - first
    best, objects = np.full(len(count), -1.0), np.zeros(len(count), dtype=np.int64)
    with_objects = np.flatnonzero(count)
    if not len(with_objects):
        return best, objects

    # All pairs of a detection and an object of its image, those of a detection side by side.
    first, count = first[with_objects], count[with_objects]
    start = np.cumsum(count) - count
    pair_found = np.repeat(with_objects, count)
    pair_truth = order[np.arange(len(pair_found)) + np.repeat(first - start, count)]
    ious = _iou(found.boxes[pair_found], truth.boxes[pair_truth])
    highest = np.maximum.reduceat(ious, start)
    winners = np.flatnonzero(ious == np.repeat(highest, count))
    _, first_winner = np.unique(pair_found[winners], return_index=True)
    best[with_objects] = highest
    objects[with_objects] = pair_truth[winners[first_winner]]
    return best, objects


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) IoU of boxes (N, 4) and others (N, 4); 0 where a box is not finite."""
    boxes, others = boxes.astype(np.float64), others.astype(np.float64)
    top_left = np.maximum(boxes[:, :2], others[:, :2])
    bottom_right = np.minimum(boxes[:, 2:], others[:, 2:])
    inner = (bottom_right - top_left).clip(min=0).prod(axis=1)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others)]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(inner / (areas[0] + areas[1] - inner), nan=0.0, posinf=0.0)


def _true_positives(reaches: np.ndarray, objects: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """Whether each detection that counts is true, by falling score: (D,) or fewer."""
    ignored = reaches & difficult[objects]
    candidates = np.flatnonzero(reaches & ~ignored)
    _, first = np.unique(objects[candidates], return_index=True)
    is_true = np.zeros(len(reaches), dtype=bool)
    is_true[candidates[first]] = True
    return is_true[~ignored]


def _highest_precision(is_true: np.ndarray) -> np.ndarray:
    """(D,) the highest precision from each detection on."""
    precision = np.cumsum(is_true) / np.arange(1, len(is_true) + 1)
    return np.maximum.accumulate(precision[::-1])[::-1]


def _ap_11point(is_true: np.ndarray, num_objects: int) -> float:
    # Recall k/10 is reached with ceil(k * G / 10) objects. In whole numbers, because 3/10 is less
    # than the floating-point 0.1 + 0.1 + 0.1 that other code compares with.
    needed = [-(-k * num_objects // 10) for k in range(11)]
    reached = np.searchsorted(np.cumsum(is_true), needed, side="left")
    precision = np.append(_highest_precision(is_true), 0.0)
    return float(precision[reached].sum() / 11)


def _ap_area(is_true: np.ndarray, num_objects: int) -> float:
    # Recall rises by 1/G at each true detection, and nowhere else.
    return float(_highest_precision(is_true)[is_true].sum() / num_objects)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
