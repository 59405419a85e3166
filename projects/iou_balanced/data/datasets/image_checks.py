"""Whether an image and the boxes of its annotation file are in one frame."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from iou_balanced.data.image_reading import can_scale
from iou_balanced.formats.findings import Findings
from iou_balanced.formats.image_files import ImageError, ImageHeader, read_header, turn_boxes

__all__ = ["Placed", "place_on_image", "place_records"]

_TOLERANCE = 1.0  # pixels; files round
# JPEG's values have 8 bits: the file need not be opened to know it.
_8_BIT_SUFFIXES = (".jpg", ".jpeg")
# Headers of other images are read, which takes a tenth of a second. Of COCO's 118,287, on a slow
# disk, it would take minutes, and tell nothing that a part of them does not.
_NUM_HEADERS = 1000


class Placed(NamedTuple):
    """An image and its boxes as training gets them."""

    width: int
    """In pixels."""
    height: int
    """In pixels."""
    boxes: list
    """(x0, y0, x1, y1) or None, as they came or turned along with the image."""


def place_on_image(
    path: str,
    boxes: Sequence[Sequence[float] | None],
    *,
    stated: tuple[int, int] | None,
    where: str,
    findings: Findings,
    stated_text: str = "no size",
    pixel_range=None,
    may_turn: bool = True,
) -> Placed | None:
    """Bring boxes into the frame of the image that Detectron2 reads, which is turned as EXIF says.

    The boxes are on the stored pixels where the annotation file states their size and not that of
    the image as it is seen. Where the sizes differ otherwise, the boxes decide: do they fit the
    stated size and not the image, they were drawn on another one, and the image is refused.

    Args:
        path: of the image.
        boxes: (x0, y0, x1, y1) in pixels; None where it could not be read.
        stated: (width, height) by the annotation file; None where it does not say it.
        where: names the image in its annotation file.
        findings: gets what was found.
        stated_text: what the annotation file has in the place of a size.
        pixel_range: of images with more than 8 bits, see `check_pixel_range`.
        may_turn: false refuses the image instead of turning its boxes.

    Returns:
        None where the image is refused.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        header = read_header(path)
    except ImageError as e:
        findings.add("unreadable_image", str(e))
        return None
    size = (header.width, header.height)
    if header.is_wide:
        is_scaled = can_scale(header.mode, pixel_range)
        kind = "scaled_pixels" if is_scaled else "wide_pixels"
        findings.add(kind, f"{path}: mode {header.mode}")
        if not is_scaled:
            return None
    says = stated_text if stated is None else _text(stated)
    text = f"{where}: {says}, but {os.path.basename(path)} is {_text(size)}"
    if header.orientation != 1:
        text += f" (EXIF orientation {header.orientation}, stored as {_text(header.stored)})"
    boxes = list(boxes)
    if stated is None:
        findings.add("no_size", text)
    known = [box for box in boxes if box is not None]
    on_stored = stated == header.stored != size
    if on_stored and may_turn and _fit(known, size) and not _fit(known, header.stored):
        findings.add("wrong_size", text)  # drawn on the image as it is seen
    elif on_stored and may_turn:
        findings.add("exif_turned", text)
        boxes = [None if box is None else turn_boxes(box, header) for box in boxes]
    elif on_stored or _are_on_another(known, stated, header):
        findings.add("other_frame", text)
        return None
    elif stated not in (None, size):
        findings.add("wrong_size", text)
    elif header.orientation != 1 and boxes and (stated is None or header.stored == size):
        # A mirrored or square image has the same size either way.
        findings.add("exif_unsure", f"{path}: EXIF orientation {header.orientation}")
    return Placed(*size, boxes)


def place_records(
    records: list[dict], json_file: str, findings: Findings, pixel_range=None
) -> list[dict]:
    """The images of a COCO JSON file whose boxes are on them, with sizes that are theirs.

    Boxes are not turned: evaluation is against the file, whose boxes would stay as they are.

    Args:
        records: in Detectron2's format, boxes (x, y, width, height); "width" and "height" may be
            None. Sizes are mended in place.
        json_file: for the findings.
        findings: gets what was found.
        pixel_range: see `place_on_image`.
    """
    sure = [r for r in records if r["width"] and r["file_name"].lower().endswith(_8_BIT_SUFFIXES)]
    step = max(len(sure) / _NUM_HEADERS, 1)
    part = [sure[int(i * step)] for i in range(int(len(sure) / step))]
    if len(part) < len(sure) and all(_is_as_stated(r, _header(r)) for r in part):
        passed = set(map(id, sure))
    else:
        headers = ((r, _header(r)) for r in sure)
        passed = {
            id(r)
            for r, header in headers
            # A header that cannot be read counts as right here: reading the image says so later.
            if _is_as_stated(r, header)
        }
    return [
        r for r in records if id(r) in passed or _is_placed(r, json_file, findings, pixel_range)
    ]


def _header(record: dict) -> ImageHeader | None:
    try:
        return read_header(record["file_name"])
    except (OSError, ImageError):
        return None


def _is_as_stated(record: dict, header: ImageHeader | None) -> bool:
    """Whether size and orientation leave no question; also where there is no header to read."""
    stated = (record["width"], record["height"])
    is_upright = header is None or header.orientation == 1
    return header is None or (is_upright and stated == (header.width, header.height))


def _is_placed(record: dict, json_file: str, findings: Findings, pixel_range) -> bool:
    path, width, height = record["file_name"], record["width"], record["height"]
    bboxes = [a["bbox"] for a in record.get("annotations", ())]
    try:
        placed = place_on_image(
            path,
            [(x, y, x + w, y + h) for x, y, w, h in bboxes],
            stated=None if width is None else (width, height),
            where=f"{os.path.basename(json_file)}, image id {record['image_id']!r}",
            findings=findings,
            pixel_range=pixel_range,
            may_turn=False,
        )
    except FileNotFoundError:
        return True  # the validation says so
    if placed is None:
        return False
    record["width"], record["height"] = placed.width, placed.height
    return True


def _are_on_another(boxes, stated: tuple[int, int] | None, header: ImageHeader) -> bool:
    """Whether the boxes are on an image of another size, or of the stored pixels.

    They are where they stick out of the image and fit one of these; and where they fit both, but
    the stated size is the image's in proportion: then the image was scaled, and they were not.
    """
    size = (header.width, header.height)
    others = [frame for frame in (stated, header.stored) if frame not in (None, size)]
    if not _fit(boxes, size):
        return any(_fit(boxes, frame) for frame in others)
    if not boxes or stated in (None, size) or not _fit(boxes, stated):
        return False
    scale = size[0] / stated[0]
    return abs(stated[1] * scale - size[1]) <= max(1.0, scale)


def _fit(boxes, size: tuple[int, int]) -> bool:
    return all(
        min(x0, y0) >= -_TOLERANCE and x1 <= size[0] + _TOLERANCE and y1 <= size[1] + _TOLERANCE
        for x0, y0, x1, y1 in boxes
    )


def _text(size: tuple[int, int]) -> str:
    return "{} x {}".format(*size)
