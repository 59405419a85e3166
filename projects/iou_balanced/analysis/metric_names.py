"""The metrics of COCO, as the evaluators and the analysis name them."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

__all__ = [
    "AREA_RANGES",
    "IOU_THRESHOLDS",
    "MAIN_METRICS",
    "MAX_DETECTIONS",
    "METRICS",
    "RECALL_LEVELS",
    "SIZE_METRICS",
    "THRESHOLD_METRICS",
    "class_metric",
    "mean_of_defined",
    "summarize",
]

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""(T,) as pycocotools makes them: 0.9 is 0.8999999999999999."""

RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
"""(R,) likewise."""

AREA_RANGES = OrderedDict(
    all=(0.0, 1e10), small=(0.0, 32.0**2), medium=(32.0**2, 96.0**2), large=(96.0**2, 1e10)
)
"""Name -> lowest and highest area of an object, in square pixels, both included."""

MAX_DETECTIONS = 100
"""Of one image and class, those of the highest scores."""

METRICS = OrderedDict(
    AP=(None, "all"),
    AP50=(0.5, "all"),
    AP60=(0.6, "all"),
    AP70=(0.7, "all"),
    AP75=(0.75, "all"),
    AP80=(0.8, "all"),
    AP90=(0.9, "all"),
    APs=(None, "small"),
    APm=(None, "medium"),
    APl=(None, "large"),
)
"""Name -> IoU threshold (None: the mean over all) and area range, in the order of the tables of
arXiv:1908.05641."""

MAIN_METRICS = tuple(METRICS)

THRESHOLD_METRICS = tuple(f"AP{round(100 * t)}" for t in IOU_THRESHOLDS)
"""AP50, AP55, ..., AP95."""

SIZE_METRICS = ("APs", "APm", "APl")


def class_metric(class_name: str) -> str:
    """The name of a class's AP, as the evaluators write it."""
    return f"AP-{class_name}"


def summarize(ap: np.ndarray, sizes: np.ndarray, class_names: Sequence[str]) -> dict:
    """All metrics out of the AP of each class.

    Args:
        ap: (T, K, ...) by threshold and class, NaN where a class has no object.
        sizes: (3, K, ...) of small, medium and large objects, means over the thresholds.
        class_names: (K,)

    Returns:
        metric -> (...): AP, AP50, AP55, ..., AP95, APs, APm, APl and "AP-<class>". Means leave out
        what is undefined, and are NaN where nothing is left.
    """
    classes = ap.mean(axis=0)
    metrics = {"AP": mean_of_defined(classes)}
    metrics |= {name: mean_of_defined(ap[t]) for t, name in enumerate(THRESHOLD_METRICS)}
    metrics |= {name: mean_of_defined(sizes[i]) for i, name in enumerate(SIZE_METRICS)}
    metrics |= {class_metric(name): classes[k] for k, name in enumerate(class_names)}
    return metrics


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
