"""What an exported file says of itself, and how images are made ready for it.

All entries are texts, as ONNX has them; lists and numbers are JSON.
"""

import json
from collections.abc import Mapping, Sequence

import detectron2.data.transforms as T
from detectron2.data import DatasetMapper

from iou_balanced.data import CenterFit, CenterPad
from iou_balanced.engine import UserError
from iou_balanced.inference.input_images import InputImages

PREFIX = "iou_balanced."
KEYS = ("version", "detector", "class_names", "input", "outputs", "test_augmentations", "stride")
# What is read back, each with the arguments that make it again. Nothing else of a file is called.
_AUGMENTATIONS = {
    "ResizeShortestEdge": (
        T.ResizeShortestEdge,
        ("short_edge_length", "max_size", "sample_style", "interp"),
    ),
    "Resize": (T.Resize, ("shape", "interp")),
    "CenterFit": (CenterFit, ("size",)),
    "CenterPad": (CenterPad, ("divisor",)),
}


def describe_augmentations(augmentations: Sequence[T.Augmentation] | None) -> list[dict] | None:
    """Test augmentations as plain values; None where one of them is not Detectron2's or ours."""
    described = []
    for augmentation in () if augmentations is None else augmentations:
        name = type(augmentation).__name__
        kind, arguments = _AUGMENTATIONS.get(name, (None, ()))
        if type(augmentation) is not kind:
            return None
        values = {key: _plain(getattr(augmentation, key, None)) for key in arguments}
        if name == "ResizeShortestEdge":
            values["sample_style"] = "range" if augmentation.is_range else "choice"
        described.append({"name": name, **values})
    return None if augmentations is None else described


def make_augmentations(described: Sequence[Mapping]) -> list[T.Augmentation]:
    """The inverse of `describe_augmentations`.

    Raises:
        ValueError: an unknown name or argument.
    """
    made = []
    for entry in described:
        arguments = dict(entry)
        kind, known = _AUGMENTATIONS.get(arguments.pop("name"), (None, ()))
        if kind is None or not set(arguments) <= set(known):
            raise ValueError(f"unknown test augmentation {dict(entry)}")
        made.append(kind(**arguments))
    return made


def fixed_size(augmentations: Sequence[T.Augmentation] | None) -> tuple[int, int] | None:
    """(height, width) that all images have after them; None where these depend on the image."""
    last = augmentations[-1] if augmentations else None
    size = {T.Resize: "shape", CenterFit: "size"}.get(type(last))
    return None if size is None else tuple(int(side) for side in getattr(last, size))


def images_for(metadata: Mapping, file: str) -> InputImages | None:
    """What makes images ready for the file; None where it does not say all of it.

    Raises:
        UserError: the metadata are damaged.
    """
    try:
        described = metadata["test_augmentations"]
        if described is None:
            return None
        augmentations = make_augmentations(described)
        image_format = metadata["input"]["channels"]
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"{file}: its metadata cannot be used ({type(e).__name__}: {e})") from e
    mapper = DatasetMapper(is_train=False, augmentations=augmentations, image_format=image_format)
    return InputImages(mapper)


def pack(metadata: Mapping) -> dict[str, str]:
    """As the file has them."""
    return {PREFIX + key: json.dumps(metadata[key]) for key in KEYS}


def unpack(entries: Mapping[str, str], file: str) -> dict:
    """The inverse of `pack`.

    Raises:
        UserError: the file is not of tools/export.py.
    """
    missing = [key for key in KEYS if PREFIX + key not in entries]
    if missing:
        raise UserError(
            f"{file} lacks the metadata {', '.join(missing)}: is it a file of tools/export.py?"
        )
    try:
        return {key: json.loads(entries[PREFIX + key]) for key in KEYS}
    except ValueError as e:
        raise UserError(f"{file}: its metadata cannot be read ({e})") from e


def _plain(value):
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, (str, float)) else int(value)
