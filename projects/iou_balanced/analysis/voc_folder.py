"""A folder in VOC format, without its images: the objects that `register_voc_dir` gives."""

import math
import os
from collections import Counter
from dataclasses import dataclass, field

from iou_balanced.formats.class_names import list_names
from iou_balanced.formats.text_files import read_xml
from iou_balanced.formats.values import parse_flag
from iou_balanced.formats.voc_xml import (
    class_names_of,
    corners,
    read_split,
    split_file,
    stated_size,
    text_of,
)

__all__ = ["VOCFolder", "read_voc_folder"]

_MIN_SIDE = 1.0  # as in training: xmax == xmin is a stray click


@dataclass
class VOCFolder:
    """Columns by image, and by object."""

    class_names: list[str]
    """All of Annotations, of whatever split, sorted: an evaluated class is a place in this list."""
    stems: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """The line in the split's file, from 1: the image_id of `register_voc_dir`."""
    file_names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height; 0 where the file does not say it."""
    image: list[int] = field(default_factory=list)
    category: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    """x, y, width, height in pixels, from 0, clipped to the image."""
    difficult: list[int] = field(default_factory=list)
    num_dropped: int = 0
    """Boxes without area in their image, or that are no numbers."""


def read_voc_folder(root: str, split: str | None = None) -> VOCFolder:
    """Read the annotations of a split.

    Args:
        root: the folder, with Annotations.
        split: a name in ImageSets/Main; may be None where there is one only, or none at all, which
            means all xml files in the order of their names.

    Raises:
        OSError: a file cannot be read.
        ValueError: no such folder or split; no classes; an xml file that cannot be parsed.
    """
    annotations = os.path.join(root, "Annotations")
    if not os.path.isdir(annotations):
        raise ValueError(
            f"{root} is no folder in VOC format: it has no folder Annotations. Ground truth is a "
            "COCO JSON file, or such a folder"
        )
    folder = VOCFolder(class_names_of(root))
    places = {name: k for k, name in enumerate(folder.class_names)}
    images = _files_by_stem(root)
    for number, stem in _images(root, split):
        path = os.path.join(annotations, f"{stem}.xml")
        try:
            tree = read_xml(path)
        except FileNotFoundError as e:
            raise ValueError(f"{path} does not exist, but the split lists {stem}") from e
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e
        image = len(folder.stems)
        size = stated_size(tree) or (0, 0)
        folder.stems.append(stem)
        folder.numbers.append(number)
        # As where a folder is trained on: the file of the stem, or else the one that is named.
        named = (text_of(tree, "filename") or stem).replace("\\", "/").rsplit("/", 1)[-1]
        folder.file_names.append(images.get(stem, named))
        folder.sizes.append(size)
        for obj in tree.findall("object"):
            box = _box(corners(obj), size)
            if box is None or text_of(obj, "name") not in places:
                folder.num_dropped += 1
                continue
            folder.image.append(image)
            folder.category.append(places[text_of(obj, "name")])
            folder.boxes.append(box)
            folder.difficult.append(parse_flag(text_of(obj, "difficult") or 0) or 0)
    return folder


def _images(root: str, split: str | None) -> list[tuple[int, str]]:
    lists = os.path.join(root, "ImageSets", "Main")
    found = sorted(os.listdir(lists)) if os.path.isdir(lists) else []
    # VOC's own lists of a class, person_val.txt, have a second column.
    splits = [f[: -len(".txt")] for f in found if f.endswith(".txt")]
    if split is None and not splits:
        stems = [os.path.splitext(f) for f in sorted(os.listdir(os.path.join(root, "Annotations")))]
        return [(i, s) for i, s in enumerate((s for s, e in stems if e == ".xml"), start=1)]
    if split is None and len(splits) > 1:
        raise ValueError(
            f"{root} has the splits {list_names(splits)}: say which one the results are of, as "
            f"--split {splits[-1]}"
        )
    split = splits[0] if split is None else split
    if split not in splits:
        raise ValueError(
            f"split {split!r}: {split_file(root, split)} does not exist; splits there: "
            f"{list_names(splits)}"
        )
    images = read_split(root, split)
    twice = sorted(stem for stem, n in Counter(stem for _, stem in images).items() if n > 1)
    if twice:
        raise ValueError(f"{split_file(root, split)} lists {list_names(twice)} more than once")
    return images


def _files_by_stem(root: str) -> dict[str, str]:
    folder = os.path.join(root, "JPEGImages")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return {os.path.splitext(name)[0]: name for name in names}


def _box(values: tuple, size: tuple[int, int]) -> list[float] | None:
    """From pixels counted from 1, both ends included."""
    if not all(map(math.isfinite, values)):
        return None
    x0, y0, x1, y1 = values[0] - 1, values[1] - 1, values[2], values[3]
    if x1 - x0 <= _MIN_SIDE or y1 - y0 <= _MIN_SIDE:
        return None
    if all(size):
        x0, y0 = max(x0, 0.0), max(y0, 0.0)
        x1, y1 = min(x1, size[0]), min(y1, size[1])
    if x1 <= x0 or y1 <= y0:
        return None
    return [x0, y0, x1 - x0, y1 - y0]
