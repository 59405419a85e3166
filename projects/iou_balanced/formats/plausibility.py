"""Boxes that no annotator drew: shares of the image, or the other of the two box formats.

One box proves nothing, since objects stick out of images and some are tiny; many boxes do.
"""

from .findings import Findings

__all__ = ["FEW_BOXES", "REFUSED_FORMAT", "REFUSED_SHARES", "TOLD_FORMAT", "BoxFormatCheck"]

# Objects that are annotated beyond the image's border leave it too, but seldom so that the same
# four numbers make a box inside the image when they are read in the other format.
REFUSED_FORMAT = 0.3  # of the boxes, and all others can be read in the other format too
TOLD_FORMAT = 0.1
FEW_BOXES = 8  # with fewer, it is told and not refused
# An object of less than a pixel in the first pixel of its image is next to impossible.
REFUSED_SHARES = 0.5
_TOLD_SHARES = 0.05
_NUM_EXAMPLES = 5

_FORMATS = {
    "xywh": (
        "boxes leave their image as [x, y, width, height], COCO's bbox, and all fit when they are "
        'read as two corners, [x0, y0, x1, y1]: is the file in corners? bbox_format="xyxy" reads '
        'it so; bbox_format="xywh" takes it as it is'
    ),
    "xyxy": (
        "boxes end before they begin as two corners (xmin, ymin, xmax, ymax), and all fit when "
        "they are read as (x, y, width, height): VOC's xmax and ymax are the last pixel's"
    ),
}
_SHARES = {
    "xywh": "COCO's bbox is [x, y, width, height] in pixels",
    "xyxy": "VOC's bndbox is in pixels, from 1",
}
_KINDS = {"xywh": "xyxy", "xyxy": "xywh"}  # format -> finding: it looks like the other one


class BoxFormatCheck:
    """Looks at all boxes of a file that should be of one format, in pixels.

    Thresholds: a file is refused where half of its boxes or more are smaller than a pixel and lie
    in the first pixel of images of 3 pixels and more; or where it has 8 boxes and more, of which
    30% make no sense in its format (they leave the image by more than 1 pixel and 1% of its side,
    or end before they begin) but fit the image in the other one, and 99% can be read so. From 5%
    and 10% on, and 2 boxes, it is a finding.

    Args:
        file: its name, for errors.
        box_format: "xywh", (x, y, width, height), or "xyxy", two corners.
    """

    def __init__(self, file: str, box_format: str = "xywh") -> None:
        self._file, self._format = file, box_format
        self._num_boxes = self._like_other = 0
        self._counts = {"shares": 0, "other": 0}
        self._examples: dict[str, list[str]] = {"shares": [], "other": []}

    def add(self, a, b, c, d, width, height, source) -> None:
        """Take in a box.

        Args:
            a: first of its four numbers, x or xmin.
            b: the second, y or ymin.
            c: the third, the width or xmax.
            d: the fourth, the height or ymax.
            width: of the image in pixels.
            height: of the image in pixels.
            source: str(source) says where the box stands.
        """
        self._num_boxes += 1
        numbers = (a, b, c, d)
        if self._format == "xywh":
            # As corners: the second one is after the first, and inside.
            if c > a >= 0 and d > b >= 0 and c <= width + 1 and d <= height + 1:
                self._like_other += 1
                beyond = a + c > width + max(1, 0.01 * width)
                if beyond or b + d > height + max(1, 0.01 * height):
                    self._keep("other", numbers, width, height, source)
        elif a >= 0 < c and b >= 0 < d and a + c <= width + 2 and b + d <= height + 2:
            self._like_other += 1
            if c < a or d < b:
                self._keep("other", numbers, width, height, source)
        is_share = 0 <= a <= 1 and 0 <= b <= 1 and 0 < c <= 1 and 0 < d <= 1
        if is_share and (c < 1 or d < 1) and min(width, height) >= 3:
            self._keep("shares", numbers, width, height, source)

    def _keep(self, what: str, numbers, width, height, source) -> None:
        self._counts[what] += 1
        if len(self._examples[what]) < _NUM_EXAMPLES:
            box = ", ".join(f"{v:g}" for v in numbers)
            self._examples[what].append(f"{source}: box [{box}], image {width} x {height}")

    def report(self, findings: Findings) -> None:
        """Add what is suspicious.

        Args:
            findings: gets it.

        Raises:
            ValueError: the file as a whole is in another format; says which, with an example.
        """
        boxes, shares, other = self._num_boxes, self._counts["shares"], self._counts["other"]
        if shares and shares >= REFUSED_SHARES * boxes:
            raise ValueError(
                f"{self._file}: {shares} of {boxes} boxes are smaller than a pixel and lie in the "
                f"first pixel of their image: are these shares of the image? "
                f"{_SHARES[self._format]}: multiply by the image's width and height. First: "
                f"{self._examples['shares'][0]}"
            )
        is_other = other >= REFUSED_FORMAT * boxes and self._like_other >= 0.99 * boxes
        if boxes >= FEW_BOXES and is_other:
            raise ValueError(
                f"{self._file}: {other} of {boxes} {_FORMATS[self._format]}. First: "
                f"{self._examples['other'][0]}"
            )
        for what, kind, least in (
            ("shares", "shares", _TOLD_SHARES),
            ("other", _KINDS[self._format], TOLD_FORMAT),
        ):
            if self._counts[what] >= max(least * boxes, 2):
                findings.counts[kind] += self._counts[what]
                findings.examples[kind] += self._examples[what]
