"""Any COCO JSON file as a Detectron2 data set."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from detectron2.data.datasets import load_coco_json

from .registration import already_registered, as_class_names, register
from .validation import CheckedLoader, Findings

__all__ = ["register_coco_json"]


def register_coco_json(
    *,
    name: str,
    json_file: str,
    image_root: str,
    class_names: Sequence[str] | None = None,
    on_invalid: str = "drop",
) -> str:
    """Register a COCO JSON file and return the data set's name.

    Contiguous class ids follow the file's category ids in ascending order, or `class_names` where
    it is given. Crowd boxes stay, with iscrowd=1. A file without "annotations" (as COCO's test-dev)
    gives images without that key.

    Evaluation: the metadata point COCO evaluation to `json_file` itself. So a box or image that is
    dropped here is still in the ground truth there: pycocotools counts the boxes of a missing image
    and those without area as missed; it passes over, without a word, annotations of categories or
    images that the file does not list. The summary of dropped boxes says so. Only where
    `class_names` leaves categories out or reorders them does Detectron2 evaluate against the loaded
    data instead, because its COCO evaluator wants the file's categories to be the classes.

    The file is parsed once here for its categories and once by Detectron2's loader.

    Args:
        name: for Detectron2's catalogs.
        json_file: path of the file.
        image_root: folder to which "file_name" in the file is relative.
        class_names: only these classes, in this order. Default: all categories of the file.
        on_invalid: "drop" or "error", see `iou_balanced.data.validation`.

    Raises:
        FileNotFoundError: no such file or image folder.
        ValueError: not a COCO JSON file; a class that it does not have; the name means another data
            set; a bad on_invalid. When the data is loaded: invalid data with on_invalid="error".
    """
    # str() and abspath: arguments may come from a config, and "a/" and "./a" are one folder
    name = str(name)
    json_file = os.path.abspath(os.path.expanduser(str(json_file)))
    image_root = os.path.abspath(os.path.expanduser(str(image_root)))
    class_names = as_class_names(class_names)
    arguments = {
        "function": "register_coco_json",
        "json_file": json_file,
        "image_root": image_root,
        "class_names": class_names,
        "on_invalid": on_invalid,
    }
    if already_registered(name, arguments):
        return name

    if not os.path.isfile(json_file):
        raise FileNotFoundError(f"data set {name!r}: json_file {json_file} does not exist")
    if not os.path.isdir(image_root):
        raise FileNotFoundError(f"data set {name!r}: image_root {image_root} is not a folder")
    contents = _read_contents(json_file)
    category_ids = _select(contents.categories, class_names, json_file)
    classes = [contents.categories[i] for i in category_ids]
    note = "What is dropped is not trained on, but stays in the ground truth of COCO evaluation."
    metadata = {"thing_classes": classes, "evaluator_type": "coco", "image_root": image_root}
    if category_ids == sorted(category_ids):
        metadata["thing_dataset_id_to_contiguous_id"] = {c: i for i, c in enumerate(category_ids)}
    if category_ids == sorted(contents.categories):
        metadata["json_file"] = json_file
    else:
        # COCOeval sorts by category id and takes all categories of a file, while Detectron2 reads
        # its result in the order of thing_classes. Without json_file it writes a fitting one.
        note = ""
    load = CheckedLoader(
        partial(_load, json_file, image_root, category_ids),
        name=name,
        class_names=classes,
        on_invalid=on_invalid,
        note=note,
    )
    return register(name, arguments, load, metadata)


@dataclass(frozen=True)
class _Contents:
    """What Detectron2's loader does not tell of a file."""

    categories: dict[int, str]  # category id -> name
    has_annotations: bool
    findings: tuple[tuple[str, str], ...]  # (kind, example)


def _read_contents(json_file: str) -> _Contents:
    stat = os.stat(json_file)
    return _parse(json_file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)  # registration and each loading want it, and COCO's own file takes seconds
def _parse(json_file: str, mtime_ns: int, size: int) -> _Contents:
    try:
        with open(json_file, encoding="utf-8") as f:
            data = json.load(f)
        categories = {c["id"]: str(c["name"]) for c in data["categories"]}
        image_ids = {image["id"] for image in data["images"]}
        findings = []
        for i, a in enumerate(data.get("annotations", ())):
            source = f"{_source(json_file, a['id'])} (annotations[{i}])"
            findings += [(kind, f"{source}: {text}") for kind, text in _check(a, image_ids)]
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{json_file} is not JSON: {e}") from e
    except KeyError as e:
        raise ValueError(f"{json_file} is not COCO JSON: an entry or the file lacks {e}") from e
    except (TypeError, AttributeError) as e:
        raise ValueError(
            f"{json_file} is not COCO JSON: it must be an object with lists 'images', "
            f"'categories' and (but for a test set) 'annotations' ({e})"
        ) from e
    return _Contents(categories, "annotations" in data, tuple(findings))


def _check(annotation: dict, image_ids: set) -> list[tuple[str, str]]:
    """Findings (kind, text) that can no longer be made once Detectron2 has loaded the file."""
    if annotation["image_id"] not in image_ids:
        return [("unknown_image", f"image_id {annotation['image_id']!r}")]
    found = []
    missing = [k for k in ("area", "iscrowd") if k not in annotation]
    if missing:
        found.append(("no_eval_keys", f"lacks {missing}"))
    polygons = annotation.get("segmentation")
    # the rule of detectron2.data.datasets.load_coco_json, which drops the box along with them
    if isinstance(polygons, list) and polygons and not any(map(_is_polygon, polygons)):
        found.append(("bad_polygon", f"segmentation {polygons}"))
    return found


def _is_polygon(points: list) -> bool:
    return len(points) % 2 == 0 and len(points) >= 6


def _select(categories: dict[int, str], class_names: list[str] | None, json_file: str) -> list[int]:
    """The category ids of `class_names`, in its order; of all categories where it is None."""
    if not categories:
        raise ValueError(f"{json_file} has no categories")
    if class_names is None:
        return sorted(categories)
    found = sorted(set(categories.values()))
    unknown = [c for c in class_names if c not in found]
    if unknown:
        raise ValueError(f"class_names has {unknown}, but {json_file} has only {found}")
    ids = [i for i in sorted(categories) if categories[i] in class_names]
    if len(ids) != len(class_names):
        twice = {i: categories[i] for i in ids}
        raise ValueError(f"{json_file} has one class name under several category ids: {twice}")
    return sorted(ids, key=lambda i: class_names.index(categories[i]))


def _load(json_file: str, image_root: str, category_ids: list[int]) -> tuple[list[dict], Findings]:
    """The raw dicts with contiguous class ids, boxes unchecked, and what is wrong with the file."""
    contents = _read_contents(json_file)
    findings = Findings()
    for kind, example in contents.findings:
        findings.add(kind, example)
    try:
        # Without a name Detectron2 maps no ids: it would fail on the first unknown category.
        dicts = load_coco_json(json_file, image_root, extra_annotation_keys=["id"])
    except (AssertionError, KeyError, ValueError) as e:
        raise ValueError(f"{json_file} cannot be loaded as COCO JSON: {e!r}") from e

    contiguous = {c: i for i, c in enumerate(category_ids)}
    for record in dicts:
        if not contents.has_annotations:
            del record["annotations"]
            continue
        kept = []
        for annotation in record["annotations"]:
            source = _source(json_file, annotation.pop("id"))
            category = annotation.get("category_id")
            if category not in contiguous and category in contents.categories:
                findings.add("not_selected", f"{source}: {contents.categories[category]!r}")
                continue
            # text where it is unknown, lest it be taken for a contiguous id: it is reported
            unknown = f"category_id {category}"
            annotation["category_id"] = contiguous.get(category, unknown)
            annotation["_source"] = f"{source}, image {os.path.basename(record['file_name'])}"
            kept.append(annotation)
        record["annotations"] = kept
    return dicts, findings


def _source(json_file: str, annotation_id: int) -> str:
    return f"{os.path.basename(json_file)}, annotation id {annotation_id}"
