"""COCO JSON: every value parsed once, every entry that is left out named.

Detectron2's and pycocotools' readers take ids, numbers and flags as they stand, so that the text
"0" is a crowd and the last of two images with the same id wins.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .coco_entries import read_categories, read_images
from .findings import Findings
from .text_files import read_json
from .values import IdIndex, parse_flag, parse_number

__all__ = ["BBOX_FORMATS", "CocoBox", "CocoFile"]

BBOX_FORMATS = ("xywh", "xyxy")


class CocoBox(NamedTuple):
    """An entry of "annotations" whose values could be read."""

    entry: int
    """Its place in "annotations"."""
    image: int
    """Index into `CocoFile.images`."""
    category: int
    """Index into `CocoFile.categories`."""
    bbox: Sequence[float]
    """(x, y, width, height) in pixels, as the file has it."""
    iscrowd: int
    """1 for a region of many objects, else 0."""
    raw: dict
    """The whole entry."""


class CocoFile:
    """A COCO JSON file.

    Args:
        path: of the file.
        bbox_format: of "bbox", see `BBOX_FORMATS`; None is "xywh", which is COCO's.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not COCO JSON, or contradicts itself: an id that two images or two
            categories have, or a name that two categories have; names file and entry.

    Attributes:
        path: of the file.
        images: in the order of their ids where these are all numbers or all text, else of the file.
        categories: (id, name) likewise; names differ.
        has_annotations: false for a file such as COCO's test-dev.
        findings: of what could not be read, or only by guessing what was meant; those of the
            annotations are there after `boxes` has run to its end.
    """

    def __init__(self, path: str | os.PathLike, *, bbox_format: str | None = None):
        self.path = os.fspath(path)
        self.findings = Findings()
        self._format = bbox_format or "xywh"
        if self._format not in BBOX_FORMATS:
            raise ValueError(
                f"Expected argument `bbox_format` to be one of {BBOX_FORMATS}, but got "
                f"{bbox_format!r}"
            )
        data = read_json(path)
        lists = {}
        for key in ("images", "categories", "annotations"):
            found = data.get(key) if isinstance(data, dict) else None
            if found is None and key == "annotations" and isinstance(data, dict):
                continue
            if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
                raise ValueError(
                    f"{self.path} is not COCO JSON: it must be an object with lists 'images', "
                    f"'categories' and (but for a test set) 'annotations' of objects; "
                    f"{self._what_is_wrong(data, key, found)}"
                )
            lists[key] = found
        self.has_annotations = "annotations" in lists
        self._raw = lists.get("annotations", [])
        self.categories = read_categories(self.path, lists["categories"], self.findings)
        self.images = read_images(self.path, lists["images"], self.findings)
        self._image_index = IdIndex(image.id for image in self.images)
        self._category_index = IdIndex(category.id for category in self.categories)

    @property
    def num_annotations(self) -> int:
        """Entries of "annotations", whether they can be read or not."""
        return len(self._raw)

    @staticmethod
    def _what_is_wrong(data, key: str, found) -> str:
        if not isinstance(data, dict):
            return f"it is a {type(data).__name__}"
        if found is None:
            return f"the file lacks {key!r}"
        if not isinstance(found, list):
            return f"{key!r} is a {type(found).__name__}"
        i = next(i for i, x in enumerate(found) if not isinstance(x, dict))
        return f"{key}[{i}] is {found[i]!r:.60}"

    def suits_pycocotools(self) -> bool:
        """Whether pycocotools and Detectron2's own evaluator read the file as it is meant."""
        if any(type(x.id) is not int for x in (*self.images, *self.categories)):
            return False
        ids = set()
        for raw in self._raw:
            number, iscrowd, area = raw.get("id"), raw.get("iscrowd"), raw.get("area")
            if type(number) is not int or not 0 < number < 2**63 or number in ids:
                return False
            if type(iscrowd) is not int or type(area) not in (int, float) or raw.get("ignore"):
                return False
            if type(raw.get("category_id")) is not int or not _is_plain_box(raw.get("bbox")):
                return False
            ids.add(number)
        return self._format == "xywh"

    def describe(self, entry: int) -> str:
        """Where an annotation stands: file, id and entry.

        Args:
            entry: its place in "annotations".
        """
        raw = self._raw[entry]
        name = raw.get("id", "missing") if isinstance(raw, dict) else "missing"
        return f"{os.path.basename(self.path)}, annotation id {name} (annotations[{entry}])"

    def boxes(self, *, for_training: bool = True) -> Iterator[CocoBox]:
        """The annotations in the order of the file, without those that cannot be read.

        What is left out or guessed is added to `findings`, at the first run only.

        Args:
            for_training: adds findings; evaluation, which reads the file again, leaves that.
        """
        findings = self.findings if for_training else Findings()
        find_image, find_category = self._image_index.find, self._category_index.find
        ids = set()
        xyxy = self._format == "xyxy"
        for entry, raw in enumerate(self._raw):
            # A file may have a million entries, and most need no parsing: one test each.
            image = find_image(raw.get("image_id"))
            category = find_category(raw.get("category_id"))
            bbox, iscrowd = raw.get("bbox"), raw.get("iscrowd")
            if image is None:
                findings.add(
                    "unknown_image", f"{self.describe(entry)}: image_id {raw.get('image_id')!r}"
                )
                continue
            if not _is_plain_box(bbox):
                bbox = self._parse_box(entry, bbox, findings)
                if bbox is None:
                    continue
            if category is None:
                findings.add(
                    "unknown_class",
                    f"{self._where(entry, image)}: category_id {raw.get('category_id')!r}",
                )
                continue
            if type(iscrowd) is not int or not 0 <= iscrowd <= 1:
                iscrowd = self._parse_crowd(entry, raw, image, category, findings)
                if iscrowd is None:
                    continue
            if for_training:
                number, area = raw.get("id"), raw.get("area")
                if type(number) is not int:
                    number = None if number is None else repr(number)
                if number in ids:
                    findings.add("same_id", self.describe(entry))
                elif number is not None:
                    ids.add(number)
                kind = type(area)
                if (kind is not float and kind is not int) or area != area or "iscrowd" not in raw:
                    self._check_area(entry, raw, findings)
                if raw.get("ignore"):
                    self._check_ignore(entry, raw, image, findings)
            if xyxy:
                bbox = [bbox[0], bbox[1], bbox[2] - bbox[0], bbox[3] - bbox[1]]
            yield CocoBox(entry, image, category, bbox, iscrowd, raw)
        if for_training:
            for what, index in (("image", self._image_index), ("category", self._category_index)):
                if index.num_other_type:
                    findings.counts["other_id_type"] += index.num_other_type
                    findings.examples["other_id_type"].append(
                        f"{os.path.basename(self.path)}: {index.num_other_type} x {what}_id"
                    )

    def _where(self, entry: int, image: int) -> str:
        return f"{self.describe(entry)}, image {os.path.basename(self.images[image].file_name)}"

    def _parse_box(self, entry: int, bbox, findings: Findings) -> list[float] | None:
        values = [parse_number(v) for v in bbox] if isinstance(bbox, (list, tuple)) else []
        if len(values) != 4 or None in values:
            findings.add("not_finite", f"{self.describe(entry)}: bbox {bbox!r:.100}")
            return None
        findings.add("as_text", f"{self.describe(entry)}, bbox: {bbox!r:.100}")
        return values

    def _parse_crowd(self, entry, raw, image, category, findings: Findings) -> int | None:
        value = raw.get("iscrowd")
        if value is None:
            if "iscrowd" in raw:
                findings.add("as_text", f"{self.describe(entry)}, iscrowd: None (taken as 0)")
            return 0  # `_check_area` reports it, together with a missing area
        flag = parse_flag(value)
        if flag is None:
            findings.add(
                "bad_value",
                f"{self._where(entry, image)}, iscrowd: {value!r}, which is neither 0 nor 1",
                self.categories[category].name,
            )
        elif not isinstance(value, (int, float)) or isinstance(value, bool):
            findings.add("as_text", f"{self.describe(entry)}, iscrowd: {value!r}")
        return flag

    def _check_area(self, entry: int, raw: dict, findings: Findings) -> None:
        missing = [k for k in ("area", "iscrowd") if k not in raw]
        area = raw.get("area", 0)
        if missing:
            findings.add("no_eval_keys", f"{self.describe(entry)}: lacks {missing}")
        if parse_number(area) is None:
            findings.add("no_eval_keys", f"{self.describe(entry)}: area {area!r}")
        elif isinstance(area, str):
            findings.add("as_text", f"{self.describe(entry)}, area: {area!r}")

    def _check_ignore(self, entry: int, raw: dict, image: int, findings: Findings) -> None:
        flag = parse_flag(raw["ignore"])
        if flag is None:
            findings.add("as_text", f"{self.describe(entry)}, ignore: {raw['ignore']!r} (not read)")
        elif flag:
            findings.add("ignore", self._where(entry, image))
        elif raw["ignore"]:
            findings.add("as_text", f"{self.describe(entry)}, ignore: {raw['ignore']!r}")


_INF = float("inf")


def _is_plain_box(bbox) -> bool:
    """Whether it is a list of four finite numbers, which needs no parsing."""
    if type(bbox) is not list or len(bbox) != 4:
        return False
    for value in bbox:
        kind = type(value)
        if kind is not float and kind is not int:
            return False
        if not -_INF < value < _INF:
            return False
    return True
