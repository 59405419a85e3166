"""The numbers that are reported for COCO, read out of a finished `COCOeval`.

Letters: T IoU thresholds, R recall levels, K classes, A area ranges, M detection limits.
"""

import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from iou_balanced.analysis.metric_names import MAIN_METRICS, METRICS
from iou_balanced.formats.class_names import list_names

from .scorer_parity import check_parity

__all__ = [
    "MAIN_METRICS",
    "SCORERS",
    "absent_classes_text",
    "check_max_dets",
    "coco_metrics",
    "distinct_names",
    "find_scorer",
    "score_nothing",
]

SCORERS = ("auto", "pycocotools", "faster-coco-eval")


def find_scorer(scorer: str = "pycocotools") -> Callable:
    """The class that scores: called as `(coco_gt, coco_dt, iou_type)`, it gives a `COCOeval`.

    Args:
        scorer: "pycocotools", the reference; "faster-coco-eval"; or "auto", which is the second
            where it is installed, else the first. Keypoints are always scored by pycocotools,
            because faster-coco-eval reads them only from its own COCO class.

    Raises:
        ValueError: another name; or the numbers of the scorer that was asked for are not those of
            pycocotools, the reference, on a small set. "auto" then is pycocotools, with a warning.
        ImportError: "faster-coco-eval" is asked for and missing.
    """
    if scorer not in SCORERS:
        raise ValueError(f"Expected argument `scorer` to be one of {SCORERS}, but got {scorer!r}")
    if scorer == "pycocotools":
        return COCOeval
    try:
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        if scorer == "auto":
            return COCOeval
        raise ImportError(
            "scorer='faster-coco-eval' needs the package faster-coco-eval: "
            "pip install faster-coco-eval, or take scorer='pycocotools'"
        ) from error

    def score(coco_gt, coco_dt, iou_type):
        cls = COCOeval if iou_type == "keypoints" else COCOeval_faster
        return cls(coco_gt, coco_dt, iou_type)

    try:
        _check_parity_once("faster-coco-eval", score)
    except ValueError as error:
        if scorer != "auto":
            raise
        warnings.warn(f"{error}: taken here", stacklevel=2)
        return COCOeval
    return score


_equal: set[str] = set()


def _check_parity_once(name: str, score: Callable) -> None:
    if name not in _equal:
        check_parity(name, score)
        _equal.add(name)


def check_max_dets(max_dets_per_image: int | None) -> None:
    """Refuse a limit of detections that leaves none, or is no number.

    Args:
        max_dets_per_image: as `COCOBoxEvaluator` takes it; None for COCO's own limits.

    Raises:
        ValueError: it is neither None nor a whole number from 1 on.
    """
    is_whole = isinstance(max_dets_per_image, int) and not isinstance(max_dets_per_image, bool)
    if max_dets_per_image is not None and not (is_whole and max_dets_per_image >= 1):
        raise ValueError(
            "Expected argument `max_dets_per_image` to be a whole number from 1 on, or None, but "
            f"got {max_dets_per_image!r}"
        )


def score_nothing(
    coco_gt: COCO,
    iou_type: str,
    *,
    img_ids: Sequence[int] | None = None,
    max_dets: Sequence[int] = (1, 10, 100),
) -> COCOeval:
    """The evaluation of a model that detects nothing: AP 0 where there is ground truth.

    `COCO.loadRes` cannot read an empty list, so the empty result is put together here.

    Args:
        coco_gt: the ground truth.
        iou_type: "bbox", "segm" or "keypoints".
        img_ids: of the images to score; default: all.
        max_dets: limits of detections per image.
    """
    coco_dt = COCO()
    coco_dt.dataset = {
        "images": coco_gt.dataset["images"],
        "categories": coco_gt.dataset["categories"],
        "annotations": [],
    }
    coco_dt.createIndex()
    coco_eval = COCOeval(coco_gt, coco_dt, iou_type)
    coco_eval.params.maxDets = list(max_dets)
    if img_ids is not None:
        coco_eval.params.imgIds = img_ids
    coco_eval.evaluate()
    coco_eval.accumulate()
    return coco_eval


def coco_metrics(
    coco_eval: COCOeval, class_names: Sequence[str], *, max_dets: int = 100
) -> OrderedDict[str, float]:
    """AP over all classes and per class, from an evaluation after `accumulate()`.

    Args:
        coco_eval: of boxes or masks, pycocotools' or one that offers the same `params` and `eval`;
            `eval["precision"]` is (T, R, K, A, M), -1 where undefined.
        class_names: K names, in the order of `coco_eval.params.catIds`.
        max_dets: the limit of detections per image to report, one of `params.maxDets`.

    Returns:
        `MAIN_METRICS`, then "AP-<class>" for every class. In 0..100, not rounded, NaN where there
        is no ground truth.

    Raises:
        ValueError: `class_names` does not fit the evaluation.
    """
    params = coco_eval.params
    precision = np.asarray(coco_eval.eval["precision"])
    if precision.shape[2] != len(class_names):
        raise ValueError(
            f"Expected argument `class_names` to have {precision.shape[2]} names, "
            f"but got {len(class_names)}"
        )
    precision = precision[..., list(params.maxDets).index(max_dets)]

    metrics = OrderedDict()
    for name, (threshold, area) in METRICS.items():
        values = precision[:, :, :, params.areaRngLbl.index(area)]
        if threshold is not None:
            # The nearest one: 0.6 and its like are not exact in the evaluation's linspace.
            values = values[np.abs(np.asarray(params.iouThrs) - threshold).argmin()]
        metrics[name] = _average(values)
    for index, name in enumerate(class_names):
        metrics[f"AP-{name}"] = _average(precision[:, :, index, params.areaRngLbl.index("all")])
    return metrics


def distinct_names(names: Iterable[str], ids: Iterable[int]) -> list[str]:
    """The names as text; those that occur twice carry their id in brackets.

    Args:
        names: of classes, (K,).
        ids: (K,) in the same order.
    """
    names = [str(name) for name in names]
    count = Counter(names)
    return [
        name if count[name] == 1 else f"{name} ({i})" for name, i in zip(names, ids, strict=True)
    ]


def absent_classes_text(
    dataset_name: str, class_names: Sequence[str], own: Iterable[str]
) -> str | None:
    """What to say where a data set has `own` of the model's classes only; None where it has all.

    Args:
        dataset_name: named in the text.
        class_names: (K,) the model's.
        own: names of those that the data set has.
    """
    own = set(own)
    absent = [name for name in class_names if name not in own]
    if not absent:
        return None
    return (
        f"'{dataset_name}' has {len(class_names) - len(absent)} of the model's {len(class_names)} "
        f"classes: the AP of the others is NaN and in no mean ({list_names(absent)})."
    )


def _average(values: np.ndarray) -> float:
    """Mean of the defined values, in percent."""
    values = values[values > -1]
    return float(values.mean() * 100) if values.size else float("nan")
