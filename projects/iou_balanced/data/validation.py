"""Checks of the data where it enters: what cannot be trained on is named, then dropped or refused.

Detectron2's loaders either fail on such data with an error that names no file, or train on it.
"""

import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from numbers import Integral

from detectron2.structures import BoxMode
from detectron2.utils import comm

__all__ = ["CheckedLoader", "Findings", "validate_dataset_dicts"]

logger = logging.getLogger(__name__)

# Kind -> what it is and what is done about it. The order is the order in the summary.
KINDS = {
    "no_area": "box without area (dropped)",
    "outside": "box entirely outside the image (dropped)",
    "not_finite": "box whose coordinates are not four finite numbers (dropped)",
    "unknown_class": "box of an unknown class (dropped)",
    "unknown_image": "box of an image that the file does not list (dropped)",
    "bad_polygon": "box whose polygon has fewer than 3 points (dropped by Detectron2)",
    "clipped": "box partly outside the image (clipped to it)",
    "missing_image": "missing image file (image dropped)",
    "bad_annotation": "annotation file that is missing or cannot be parsed (image dropped)",
    "wrong_size": "wrong image size in the annotation file (the image's own size is used)",
    "no_eval_keys": "box without 'area' or 'iscrowd' (kept, but COCO evaluation will fail on it)",
    "not_selected": "box of a class that class_names leaves out (not used)",
}
# Left out on the user's own wish: told, but no reason to refuse the data set.
_NOT_AN_ERROR = {"not_selected"}
_NUM_EXAMPLES = 5
# In pixels: coordinates that stick out by less were rounded in the file, and are left alone.
_ROUNDING = 0.01


class Findings:
    """What was wrong with a data set: a count per kind (a key of KINDS) and the first examples."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str) -> None:
        """Count one finding; `example` names the file, the box and its coordinates."""
        assert kind in KINDS, kind
        self.counts[kind] += 1
        if len(self.examples[kind]) < _NUM_EXAMPLES:
            self.examples[kind].append(example)

    @property
    def refusable(self) -> bool:
        """Whether there is anything that on_invalid="error" refuses."""
        return any(kind not in _NOT_AN_ERROR for kind in self.counts)

    def summary(self, name: str, note: str = "") -> str:
        """All findings as text of several lines, headed by the data set's name."""
        lines = [f"data set {name!r}, number of findings: {sum(self.counts.values())}"]
        for kind, text in KINDS.items():
            count = self.counts[kind]
            if not count:
                continue
            lines.append(f"  {count} x {text}")
            lines += [f"    {example}" for example in self.examples[kind]]
            if count > len(self.examples[kind]):
                lines.append(f"    and {count - len(self.examples[kind])} more")
        if note:
            lines.append(f"  {note}")
        return "\n".join(lines)


def validate_dataset_dicts(
    dicts: list[dict],
    findings: Findings | None = None,
    *,
    num_classes: int,
    min_side: float = 0.0,
) -> tuple[list[dict], Findings]:
    """Drop or mend what cannot be trained on, and say what that was.

    Args:
        dicts: in Detectron2's standard format, boxes (4,) in XYXY_ABS or XYWH_ABS pixels. They are
            not changed. An annotation may have a key "_source", text that says where it stands in
            its file (it is taken out); a category_id that is no number in [0, num_classes) is an
            unknown class.
        findings: of the loader, to go on with.
        num_classes: number of known classes.
        min_side: a box with a width or height of this many pixels or fewer has no area.

    Returns:
        the dicts that remain and the findings. An image that loses all its boxes remains, as one
        without boxes; an image without its file does not.
    """
    findings = Findings() if findings is None else findings
    kept = []
    for record in dicts:
        if not os.path.isfile(record["file_name"]):
            findings.add("missing_image", record["file_name"])
            continue
        record = dict(record)
        if "annotations" in record:
            checked = (
                _checked_annotation(a, i, record, findings, num_classes, min_side)
                for i, a in enumerate(record["annotations"])
            )
            record["annotations"] = [a for a in checked if a is not None]
        kept.append(record)
    return kept, findings


def _checked_annotation(
    annotation: dict,
    index: int,
    record: dict,
    findings: Findings,
    num_classes: int,
    min_side: float,
) -> dict | None:
    annotation = dict(annotation)
    source = annotation.pop("_source", f"{record['file_name']}, box {index}")
    box = _xyxy(annotation)
    if box is None or not all(math.isfinite(v) for v in box):
        findings.add("not_finite", f"{source}: {annotation.get('bbox')}")
        return None
    coordinates = "({})".format(", ".join(f"{v:g}" for v in box))
    category = annotation.get("category_id")
    if not isinstance(category, Integral) or not 0 <= category < num_classes:
        findings.add("unknown_class", f"{source}: class {category!r}, {coordinates}")
        return None

    x0, y0, x1, y1 = box
    width, height = record["width"], record["height"]
    if x1 - x0 <= min_side or y1 - y0 <= min_side:
        findings.add("no_area", f"{source}: {coordinates}")
        return None
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        findings.add("outside", f"{source}: {coordinates}, image {width} x {height}")
        return None
    if max(-x0, -y0, x1 - width, y1 - height) > _ROUNDING:
        findings.add("clipped", f"{source}: {coordinates}, image {width} x {height}")
        box = [max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))]
        annotation["bbox"] = BoxMode.convert(box, BoxMode.XYXY_ABS, annotation["bbox_mode"])
    return annotation


def _xyxy(annotation: dict) -> list[float] | None:
    """The box in XYXY pixels; None where it is not four numbers."""
    try:
        a, b, c, d = (float(v) for v in annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        return None
    mode = annotation["bbox_mode"]
    if mode == BoxMode.XYXY_ABS:
        return [a, b, c, d]
    if mode == BoxMode.XYWH_ABS:
        return [a, b, a + c, b + d]
    raise ValueError(f"bbox_mode must be XYXY_ABS or XYWH_ABS, but got {mode!r}")


class CheckedLoader:
    """A loader for Detectron2's DatasetCatalog that validates what it loads.

    Args:
        load: returns the raw dicts and the loader's own findings.
        name: of the data set, for the summary.
        class_names: the K known classes.
        on_invalid: "drop" logs one summary, the first time and on the main process only; "error"
            raises it, each time and on each process.
        min_side: as in `validate_dataset_dicts`.
        note: a last line for the summary.

    Raises:
        ValueError: on a bad on_invalid; when called: on findings with on_invalid="error", and where
            no image remains.
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
        self._load = load
        self._name = name
        self._num_classes = len(class_names)
        self._on_invalid = on_invalid
        self._min_side = min_side
        self._note = note
        self._reported = False

    def __call__(self) -> list[dict]:
        dicts, findings = self._load()
        dicts, findings = validate_dataset_dicts(
            dicts, findings, num_classes=self._num_classes, min_side=self._min_side
        )
        if findings.counts:
            summary = findings.summary(self._name, self._note)
            if self._on_invalid == "error" and findings.refusable:
                raise ValueError(f"{summary}\n  on_invalid='drop' trains without them")
            if not self._reported and comm.is_main_process():
                logger.warning(summary)
            self._reported = True
        if not dicts:
            raise ValueError(
                f"data set {self._name!r} has no usable image left\n{findings.summary(self._name)}"
            )
        return dicts
