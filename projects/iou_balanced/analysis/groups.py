"""Rare and frequent classes, by how often they occur in training.

Letters: K classes.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from iou_balanced.formats.class_names import check_spelling, list_names
from iou_balanced.formats.text_files import read_json

__all__ = ["LEAST_RATIO", "TAIL_RATIO", "group_of_classes", "read_train_counts", "tail_of"]

TAIL_RATIO = 0.0867
"""COCO's, Table 11 of Balance-oriented focal loss."""

LEAST_RATIO = 10.0
"""Groups are made where the most frequent class has at least this many times the instances of the
rarest one."""


def tail_of(image_counts: Sequence[float], tail_ratio: float = TAIL_RATIO) -> np.ndarray:
    """The rarest classes, see `iou_balanced.losses.reweighting.tail_classes`.

    Args:
        image_counts: (K,) training images that show each class.
        tail_ratio: share of the images, summed over the classes, that the tail has.

    Returns:
        (K,) bool. Classes with equally many images are on the same side.

    Raises:
        ValueError: `tail_ratio` is not in [0, 1].
    """
    if not isinstance(tail_ratio, (int, float)) or not 0 <= tail_ratio <= 1:
        raise ValueError(f"Expected argument `tail_ratio` to be in [0, 1], but got {tail_ratio!r}")
    counts = np.asarray(image_counts, dtype=np.float64)
    thresholds = np.append(np.unique(counts), np.inf)
    below = counts < thresholds[:, None]
    ratios = (below * counts).sum(axis=1) / max(counts.sum(), 1)
    return below[np.abs(ratios - tail_ratio).argmin()]


def group_of_classes(counts: Mapping[str, Mapping], class_names: Sequence[str]) -> dict:
    """Which classes are the tail and which the head, or why there are no groups; plain data.

    Args:
        counts: class -> "instances" and "images" in training.
        class_names: (K,) those that are evaluated.
    """
    instances = [counts[name]["instances"] for name in class_names]
    low, high = min(instances), max(instances)
    rule = (
        f"Groups are made where the most frequent class has at least {LEAST_RATIO:g} times the "
        "training instances of the rarest one. The tail are the rarest classes, by images, with "
        f"about {TAIL_RATIO:.2%} of the images summed over the classes (arXiv 2003.05176)."
    )
    result = {
        "rule": rule,
        "counts": {name: dict(counts[name]) for name in class_names},
        "tail": None,
        "head": None,
    }
    if high < LEAST_RATIO * max(low, 1):
        result["reason"] = (
            f"no groups: the classes have {low} to {high} training instances, which is less than "
            f"{LEAST_RATIO:g} times as many"
        )
        return result
    is_tail = tail_of([counts[name]["images"] for name in class_names])
    if not is_tail.any() or is_tail.all():
        result["reason"] = "no groups: all classes would be in one of them"
        return result
    result["tail"] = [n for n, rare in zip(class_names, is_tail, strict=True) if rare]
    result["head"] = [n for n, rare in zip(class_names, is_tail, strict=True) if not rare]
    return result


def read_train_counts(
    path: str | os.PathLike,
    class_names: Sequence[str],
    *,
    warn: Callable[[str], None] | None = None,
) -> dict[str, dict]:
    """Training instances and images of each evaluated class.

    Args:
        path: what `python -m iou_balanced.data.class_counts` writes; a JSON object class ->
            instances; or the training set's annotations as COCO JSON.
        class_names: (K,) those that are evaluated.
        warn: called with a sentence where it has other classes as well, which are left out.

    Returns:
        class -> {"instances": n, "images": n}.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none of these, or lacks a class; names both lists.
    """
    data = read_json(path)
    if isinstance(data, dict) and isinstance(data.get("classes"), list):
        counts = _saved_counts(data, path)
    elif isinstance(data, dict) and "categories" in data:
        counts = _annotation_counts(path)
    elif isinstance(data, dict) and data and all(_is_count(v) for v in data.values()):
        counts = {str(k): {"instances": v, "images": v} for k, v in data.items()}
    else:
        raise ValueError(
            f"{path} has no training counts: it must be what iou_balanced.data.class_counts "
            'writes, an object such as {"cat": 120, "dog": 34}, or COCO annotations of the '
            f"training set; it begins with {json.dumps(data)[:80]}"
        )
    check_spelling(class_names, counts, of="the ground truth", of_others=os.fspath(path))
    absent = [name for name in class_names if name not in counts]
    if absent:
        raise ValueError(
            f"{path} has no counts of {list_names(absent)}; it has {list_names(list(counts))}"
        )
    others = [name for name in counts if name not in class_names]
    if others and warn is not None:
        warn(
            f"{path} has also counts of {list_names(others)}, which the ground truth does not "
            "have: they are left out"
        )
    return {name: counts[name] for name in class_names}


def _is_count(value) -> bool:
    return type(value) is int and value >= 0


def _saved_counts(data: dict, path) -> dict[str, dict]:
    counts = {}
    for i, row in enumerate(data["classes"]):
        values = [row.get(key) for key in ("instances", "images")] if isinstance(row, dict) else []
        if len(values) != 2 or not all(map(_is_count, values)) or "name" not in row:
            raise ValueError(f"{path}: classes[{i}] lacks a name, instances or images: {row!r:.80}")
        counts[str(row["name"])] = {"instances": values[0], "images": values[1]}
    return counts


def _annotation_counts(path) -> dict[str, dict]:
    from .ground_truth import read_ground_truth

    truth = read_ground_truth(path)
    kept = ~truth.crowd
    instances = np.bincount(truth.category[kept], minlength=truth.num_classes)
    pairs = np.unique(np.stack([truth.category[kept], truth.image[kept]]), axis=1)
    images = np.bincount(pairs[0], minlength=truth.num_classes)
    rows = zip(truth.class_names, instances.tolist(), images.tolist(), strict=True)
    return {name: {"instances": n, "images": m} for name, n, m in rows}
