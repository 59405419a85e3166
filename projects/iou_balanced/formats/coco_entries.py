"""The lists "images" and "categories" of a COCO JSON file."""

from typing import Any, NamedTuple

from .findings import Findings
from .values import in_order, is_id, parse_number

__all__ = ["CocoCategory", "CocoImage", "read_categories", "read_images"]

_LONGEST = 2**31 - 1  # pixels of a side, in every format of images


class CocoImage(NamedTuple):
    """An entry of "images"."""

    id: int | float | str
    """As in the file."""
    file_name: str
    """As in the file."""
    width: int | None
    """In pixels; None where the file does not say it."""
    height: int | None
    """As the width."""


class CocoCategory(NamedTuple):
    """An entry of "categories"."""

    id: int | float | str
    """As in the file."""
    name: str
    """As in the file."""


def _key(path: str, entry: dict, key: str, where: str):
    if key not in entry:
        raise ValueError(f"{path} is not COCO JSON: {where} lacks {key!r}")
    return entry[key]


def _id(path: str, entry: dict, where: str):
    value = _key(path, entry, "id", where)
    if not is_id(value):
        raise ValueError(
            f"{path}: {where} has the id {value!r}: it has to be a whole number or text"
        )
    return value


def read_categories(path: str, entries: list[dict], findings: Findings) -> list[CocoCategory]:
    """The categories in the order of their ids, see `iou_balanced.formats.values.in_order`.

    Args:
        path: of the file, for errors.
        entries: the list in the file.
        findings: gets what is odd but can be read.

    Raises:
        ValueError: an id that two categories have, or a name; names both.
    """
    by_id: dict[Any, str] = {}
    ids: dict[str, Any] = {}
    for i, entry in enumerate(entries):
        where = f"categories[{i}]"
        value, name = _id(path, entry, where), _key(path, entry, "name", where)
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or name == "":
            raise ValueError(f"{path}: {where} has the name {name!r}: it has to be text")
        name = str(name)
        if by_id.get(value) == name:
            findings.add("as_text", f"{where} repeats category {value!r}, {name!r}")
            continue
        if value in by_id:
            raise ValueError(
                f"{path} has the category id {value!r} twice, for {by_id[value]!r} and "
                f"for {name!r}: its boxes would be of either class. Give each category an id "
                "of its own"
            )
        if name in ids:
            raise ValueError(
                f"{path} has the class name {name!r} under two category ids, "
                f"{ids[name]!r} and {value!r}; classes are matched by name: rename one, or "
                "give the boxes of both one category_id"
            )
        by_id[value], ids[name] = name, value
    order = in_order(by_id)
    items = list(by_id.items())
    return [CocoCategory(*items[i]) for i in order]


def read_images(path: str, entries: list[dict], findings: Findings) -> list[CocoImage]:
    """The images in the order of their ids, likewise.

    Args:
        path: of the file, for errors.
        entries: the list in the file.
        findings: gets what is odd but can be read.

    Raises:
        ValueError: an id that two images have; names both.
    """
    images, places, files = [], {}, {}
    for i, entry in enumerate(entries):
        where = f"images[{i}]"
        value, name = _id(path, entry, where), _key(path, entry, "file_name", where)
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{path}: {where} has the file_name {name!r}: it has to be the path of an image"
            )
        if value in places:
            other = images[places[value]].file_name
            raise ValueError(
                f"{path} has the image id {value!r} twice, for {other} and for {name} "
                f"(images[{places[value]}] and {where}): the boxes of both would be one "
                "image's. Where files were merged, renumber the images and the image_id of "
                "their boxes"
            )
        places[value] = i
        if name in files:
            findings.add("same_file", f"{name}: images[{files[name]}] and {where}")
        files.setdefault(name, i)
        size = tuple(_side(findings, entry, key, where) for key in ("width", "height"))
        images.append(CocoImage(value, name, *(size if None not in size else (None, None))))
    return [images[i] for i in in_order(image.id for image in images)]


def _side(findings: Findings, entry: dict, key: str, where: str) -> int | None:
    value = entry.get(key)
    if type(value) is int and 0 < value <= _LONGEST:
        return value
    number = parse_number(value)
    if number is None or not 1 <= number <= _LONGEST or number != int(number):
        return None
    if isinstance(value, str):
        findings.add("as_text", f"{where}, {key}: {value!r}")
    return int(number)
