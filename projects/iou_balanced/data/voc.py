"""Any folder in VOC format as a Detectron2 data set."""

import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import partial

from detectron2.structures import BoxMode
from PIL import Image

from .registration import already_registered, as_class_names, register
from .validation import CheckedLoader, Findings

__all__ = ["register_voc_dir", "voc_class_names"]

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_EXIF_ORIENTATION = 274
# Boxes are inclusive, so one with xmax == xmin is 1 pixel wide after the subtraction. Files that
# hold one hold a stray click, not an object of one pixel: such a box counts as one without area.
_MIN_SIDE = 1.0


def register_voc_dir(
    *,
    root: str,
    split: str,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    difficult: str = "keep",
    on_invalid: str = "drop",
) -> str:
    """Register a folder in VOC format and return the data set's name.

    The folder has Annotations/*.xml, ImageSets/Main/<split>.txt and JPEGImages/ (jpg, png, ...).
    The image is the file of the xml's stem, or else the one in <filename>. Boxes are 1-based
    inclusive pixels in the file and become XYXY_ABS as in Detectron2's own VOC loader (1 is
    subtracted from xmin and ymin). `image_id` is the line in the split file, from 1, because fast
    COCO evaluation takes numbers only; "voc_id" is the stem. An annotation has "difficult" (0, 1).

    Nothing but class names is read before Detectron2 asks for the data. For COCO evaluation
    Detectron2 converts what is then loaded to COCO JSON, so dropped boxes are missing there too,
    and difficult ones count like any other. `VOCDetectionEvaluator` treats them as the challenge
    does.

    Args:
        root: the folder.
        split: a name in ImageSets/Main, without .txt.
        name: default: the folder's name and the split, such as "bccd_train"; with
            "_without_difficult" where those are dropped.
        class_names: default: all that occur in Annotations, of whatever split, sorted.
        difficult: "keep", or "drop" to leave difficult objects out, for training.
        on_invalid: "drop" or "error", see `iou_balanced.data.validation`.

    Raises:
        FileNotFoundError: the folder, its Annotations or the split is missing.
        ValueError: no classes; the name means another data set; a bad difficult or on_invalid. When
            the data is loaded: invalid data with on_invalid="error".
    """
    # str() and abspath: arguments may come from a config, and "a/" and "./a" are one folder
    root, split = os.path.abspath(os.path.expanduser(str(root))), str(split)
    class_names = as_class_names(class_names)
    suffix = name_suffix(difficult)
    name = str(name) if name else f"{os.path.basename(root)}_{split}{suffix}"
    arguments = {
        "function": "register_voc_dir",
        "root": root,
        "split": split,
        "class_names": class_names,
        "difficult": difficult,
        "on_invalid": on_invalid,
    }
    if already_registered(name, arguments):
        return name

    _check_layout(root, split)
    classes = class_names or voc_class_names(root)
    load = CheckedLoader(
        partial(load_voc_split, root, split, classes, difficult),
        name=name,
        class_names=classes,
        on_invalid=on_invalid,
        min_side=_MIN_SIDE,
    )
    metadata = {
        "thing_classes": classes,
        "evaluator_type": "coco",
        "dirname": root,
        "split": split,
        "difficult": difficult,
        "image_root": os.path.join(root, "JPEGImages"),
    }
    return register(name, arguments, load, metadata)


def voc_class_names(root: str) -> list[str]:
    """The class names in all xml files of `root`/Annotations, sorted.

    Files that cannot be parsed are passed over here and reported when the data is loaded.

    Raises:
        ValueError: there is no object in any of them.
    """
    folder = os.path.join(root, "Annotations")
    names = set()
    for file in os.listdir(folder):
        if file.endswith(".xml"):
            try:
                tree = ET.parse(os.path.join(folder, file))
            except ET.ParseError:
                continue
            names.update(_text(obj, "name") for obj in tree.findall("object"))
    names.discard("")
    if not names:
        raise ValueError(f"no xml file in {folder} has an <object> with a <name>: no classes")
    return sorted(names)


def _check_layout(root: str, split: str) -> None:
    for folder in (root, os.path.join(root, "Annotations"), os.path.join(root, "JPEGImages")):
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"{folder} is not a folder; a VOC data set has Annotations, ImageSets/Main and "
                "JPEGImages"
            )
    file = split_file(root, split)
    if not os.path.isfile(file):
        folder = os.path.dirname(file)
        found = os.listdir(folder) if os.path.isdir(folder) else []
        splits = sorted(f[: -len(".txt")] for f in found if f.endswith(".txt"))
        raise FileNotFoundError(f"split {split!r}: {file} does not exist; splits there: {splits}")


def split_file(root: str, split: str) -> str:
    """The file that lists the images of a split."""
    return os.path.join(root, "ImageSets", "Main", split + ".txt")


def name_suffix(difficult: str) -> str:
    """What tells the name of a data set without its difficult objects from that with them.

    Raises:
        ValueError: `difficult` is neither "keep" nor "drop".
    """
    if difficult not in ("keep", "drop"):
        raise ValueError(
            f"Expected argument `difficult` to be 'keep' or 'drop', but got {difficult!r}"
        )
    return "_without_difficult" if difficult == "drop" else ""


def read_split(root: str, split: str) -> list[tuple[int, str]]:
    """(number of its line, from 1, stem) of each image of a split."""
    with open(split_file(root, split), encoding="utf-8-sig") as f:
        return [(line, text.strip()) for line, text in enumerate(f, start=1) if text.strip()]


def load_voc_split(
    root: str,
    split: str,
    class_names: Sequence[str],
    difficult: str = "keep",
    findings: Findings | None = None,
) -> tuple[list[dict], Findings]:
    """The raw dicts of a split, boxes unchecked, and what is wrong with its files.

    `findings` are those of other splits, to go on with.
    """
    findings = Findings() if findings is None else findings
    images = _image_index(os.path.join(root, "JPEGImages"))
    class_ids = {c: i for i, c in enumerate(class_names)}
    dicts = []
    for line, stem in read_split(root, split):
        record = _load_image(root, stem, line, images, class_ids, findings)
        if record is not None:
            dicts.append(record)
    if difficult == "drop":
        for record in dicts:
            record["annotations"] = [a for a in record["annotations"] if not a["difficult"]]
    return dicts, findings


def _image_index(folder: str) -> dict[str, str]:
    """Both stem and full name of each image file -> its path."""
    index = {}
    for file in sorted(os.listdir(folder), reverse=True):  # so that a.jpg goes before a.png
        stem, suffix = os.path.splitext(file)
        if suffix.lower() in _IMAGE_SUFFIXES:
            index[stem] = index[file] = os.path.join(folder, file)
    return index


def _load_image(
    root: str,
    stem: str,
    image_id: int,
    images: dict[str, str],
    class_ids: dict[str, int],
    findings: Findings,
) -> dict | None:
    xml = os.path.join(root, "Annotations", stem + ".xml")
    try:
        tree = ET.parse(xml).getroot()
    except FileNotFoundError:
        findings.add("bad_annotation", f"{xml}: does not exist")
        return None
    except ET.ParseError as e:
        findings.add("bad_annotation", f"{xml}: {e}")
        return None

    file_name = _text(tree, "filename").replace("\\", "/").rsplit("/", 1)[-1]
    path = images.get(stem) or images.get(file_name)
    if path is None:
        findings.add(
            "missing_image",
            f"{xml}: JPEGImages has neither {stem}.jpg (.png, ...) nor {file_name!r}",
        )
        return None
    try:
        width, height = image_size(path)
    except OSError as e:
        findings.add("missing_image", f"{path}: cannot be read ({e})")
        return None
    stated = (_number(tree, "size/width"), _number(tree, "size/height"))
    if stated != (width, height):
        findings.add(
            "wrong_size",
            f"{xml}: {stated[0]:g} x {stated[1]:g}, but {os.path.basename(path)} is "
            f"{width} x {height}",
        )

    annotations = []
    for i, obj in enumerate(tree.findall("object")):
        x0, y0, x1, y1 = (_number(obj, f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax"))
        class_name = _text(obj, "name")
        annotations.append(
            {
                "bbox": [x0 - 1.0, y0 - 1.0, x1, y1],
                "bbox_mode": BoxMode.XYXY_ABS,
                # the name itself where it is unknown: the validation reports it
                "category_id": class_ids.get(class_name, class_name),
                "difficult": int(_text(obj, "difficult") == "1"),
                "_source": f"{xml}, box {i}",
            }
        )
    return {
        "file_name": path,
        "image_id": image_id,
        "voc_id": stem,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels as Detectron2 reads the image, that is, turned as EXIF says."""
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def _text(element: ET.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: ET.Element, path: str) -> float:
    try:
        return float(_text(element, path))
    except ValueError:
        return math.nan
