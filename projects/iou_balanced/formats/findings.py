"""What is wrong with a data set, or left out of it: counted by kind and class, with examples."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["KINDS", "Findings", "Kind"]

_NUM_EXAMPLES = 5
_NUM_CLASSES_SHOWN = 12


class Kind(NamedTuple):
    """A kind of finding."""

    text: str
    """What it is, and in brackets what is done about it."""
    is_note: bool = False
    """Whether it is only told: nothing is wrong, or it can be read in one way only."""


# The order is the order in the summary.
KINDS = {
    "no_area": Kind("box without area (dropped)"),
    "outside": Kind("box entirely outside the image (dropped)"),
    "not_finite": Kind("box whose coordinates are not four finite numbers (dropped)"),
    "unknown_class": Kind("box of an unknown class (dropped)"),
    "unknown_image": Kind("box of an image that the file does not list (dropped)"),
    "bad_value": Kind("box with a value that cannot be read (dropped)"),
    "bad_mask": Kind("box without a usable mask (dropped, because masks=True)"),
    "clipped": Kind("box partly outside the image (clipped to it)"),
    "xyxy": Kind(
        "box that leaves its image as (x, y, width, height) and fits as two corners: is the file "
        'in corners? (bbox_format="xyxy" reads it so)'
    ),
    "xywh": Kind("box that ends before it begins, and fits as (x, y, width, height)"),
    "shares": Kind("box smaller than a pixel in the first pixel of its image: a share of it?"),
    "missing_image": Kind("missing image file (image dropped)"),
    "unreadable_image": Kind("image file that cannot be read (image dropped)"),
    "bad_annotation": Kind("annotation file that is missing or cannot be parsed (image dropped)"),
    "wide_pixels": Kind(
        "image of more than 8 bits, which would be clipped (image dropped; pixel_range= says how "
        "to scale its values)"
    ),
    "other_frame": Kind(
        "image whose boxes fit the size in the annotation file and not the image (image dropped)"
    ),
    "other_size": Kind(
        "image of another size than its annotation file says (training ends where it meets it)"
    ),
    "wrong_size": Kind("wrong image size in the annotation file (the image's own size is used)"),
    "spelling": Kind(
        "class names that differ in upper and lower case, blanks or Unicode forms only (different "
        "classes)"
    ),
    "same_file": Kind("image file that is listed more than once (kept each time)"),
    "same_id": Kind("annotation id that occurs more than once (all are kept)"),
    "no_size": Kind("image without a size in the annotation file (the image's own is used)", True),
    "exif_turned": Kind(
        "image annotated on its stored pixels: its boxes are turned along with it (EXIF)", True
    ),
    "exif_unsure": Kind(
        "image with an EXIF orientation that its size does not show: its boxes are taken to be on "
        "the image as it is seen",
        True,
    ),
    "scaled_pixels": Kind("image of more than 8 bits (scaled as pixel_range says)", True),
    "as_text": Kind(
        "value that is text or of another type than it should be (read as meant)", True
    ),
    "other_id_type": Kind("reference to an id that is of another type (matched)", True),
    "no_eval_keys": Kind(
        "box without 'area' or 'iscrowd' (evaluation takes width x height, and no crowd)", True
    ),
    "ignore": Kind(
        "box with ignore=1, which COCO's evaluation does not read (an object like any other; "
        "iscrowd=1 leaves it aside)",
        True,
    ),
    "bad_polygon": Kind("segmentation that is no mask (left out; its box is used)", True),
    "crowd": Kind(
        "crowd region, iscrowd=1 (not trained on; in evaluation neither missed nor false)", True
    ),
    "difficult": Kind("difficult object (left out, because difficult='drop')", True),
    "not_selected": Kind("box of a class that class_names leaves out (not used)", True),
    "no_boxes": Kind(
        "image without boxes (Detectron2 trains on it only with filter_empty=False)", True
    ),
    "empty_class": Kind("class without a box", True),
}

# Kinds that leave boxes out: the causes where no box remains.
_LOSSES = {
    *("no_area", "outside", "not_finite", "unknown_class", "unknown_image", "bad_value"),
    *("bad_mask", "missing_image", "unreadable_image", "bad_annotation", "wide_pixels"),
    *("other_frame", "crowd", "difficult", "not_selected"),
}


class Findings:
    """Counts of each kind, a key of `KINDS`, and the first examples."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = defaultdict(list)
        self.by_class: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, kind: str, example: str, class_name: str | None = None) -> None:
        """Count one finding.

        Args:
            kind: a key of `KINDS`.
            example: names the file, the entry or box, and the value.
            class_name: of the box, where it is known.
        """
        self.counts[kind] += 1
        if len(self.examples[kind]) < _NUM_EXAMPLES:
            self.examples[kind].append(example)
        if class_name is not None:
            self.by_class[kind][class_name] += 1

    def update(self, other: "Findings") -> None:
        """Add all findings of another object.

        Args:
            other: another data set's, or another reader's.
        """
        self.counts.update(other.counts)
        for kind, examples in other.examples.items():
            self.examples[kind] = [*self.examples[kind], *examples][:_NUM_EXAMPLES]
        for kind, counts in other.by_class.items():
            self.by_class[kind].update(counts)

    def wants_example(self, kind: str) -> bool:
        """Whether the next example of this kind would be shown.

        Args:
            kind: a key of `KINDS`.
        """
        return len(self.examples[kind]) < _NUM_EXAMPLES

    @property
    def refusable(self) -> bool:
        """Whether there is anything that on_invalid="error" refuses."""
        return any(not KINDS[kind].is_note for kind in self.counts)

    def summary(self, name: str, note: str = "") -> str:
        """All findings as text of several lines, headed by the data set's name.

        Args:
            name: of the data set.
            note: a last line; "" for none.
        """
        lines = [f"data set {name!r}, number of findings: {self.counts.total()}"]
        lines += self.lines()
        if note:
            lines.append(f"  {note}")
        return "\n".join(lines)

    def lines(self) -> list[str]:
        """A line for each kind, followed by its classes and examples."""
        lines = []
        for kind, (text, _) in KINDS.items():
            count = self.counts[kind]
            if not count:
                continue
            lines.append(f"  {count} x {text}")
            if self.by_class[kind]:
                lines.append(f"    by class: {_by_class(self.by_class[kind])}")
            lines += [f"    {example}" for example in self.examples[kind]]
            if count > len(self.examples[kind]):
                lines.append(f"    and {count - len(self.examples[kind])} more")
        return lines

    def causes(self, but: Sequence[str] = ()) -> str:
        """The kinds that left boxes or images out, with their counts, in one line; may be "".

        Args:
            but: kinds to pass over.
        """
        chosen = [k for k in KINDS if k in _LOSSES and self.counts[k] and k not in but]
        return "; ".join(f"{self.counts[k]} x {KINDS[k].text}" for k in chosen)

    def to_dict(self) -> dict:
        """Plain values for JSON: kind -> text, is_note, count, by_class, examples."""
        return {
            kind: {
                "text": KINDS[kind].text,
                "is_note": KINDS[kind].is_note,
                "count": self.counts[kind],
                "by_class": dict(self.by_class[kind]),
                "examples": list(self.examples[kind]),
            }
            for kind in KINDS
            if self.counts[kind]
        }


def _by_class(counts: Counter[str]) -> str:
    shown = [f"{name} {count}" for name, count in counts.most_common(_NUM_CLASSES_SHOWN)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more} more classes" if more > 0 else "")
