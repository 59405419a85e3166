"""Result files: the format that COCO's server takes and every framework writes, checked.

Letters: D detections.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from iou_balanced.formats.class_names import list_names
from iou_balanced.formats.text_files import read_json
from iou_balanced.formats.values import IdIndex

from .detections import Detections
from .ground_truth import GroundTruth
from .result_checks import check_boxes, check_scores, first_few

__all__ = ["read_detections"]

_KEYS = ("image_id", "category_id", "bbox", "score")


def read_detections(
    results: str | os.PathLike | Sequence[Mapping],
    truth: GroundTruth,
    *,
    warn: Callable[[str], None] = lambda text: None,
) -> Detections:
    """The detections of a run.

    Args:
        results: a JSON file with a list of objects with image_id, category_id, bbox (x, y, width,
            height, in pixels) and score; or that list. An empty one is a run that found nothing.
            With a folder in VOC format an image_id may be the file's stem, and a category_id the
            class's name.
        truth: what they are compared with.
        warn: called with what is odd and yet can be evaluated.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file; an image or a category that `truth` does not have; a score
            or a box that is no number; scores beyond 1; boxes that are corners or shares of the
            image. Says how many there are and names the first.
    """
    name = "results"
    if isinstance(results, (str, os.PathLike)):
        name = os.fspath(results)
        if Path(name).is_dir():
            raise ValueError(f"{name} is a folder: give the JSON file with the run's detections")
        results = read_json(name)
    if not isinstance(results, Sequence) or isinstance(results, str):
        raise ValueError(
            f"{name} is not a COCO result file: it must be a list of objects with "
            f"{', '.join(_KEYS)}, but it is {_what_it_is(results)}"
        )
    columns = _columns(results, name)
    image = _find(columns["image_id"], _image_finders(truth), "image_id", name, truth)
    category = _find(columns["category_id"], _category_finders(truth), "category_id", name, truth)
    boxes, score = _boxes(columns["bbox"], name), _scores(columns["score"], name)

    def describe(i: int) -> str:
        box = ", ".join(f"{v:g}" for v in boxes[i].tolist())
        return f"[{i}] (image {columns['image_id'][i]!r}, bbox [{box}], score {score[i]:g})"

    check_scores(score, describe, name)
    check_boxes(boxes, truth.image_sizes[image], describe, name, warn)
    detections = Detections.from_columns(image, category, boxes, score, truth.num_classes)
    if detections.num_left_out:
        warn(
            f"{name}: {detections.num_left_out} detections are beyond the 100 of the highest "
            "scores in their image and class, and do not count, as in COCO's evaluation"
        )
    return detections


def _what_it_is(results) -> str:
    if isinstance(results, Mapping):
        keys = list_names([str(key) for key in results][:8])
        hint = " (the ground truth?)" if "annotations" in results else ""
        return f"an object with the keys {keys}{hint}"
    return f"a {type(results).__name__}"


def _columns(results: Sequence, name: str) -> dict[str, list]:
    columns: dict[str, list] = {key: [] for key in _KEYS}
    image, category, bbox, score = (columns[key].append for key in _KEYS)
    for i, result in enumerate(results):
        try:
            image(result["image_id"])
            category(result["category_id"])
            bbox(result["bbox"])
            score(result["score"])
        except (KeyError, TypeError, IndexError) as e:
            lacks = f"lacks {e}" if isinstance(e, KeyError) else "is no object"
            raise ValueError(
                f"{name} is not a COCO result file: [{i}] {lacks}: {result!r:.200}"
            ) from e
    return columns


def _image_finders(truth: GroundTruth) -> list[Callable]:
    """Ways to read an image_id, the first of which that knows all of a file's is taken."""
    index, stems = IdIndex(truth.image_ids), truth.other_image_ids
    if not stems:
        return [index.find]
    # A stem may be a number, and another image's number; text means the stem.
    by_stem, places = IdIndex(stems), list(stems.values())

    def stem_or_number(value):
        place = stems.get(value) if isinstance(value, str) else None
        return index.find(value) if place is None else place

    def stem_as_number(value):
        place = by_stem.find(value)
        return None if place is None else places[place]

    return [stem_or_number, stem_as_number]


def _category_finders(truth: GroundTruth) -> list[Callable]:
    index = IdIndex(truth.category_ids)
    if not truth.other_image_ids:
        return [index.find]
    names = {name: k for k, name in enumerate(truth.class_names)}
    return [lambda value: names.get(value) if isinstance(value, str) else index.find(value)]


def _find(
    values: list, finders: list[Callable], key: str, name: str, truth: GroundTruth
) -> np.ndarray:
    distinct = {value for value in values if not isinstance(value, (list, dict))}
    for find in finders:
        known = {value: find(value) for value in distinct}
        if None not in known.values():
            break
    else:
        known = {value: finders[0](value) for value in distinct}
    places = [known.get(value) if not isinstance(value, (list, dict)) else None for value in values]
    unknown = [i for i, place in enumerate(places) if place is None]
    if unknown:
        wrong = list(dict.fromkeys(repr(values[i]) for i in unknown))
        what = "images" if key == "image_id" else "categories"
        own = truth.image_ids if key == "image_id" else truth.category_ids
        raise ValueError(
            f"{name}: {len(unknown)} of {len(values)} detections are of {what} that {truth.path} "
            f"does not have: {key} {', '.join(wrong[:5])}"
            f"{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''} "
            f"(first at [{unknown[0]}]). It has {_own_ids(own)}{_hint(key, truth, values)}"
        )
    return np.array(places, dtype=np.int64)


def _own_ids(own: Sequence) -> str:
    shown = ", ".join(repr(value) for value in own[:5])
    return f"{len(own)}: {shown}{', ...' if len(own) > 5 else ''}"


def _hint(key: str, truth: GroundTruth, values: list) -> str:
    if key != "category_id":
        return ". Are these the results of another data set or split?"
    counted = set(range(truth.num_classes))
    if all(type(value) is int and value in counted for value in values):
        return (
            ". Are these classes counted from 0? A result file has the category ids of the "
            "ground truth"
        )
    return ""


def _boxes(values: list, name: str) -> np.ndarray:
    return _numbers(values, name, "bbox", (-1, 4), "four finite numbers x, y, width, height")


def _scores(values: list, name: str) -> np.ndarray:
    return _numbers(values, name, "score", (-1,), "a finite number")


def _numbers(values: list, name: str, key: str, shape: tuple, what: str) -> np.ndarray:
    if not values:
        return np.empty((0, *shape[1:]))
    try:
        array = np.array(values)
        good = array.dtype.kind in "fiu" and array.shape == (len(values), *shape[1:])
    except ValueError:  # boxes of several lengths
        good = False
    if good:
        array = array.astype(np.float64)
        finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
        bad = np.flatnonzero(~finite).tolist()
    else:
        size = 4 if len(shape) == 2 else 0
        bad = [i for i, value in enumerate(values) if not _is_numbers(value, size)]
        array = None if bad else np.array(values, dtype=np.float64)
    if bad:
        raise ValueError(
            f"{name}: the {key} of {len(bad)} of {len(values)} detections is not {what}: "
            + first_few(bad, lambda i: f"[{i}] {values[i]!r:.80}")
        )
    return array


def _is_numbers(value, size: int) -> bool:
    if size:
        return (
            isinstance(value, (list, tuple))
            and len(value) == size
            and all(_is_numbers(x, 0) for x in value)
        )
    return type(value) in (int, float) and bool(np.isfinite(value))
