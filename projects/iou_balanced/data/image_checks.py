"""Whether an image and the boxes of its annotation file are in one frame."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from iou_balanced.formats.findings import Findings
from iou_balanced.formats.image_files import ImageError, ImageHeader, read_header, turn_boxes

__all__ = ["Placed", "place_on_image"]

_TOLERANCE = 1.0  # pixels; files round


class Placed(NamedTuple):
    """An image and its boxes as training gets them."""

    width: int
    height: int
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
        findings.add(
            "wide_pixels" if pixel_range is None else "scaled_pixels",
            f"{path}: mode {header.mode}",
        )
        if pixel_range is None:
            return None
    says = stated_text if stated is None else _text(stated)
    text = f"{where}: {says}, but {os.path.basename(path)} is {_text(size)}"
    if header.orientation != 1:
        text += f" (EXIF orientation {header.orientation}, stored as {_text(header.stored)})"
    boxes = list(boxes)
    if stated is None:
        findings.add("no_size", text)
    on_stored = stated == header.stored != size
    if on_stored and may_turn:
        findings.add("exif_turned", text)
        boxes = [None if box is None else turn_boxes(box, header) for box in boxes]
    elif on_stored or _fit_only(boxes, _candidates(stated, header), size):
        findings.add("other_frame", text)
        return None
    elif stated not in (None, size):
        findings.add("wrong_size", text)
    elif header.orientation != 1 and boxes and (stated is None or header.stored == size):
        # A mirrored or square image has the same size either way.
        findings.add("exif_unsure", f"{path}: EXIF orientation {header.orientation}")
    return Placed(*size, boxes)


def _candidates(stated: tuple[int, int] | None, header: ImageHeader) -> list[tuple[int, int]]:
    """Other frames that the boxes may be in."""
    return [frame for frame in (stated, header.stored) if frame is not None]


def _fit_only(boxes, frames: list[tuple[int, int]], size: tuple[int, int]) -> bool:
    """Whether all boxes are inside one of `frames`, and some stick out of `size` altogether."""
    known = [box for box in boxes if box is not None]
    return not _fit(known, size) and any(frame != size and _fit(known, frame) for frame in frames)


def _fit(boxes, size: tuple[int, int]) -> bool:
    return all(
        min(x0, y0) >= -_TOLERANCE and x1 <= size[0] + _TOLERANCE and y1 <= size[1] + _TOLERANCE
        for x0, y0, x1, y1 in boxes
    )


def _text(size: tuple[int, int]) -> str:
    return "{} x {}".format(*size)
