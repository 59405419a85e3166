"""The files of a folder in VOC format: split lists, xml files, images."""

import math
import os
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from detectron2.structures import BoxMode

from iou_balanced.formats.findings import Findings
from iou_balanced.formats.image_files import read_header
from iou_balanced.formats.plausibility import BoxFormatCheck
from iou_balanced.formats.text_files import read_xml
from iou_balanced.formats.values import parse_flag
from iou_balanced.formats.voc_xml import corners, read_split, split_file, stated_size, text_of

from .image_checks import place_on_image

__all__ = ["image_size", "load_voc_split", "read_split", "split_file", "text_of"]

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


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

    Args:
        root: folder in VOC format.
        split: a name in ImageSets/Main, without .txt.
        class_names: (K,); other classes keep their name as category_id.
        difficult: "keep", or "drop" to leave difficult objects out.
        findings: of other splits, to go on with.
        pixel_range: of images with more than 8 bits, see `check_pixel_range`.
    """
    findings = Findings() if findings is None else findings
    images = _image_index(os.path.join(root, "JPEGImages"))
    class_ids = {c: i for i, c in enumerate(class_names)}
    dicts, lines = [], {}
    check = BoxFormatCheck(root, "xyxy")
    for line, stem in read_split(root, split):
        if stem in lines:
            findings.add(
                "same_file", f"{split_file(root, split)}: {stem}, lines {lines[stem]} and {line}"
            )
        lines.setdefault(stem, line)
        record = _load_image(root, stem, line, images, class_ids, findings, pixel_range)
        if record is not None:
            dicts.append(record)
            for annotation in record["annotations"]:
                raw = annotation.pop("_raw")
                if all(map(math.isfinite, raw)):
                    size = (record["width"], record["height"])
                    check.add(*raw, *size, annotation["_source"])
    check.report(findings)
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

    file_name = text_of(tree, "filename").replace("\\", "/").rsplit("/", 1)[-1]
    # <filename> decides where it has the stem of the xml file: there may be a.jpg and a.png.
    named = images.get(file_name) if os.path.splitext(file_name)[0] == stem else None
    path = named or images.get(stem) or images.get(file_name)
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
        stated=stated_size(tree),
        where=xml,
        stated_text=" x ".join(text_of(tree, f"size/{key}") or "?" for key in ("width", "height")),
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
    x0, y0, x1, y1 = corners(obj)
    class_name = text_of(obj, "name")
    difficult = text_of(obj, "difficult")
    flag = parse_flag(difficult or 0)
    if flag is None:
        findings.add("as_text", f"{xml}, box {index}, difficult: {difficult!r} (taken as 0)")
    return {
        "bbox": [x0 - 1.0, y0 - 1.0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        # An unknown class keeps its name here, and the validation reports it.
        "category_id": class_ids.get(class_name, class_name),
        "difficult": flag or 0,
        "_raw": (x0, y0, x1, y1),
        "_source": f"{xml}, box {index}",
    }


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels as Detectron2 reads the image, that is, turned as EXIF says.

    Args:
        path: of the image.

    Raises:
        ImageError: it is no image that Pillow knows, or is damaged.
    """
    header = read_header(path)
    return header.width, header.height
