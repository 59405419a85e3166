"""From the polygons of a Cityscapes image to boxes.

cityscapesscripts paints the polygons of a file in their order, each over the ones before, and what
remains visible is the ground truth of its instance images (`json2instanceImg.py`). The same is done
here, in one image of integers with Pillow, so that each region equals theirs pixel by pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["BOXES", "GROUPS", "CityscapesObject", "category_names", "visible_objects"]

BOXES = ("visible", "polygon")
GROUPS = ("polygon", "class")
_GROUP = "group"


@dataclass(frozen=True)
class CityscapesObject:
    """An object of one of the 8 classes, or a group of such, of which at least one pixel shows."""

    category_id: int
    """Of cityscapesscripts' labels: 24 is person, 33 is bicycle."""
    bbox: tuple[int, int, int, int]
    """XYWH in pixels."""
    area: int
    """Visible pixels."""
    is_group: bool
    """Whether it is a group, such as "persongroup"."""


def category_names() -> dict[int, str]:
    """The label ids and names of the 8 classes of Cityscapes' instances, in their order there.

    These are the labels that have instances and are not ignored in evaluation, so neither caravan
    nor trailer.

    Raises:
        ImportError: cityscapesscripts is not installed.
    """
    labels = _labels().labels
    return {x.id: x.name for x in labels if x.hasInstances and not x.ignoreInEval}


def visible_objects(
    content: dict, *, boxes: str = "visible", groups: str = "polygon"
) -> tuple[list[CityscapesObject], int]:
    """The objects in a `*_gtFine_polygons.json`.

    All polygons are painted, of whatever label, but for those that are marked "deleted" and those
    of labels without an id (license plate). An object whose every pixel is painted over by others
    is left out.

    Args:
        content: the parsed file.
        boxes: "visible", around the pixels that show; or "polygon", around the polygon within the
            image, also where something hides it.
        groups: what becomes one object of several polygons of the same group label (persongroup):
            "polygon", each of them; or "class", all together, as in cityscapesscripts' instance
            images, where groups have no number.

    Returns:
        the objects in the order of the file, and the number of those that were left out.

    Raises:
        ValueError: an object cannot be drawn, or has a label that cityscapesscripts does not have;
            names its place in the file. Other content, as a KeyError or TypeError.
        ImportError: cityscapesscripts is not installed.
    """
    size = width, height = content["imgWidth"], content["imgHeight"]
    names = category_names()
    image = Image.new("I", size)
    draw = ImageDraw.Draw(image)
    painted: dict[int, _Painted] = {}  # color -> what has it
    for number, item in enumerate(content["objects"], start=1):
        if item.get("deleted"):
            continue
        label, is_group = _label_of(item["label"], f"objects[{number - 1}]")
        if label.id < 0:
            continue
        # Negative colors are free for the groups of a class.
        color = -label.id if is_group and groups == "class" else number
        try:
            polygon = [(x, y) for x, y in item["polygon"]]
            draw.polygon(polygon, fill=color)
        except (TypeError, ValueError) as e:
            raise ValueError(
                f"objects[{number - 1}], a {item['label']}: polygon {item['polygon']} cannot be "
                f"drawn ({e})"
            ) from e
        if label.id in names:
            extent = _extent(polygon, width, height)
            if color in painted:
                extent = _around(painted[color].extent, extent)
            painted[color] = _Painted(label.id, is_group, extent)

    colors = np.asarray(image)  # (height, width)
    objects = []
    for color, thing in painted.items():
        x0, y0, x1, y1 = thing.extent
        region = colors[y0:y1, x0:x1] == color
        rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
        if not len(rows):
            continue
        if boxes == "visible":
            x1, y1 = x0 + columns[-1] + 1, y0 + rows[-1] + 1
            x0, y0 = x0 + columns[0], y0 + rows[0]
        bbox = tuple(int(v) for v in (x0, y0, x1 - x0, y1 - y0))
        objects.append(CityscapesObject(thing.category_id, bbox, int(region.sum()), thing.is_group))
    return objects, len(painted) - len(objects)


@dataclass(frozen=True)
class _Painted:
    category_id: int
    is_group: bool
    extent: tuple[int, int, int, int]  # XYXY of all its pixels, hidden ones too


def _labels() -> ModuleType:
    try:
        from cityscapesscripts.helpers import labels
    except ImportError as e:
        raise ImportError(
            "Cityscapes' polygons need the labels of cityscapesscripts: pip install "
            "cityscapesScripts, or install this project with its [cityscapes] extra"
        ) from e
    return labels


def _label_of(name: str, place: str) -> tuple:
    """The label of a name in a file, and whether it is the name of a group of such.

    Raises:
        ValueError: cityscapesscripts does not have it.
    """
    known = _labels().name2label
    if name in known:
        return known[name], False
    single = name.removesuffix(_GROUP)
    if single != name and single in known:
        return known[single], True
    raise ValueError(f"{place} has the label {name!r}, which cityscapesscripts does not have")


def _extent(polygon: Sequence[tuple], width: int, height: int) -> tuple[int, int, int, int]:
    """XYXY around the pixels of a polygon; its points are pixels and belong to it."""
    xs, ys = [x for x, _ in polygon], [y for _, y in polygon]
    return (
        max(math.floor(min(xs)), 0),
        max(math.floor(min(ys)), 0),
        min(math.ceil(max(xs)) + 1, width),
        min(math.ceil(max(ys)) + 1, height),
    )


def _around(a: tuple, b: tuple) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
