"""Boxes that no annotator drew: shares of the image, or corners in the place of width and height.

One box proves nothing, since objects stick out of images and some are tiny; many boxes do.
"""

from .findings import Findings

__all__ = ["BoxFormatCheck"]

# Objects that are annotated beyond the image's border leave it too, but seldom so that the same
# four numbers make a box inside the image when they are read as two corners.
_REFUSED_CORNERS = 0.3  # of the boxes, and all others can be read as corners too
_TOLD_CORNERS = 0.1
_FEW_BOXES = 8  # with fewer, it is told and not refused
# An object of less than a pixel in the first pixel of its image is next to impossible.
_REFUSED_SHARES = 0.5
_TOLD_SHARES = 0.05


class BoxFormatCheck:
    """Looks at all boxes of a file that should be (x, y, width, height) in pixels.

    Thresholds: a file is refused where half of its boxes or more are smaller than a pixel and lie
    in the first pixel of images of 3 pixels and more; or where it has 8 boxes and more, of which
    30% leave their image by more than 1 pixel and 1% of its side but fit it when read as two
    corners, and 99% can be read so. From 5% and 10% on it is a finding.
    """

    def __init__(self, json_file: str) -> None:
        self._file = json_file
        self._num_boxes = self._shares = self._corners = self._like_corners = 0
        self._examples: dict[str, list[str]] = {"shares": [], "xyxy": []}

    def add(self, x, y, w, h, width, height, source) -> None:
        """A box (x, y, w, h) of an image of width x height; str(source) says where it stands."""
        self._num_boxes += 1
        if w > x >= 0 and h > y >= 0 and w <= width + 1 and h <= height + 1:
            self._like_corners += 1
            if x + w > width + max(1, 0.01 * width) or y + h > height + max(1, 0.01 * height):
                self._corners += 1
                self._keep("xyxy", x, y, w, h, width, height, source)
        in_first_pixel = 0 <= x <= 1 and 0 <= y <= 1 and 0 < w <= 1 and 0 < h <= 1
        if in_first_pixel and (w < 1 or h < 1) and min(width, height) >= 3:
            self._shares += 1
            self._keep("shares", x, y, w, h, width, height, source)

    def _keep(self, kind, x, y, w, h, width, height, source) -> None:
        if len(self._examples[kind]) < 5:
            self._examples[kind].append(
                f"{source}: bbox [{x:g}, {y:g}, {w:g}, {h:g}], image {width} x {height}"
            )

    def report(self, findings: Findings) -> None:
        """Add to `findings` what is suspicious.

        Raises:
            ValueError: the file as a whole is in another format; says which, with examples.
        """
        boxes = max(self._num_boxes, 1)
        if self._shares and self._shares >= _REFUSED_SHARES * boxes:
            raise ValueError(
                f"{self._file}: {self._shares} of {self._num_boxes} boxes are smaller than a pixel "
                "and lie in the first pixel of their image: are these shares of the image? COCO's "
                "bbox is [x, y, width, height] in pixels: multiply by the image's width and "
                f"height. First: {self._examples['shares'][0]}"
            )
        if (
            boxes >= _FEW_BOXES
            and self._corners >= _REFUSED_CORNERS * boxes
            and self._like_corners >= 0.99 * boxes
        ):
            raise ValueError(
                f"{self._file}: {self._corners} of {self._num_boxes} boxes leave their image as "
                "[x, y, width, height], COCO's bbox, and all fit when they are read as two "
                'corners, [x0, y0, x1, y1]: is the file in corners? bbox_format="xyxy" reads it '
                'so; bbox_format="xywh" takes it as it is. First: '
                f"{self._examples['xyxy'][0]}"
            )
        for kind, count, least in (
            ("shares", self._shares, _TOLD_SHARES),
            ("xyxy", self._corners, _TOLD_CORNERS),
        ):
            if count >= max(least * boxes, 2):
                findings.counts[kind] += count
                findings.examples[kind] += self._examples[kind]
