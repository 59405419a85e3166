"""Annotation files and split lists of the VOC format."""

import math
import os
from xml.etree.ElementTree import Element

from .text_files import read_lines, read_xml
from .values import parse_number

__all__ = [
    "class_names_of",
    "corners",
    "number_of",
    "read_split",
    "split_file",
    "stated_size",
    "text_of",
]


def split_file(root: str, split: str) -> str:
    """The file that lists the images of a split.

    Args:
        root: folder in VOC format.
        split: a name in ImageSets/Main, without .txt.
    """
    return os.path.join(root, "ImageSets", "Main", split + ".txt")


def read_split(root: str, split: str) -> list[tuple[int, str]]:
    """(number of its line, from 1, stem) of each image of a split.

    Args:
        root: folder in VOC format.
        split: a name in ImageSets/Main, without .txt.

    Raises:
        ValueError: the file is in an encoding that it does not declare; names it.
    """
    lines = enumerate(read_lines(split_file(root, split)), start=1)
    return [(line, text.strip()) for line, text in lines if text.strip()]


def class_names_of(root: str) -> list[str]:
    """The class names in all xml files of `root`/Annotations, sorted.

    Files that cannot be parsed are passed over here.

    Args:
        root: folder in VOC format.

    Raises:
        ValueError: there is no object in any of them.
    """
    folder = os.path.join(root, "Annotations")
    names, unreadable = set(), []
    for file in sorted(os.listdir(folder)):
        if file.endswith(".xml"):
            try:
                tree = read_xml(os.path.join(folder, file))
            except ValueError as e:
                unreadable.append(f"{file}: {e}")
                continue
            names.update(text_of(obj, "name") for obj in tree.findall("object"))
    names.discard("")
    if not names:
        reason = ""
        if unreadable:
            reason = f"; {len(unreadable)} of them cannot be read, first {unreadable[0]}"
        raise ValueError(
            f"no xml file in {folder} has an <object> with a <name>: no classes{reason}"
        )
    return sorted(names)


def corners(obj: Element) -> tuple[float, float, float, float]:
    """xmin, ymin, xmax and ymax of an object, as in the file; NaN for what is no number.

    Args:
        obj: the element <object>.
    """
    x0, y0, x1, y1 = (number_of(obj, f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax"))
    return x0, y0, x1, y1


def stated_size(tree: Element) -> tuple[int, int] | None:
    """(width, height) in pixels; None where they are not whole numbers from 1 on.

    Args:
        tree: the element <annotation>.
    """
    sides = [number_of(tree, f"size/{key}") for key in ("width", "height")]
    if not all(side >= 1 and side == int(side) for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def text_of(element: Element, path: str) -> str:
    """The text of a child without blanks around it; "" where there is none.

    Args:
        element: of an XML file.
        path: of the child below it, such as "size/width".
    """
    return (element.findtext(path) or "").strip()


def number_of(element: Element, path: str) -> float:
    """The number in a child; NaN where it is none.

    Args:
        element: of an XML file.
        path: of the child below it, such as "size/width".
    """
    number = parse_number(text_of(element, path))
    return math.nan if number is None else float(number)
