"""Any folder in VOC format as a Detectron2 data set."""

import math
import os
from collections.abc import Sequence
from functools import partial
from xml.etree.ElementTree import Element

from detectron2.structures import BoxMode

from iou_balanced.formats.findings import Findings
from iou_balanced.formats.image_files import read_header
from iou_balanced.formats.text_files import read_lines, read_xml
from iou_balanced.formats.values import parse_flag, parse_number

from .class_names import check_spelling, list_names
from .image_checks import place_on_image
from .image_reading import set_pixel_range
from .registration import already_registered, as_class_names, register
from .validation import CheckedLoader

__all__ = ["register_voc_dir", "voc_class_names"]

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
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
    pixel_range: Sequence[float] | str | None = None,
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
        class_names: default: all that occur in Annotations, of whatever split, sorted. Of the names
            in the files, boxes of others are dropped as unknown; names here that no file has are
            classes without a box.
        difficult: "keep", or "drop" to leave difficult objects out, for training.
        on_invalid: "drop" or "error", see `iou_balanced.data.validation`.
        pixel_range: how images of more than 8 bits are scaled: (low, high), the values that become
            0 and 255, or "image" for each image's own. By default they are refused.

    Raises:
        FileNotFoundError: the folder, its Annotations or the split is missing.
        ValueError: no classes; none of `class_names` is in the files, or one in another spelling
            only; the name means another data set; another bad argument. When the data is loaded:
            invalid data with on_invalid="error", or no box left.
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
        "pixel_range": set_pixel_range(os.path.join(root, "JPEGImages"), pixel_range),
    }
    if already_registered(name, arguments):
        return name

    _check_layout(root, split)
    classes = voc_class_names(root)
    if class_names is not None:
        check_spelling(class_names, classes, of="class_names", of_others=root)
        if not set(class_names) & set(classes):
            raise ValueError(
                f"class_names has {list_names(class_names)}, but the xml files in {root} have only "
                f"{list_names(classes)}"
            )
        classes = class_names
    load = CheckedLoader(
        partial(load_voc_split, root, split, classes, difficult, pixel_range=pixel_range),
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
                tree = read_xml(os.path.join(folder, file))
            except ValueError:
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
    """(number of its line, from 1, stem) of each image of a split.

    Raises:
        ValueError: the file is in an encoding that it does not declare; names it.
    """
    lines = enumerate(read_lines(split_file(root, split)), start=1)
    return [(line, text.strip()) for line, text in lines if text.strip()]


def load_voc_split(
    root: str,
    split: str,
    class_names: Sequence[str],
    difficult: str = "keep",
    findings: Findings | None = None,
    *,
    pixel_range: Sequence[float] | str | None = None,
) -> tuple[list[dict], Findings]:
    """The raw dicts of a split, boxes unchecked, and what is wrong with its files.

    `findings` are those of other splits, to go on with.
    """
    findings = Findings() if findings is None else findings
    images = _image_index(os.path.join(root, "JPEGImages"))
    class_ids = {c: i for i, c in enumerate(class_names)}
    dicts, lines = [], {}
    for line, stem in read_split(root, split):
        if stem in lines:
            findings.add(
                "same_file", f"{split_file(root, split)}: {stem}, lines {lines[stem]} and {line}"
            )
        lines.setdefault(stem, line)
        record = _load_image(root, stem, line, images, class_ids, findings, pixel_range)
        if record is not None:
            dicts.append(record)
    if difficult == "drop":
        for record in dicts:
            kept = []
            for a in record["annotations"]:
                if a["difficult"]:
                    name = a["category_id"]
                    known = class_names[name] if isinstance(name, int) else None
                    findings.add("difficult", a["_source"], known)
                else:
                    kept.append(a)
            record["annotations"] = kept
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
    pixel_range,
) -> dict | None:
    xml = os.path.join(root, "Annotations", stem + ".xml")
    try:
        tree = read_xml(xml)
    except FileNotFoundError:
        findings.add("bad_annotation", f"{xml}: does not exist")
        return None
    except (OSError, ValueError) as e:
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
    objects = tree.findall("object")
    annotations = [_annotation(obj, i, xml, class_ids, findings) for i, obj in enumerate(objects)]
    placed = place_on_image(
        path,
        [a["bbox"] if all(map(math.isfinite, a["bbox"])) else None for a in annotations],
        stated=_stated_size(tree),
        where=xml,
        stated_text=" x ".join(_text(tree, f"size/{key}") or "?" for key in ("width", "height")),
        findings=findings,
        pixel_range=pixel_range,
    )
    if placed is None:
        return None
    for annotation, box in zip(annotations, placed.boxes, strict=True):
        if box is not None:
            annotation["bbox"] = list(box)
    return {
        "file_name": path,
        "image_id": image_id,
        "voc_id": stem,
        "height": placed.height,
        "width": placed.width,
        "annotations": annotations,
    }


def _annotation(obj: Element, index: int, xml: str, class_ids: dict, findings: Findings) -> dict:
    x0, y0, x1, y1 = (_number(obj, f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax"))
    class_name = _text(obj, "name")
    difficult = _text(obj, "difficult")
    flag = parse_flag(difficult or 0)
    if flag is None:
        findings.add("as_text", f"{xml}, box {index}, difficult: {difficult!r} (taken as 0)")
    return {
        "bbox": [x0 - 1.0, y0 - 1.0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        # the name itself where it is unknown: the validation reports it
        "category_id": class_ids.get(class_name, class_name),
        "difficult": flag or 0,
        "_source": f"{xml}, box {index}",
    }


def _stated_size(tree: Element) -> tuple[int, int] | None:
    """(width, height) in pixels; None where they are not whole numbers from 1 on."""
    sides = [_number(tree, f"size/{key}") for key in ("width", "height")]
    if not all(side >= 1 and side == int(side) for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels as Detectron2 reads the image, that is, turned as EXIF says."""
    header = read_header(path)
    return header.width, header.height


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _number(element: Element, path: str) -> float:
    number = parse_number(_text(element, path))
    return math.nan if number is None else float(number)
