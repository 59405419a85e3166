"""Checks of the data where it enters: what cannot be trained on is named, then dropped or refused.

Detectron2's loaders either fail on such data with an error that names no file, or train on it.
"""

import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from numbers import Integral

from detectron2.structures import BoxMode
from detectron2.utils import comm

from iou_balanced.formats.class_names import spelled_alike
from iou_balanced.formats.findings import Findings
from iou_balanced.formats.values import parse_number

__all__ = ["CheckedLoader", "Findings", "validate_dataset_dicts"]

logger = logging.getLogger(__name__)

# In pixels: coordinates that stick out by less were rounded in the file, and are left alone.
_ROUNDING = 0.01
_PLAIN = (int, float)


def validate_dataset_dicts(
    dicts: list[dict],
    findings: Findings | None = None,
    *,
    num_classes: int,
    min_side: float = 0.0,
    class_names: Sequence[str] | None = None,
) -> tuple[list[dict], Findings]:
    """Drop or mend what cannot be trained on, and say what that was.

    Args:
        dicts: in Detectron2's standard format, boxes (4,) in XYXY_ABS or XYWH_ABS pixels. They are
            not changed. An annotation may have a key "_source", whose text says where it stands in
            its file (it is taken out); a category_id that is no number in [0, num_classes) is an
            unknown class.
        findings: of the loader, to go on with.
        num_classes: number of known classes.
        min_side: a box with a width or height of this many pixels or fewer has no area.
        class_names: of the known classes, so that findings are counted by class too.

    Returns:
        the dicts that remain and the findings. An image that loses all its boxes remains, as one
        without boxes; an image without its file does not.
    """
    findings = Findings() if findings is None else findings
    copies = [
        {**record, "annotations": [dict(a) for a in record["annotations"]]}
        if "annotations" in record
        else dict(record)
        for record in dicts
    ]
    return _validate(copies, findings, num_classes, min_side, class_names), findings


def _validate(dicts, findings, num_classes, min_side, class_names) -> list[dict]:
    """As `validate_dataset_dicts`, but in place: a million boxes need no second copy."""
    kept = []
    for record in dicts:
        if not os.path.isfile(record["file_name"]):
            findings.add("missing_image", record["file_name"])
            continue
        if "annotations" in record:
            checked = [
                _checked_annotation(a, i, record, findings, num_classes, min_side, class_names)
                for i, a in enumerate(record["annotations"])
            ]
            record["annotations"] = [a for a in checked if a is not None]
        kept.append(record)
    return kept


def _checked_annotation(
    annotation: dict,
    index: int,
    record: dict,
    findings: Findings,
    num_classes: int,
    min_side: float,
    class_names: Sequence[str] | None,
) -> dict | None:
    source = annotation.pop("_source", None)

    def add(kind: str, text: str, category=None) -> None:
        if findings.wants_example(kind):
            where = f"{record['file_name']}, box {index}" if source is None else source
            text = f"{where}: {text}"
        known = class_names is not None and category is not None
        findings.add(kind, text, class_names[category] if known else None)

    box = _xyxy(annotation)
    if box is None:
        add("not_finite", str(annotation.get("bbox")))
        return None
    x0, y0, x1, y1 = box
    category = annotation.get("category_id")
    # A bool is a number to Python, and so to `Integral`.
    if not isinstance(category, Integral) or category is True or category is False:
        add("unknown_class", f"class {category!r}, {_text(box)}")
        return None
    if not 0 <= category < num_classes:
        add("unknown_class", f"class {category!r}, {_text(box)}")
        return None

    width, height = record["width"], record["height"]
    if x1 - x0 <= min_side or y1 - y0 <= min_side:
        add("no_area", _text(box), category)
        return None
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        add("outside", f"{_text(box)}, image {width} x {height}", category)
        return None
    if max(-x0, -y0, x1 - width, y1 - height) > _ROUNDING:
        add("clipped", f"{_text(box)}, image {width} x {height}", category)
        box = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
        annotation["bbox"] = BoxMode.convert(box, BoxMode.XYXY_ABS, annotation["bbox_mode"])
    return annotation


def _text(box: Sequence[float]) -> str:
    return "({})".format(", ".join(f"{v:g}" for v in box))


def _xyxy(annotation: dict) -> list[float] | None:
    """The box in XYXY pixels; None where it is not four numbers.

    Where numbers are text, the annotation gets what they were read as.

    Raises:
        ValueError: the box is in another mode than XYXY_ABS and XYWH_ABS.
    """
    try:
        bbox = annotation["bbox"]
        a, b, c, d = bbox
    except (KeyError, TypeError, ValueError):
        return None
    if not (type(a) in _PLAIN and type(b) in _PLAIN and type(c) in _PLAIN and type(d) in _PLAIN):
        # numpy's numbers too
        values = [parse_number(v.item() if hasattr(v, "item") else v) for v in (a, b, c, d)]
        if None in values:
            return None
        annotation["bbox"] = values
        a, b, c, d = values
    mode = annotation["bbox_mode"]
    if mode == BoxMode.XYWH_ABS:
        c, d = a + c, b + d
    elif mode != BoxMode.XYXY_ABS:
        raise ValueError(f"bbox_mode must be XYXY_ABS or XYWH_ABS, but got {mode!r}")
    try:
        if not math.isfinite(a + b + c + d):
            return None
    except OverflowError:  # a whole number beyond all floats
        return None
    return [a, b, c, d]


class CheckedLoader:
    """A loader for Detectron2's DatasetCatalog that validates what it loads.

    Args:
        load: returns the raw dicts and the loader's own findings.
        name: of the data set, for the summary.
        class_names: the K known classes.
        on_invalid: "drop" logs one summary, the first time and on the main process only; "error"
            raises it, each time and on each process.
        min_side: as in `validate_dataset_dicts`.
        note: a last line for the summary, where anything is wrong.

    Raises:
        ValueError: on a bad on_invalid; when called: on findings with on_invalid="error", and where
            no image remains, or no box of those that there were, with the causes.
    """

    def __init__(
        self,
        load: Callable[[], tuple[list[dict], Findings]],
        *,
        name: str,
        class_names: Sequence[str],
        on_invalid: str = "drop",
        min_side: float = 0.0,
        note: str = "",
    ) -> None:
        if on_invalid not in ("drop", "error"):
            raise ValueError(f"on_invalid must be 'drop' or 'error', but got {on_invalid!r}")
        self.name = name
        self.class_names = list(class_names)
        self.on_invalid = on_invalid
        self._load = load
        self._min_side = min_side
        self._note = note
        self._reported = False

    def __call__(self) -> list[dict]:
        dicts, findings = self.check()
        if findings.counts:
            summary = findings.summary(self.name, self._note if findings.refusable else "")
            if self.on_invalid == "error" and findings.refusable:
                raise ValueError(f"{summary}\n  on_invalid='drop' trains without them")
            if not self._reported and comm.is_main_process():
                logger.warning(summary)
            self._reported = True
        return dicts

    def check(self) -> tuple[list[dict], Findings]:
        """What is usable, and all findings, also where on_invalid="error" would refuse them.

        Raises:
            ValueError: no image remains, or no box of those that there were.
        """
        dicts, findings, error = self.look()
        if error:
            raise ValueError(f"{error}\n{findings.summary(self.name)}")
        return dicts, findings

    def look(self) -> tuple[list[dict], Findings, str]:
        """As `check`, with the error as text, "" for none, and the findings in any case.

        Raises:
            ValueError: the file cannot be read, or contradicts itself.
        """
        dicts, findings = self._load()
        dicts = _validate(dicts, findings, len(self.class_names), self._min_side, self.class_names)
        num_boxes = self._count(dicts, findings)
        causes = findings.causes()
        # A set of crowd regions alone can be evaluated; training says that it has no box.
        lost = findings.causes(but=("crowd",)) != ""
        if not dicts or (not num_boxes and lost):
            what = "box" if dicts else "image"
            error = f"data set {self.name!r} has no usable {what} left: {causes or 'it has none'}"
            return dicts, findings, error
        return dicts, findings, ""

    def _count(self, dicts: list[dict], findings: Findings) -> int:
        """Add what training leaves aside; returns the boxes that it does not."""
        boxes: Counter[int] = Counter()
        annotated = False
        for record in dicts:
            if "annotations" not in record:
                continue
            annotated = True
            used = False
            for index, annotation in enumerate(record["annotations"]):
                category = annotation["category_id"]
                if annotation.get("iscrowd", 0):
                    findings.add(
                        "crowd",
                        f"{record['file_name']}, box {index}",
                        self.class_names[category],
                    )
                else:
                    boxes[category] += 1
                    used = True
            if not used:
                findings.add("no_boxes", record["file_name"])
        for names in spelled_alike(self.class_names):
            findings.add("spelling", ", ".join(map(ascii, names)))
        if annotated:
            for k, name in enumerate(self.class_names):
                if not boxes[k]:
                    findings.add("empty_class", name)
        return boxes.total()
