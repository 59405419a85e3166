"""Any COCO JSON file as a Detectron2 data set."""

import contextlib
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from detectron2.structures import BoxMode

from iou_balanced.data.image_reading import set_pixel_range
from iou_balanced.formats.class_names import check_spelling, list_names
from iou_balanced.formats.coco_file import BBOX_FORMATS, CocoBox, CocoFile
from iou_balanced.formats.coco_ground_truth import parse_keypoints, usable_mask
from iou_balanced.formats.findings import Findings
from iou_balanced.formats.plausibility import BoxFormatCheck

from .image_checks import place_records
from .registration import already_registered, as_class_names, register
from .validation import CheckedLoader

__all__ = ["register_coco_json"]


def register_coco_json(
    *,
    name: str,
    json_file: str,
    image_root: str,
    class_names: Sequence[str] | None = None,
    on_invalid: str = "drop",
    masks: bool = False,
    bbox_format: str | None = None,
    pixel_range: Sequence[float] | str | None = None,
) -> str:
    """Register a COCO JSON file and return the data set's name.

    Contiguous class ids follow the file's category ids in ascending order, or `class_names` where
    it is given. Crowd boxes stay, with iscrowd=1. A file without "annotations" (as COCO's test-dev)
    gives images without that key. Values are read as `iou_balanced.formats.coco_file` says.

    Of the images headers are read: of those that are no JPEG files, which alone have 8 bits for
    certain; of those whose size the file does not state; and of up to 1,000 others, or of all where
    one of these is of another size than the file says. `python -m iou_balanced.data.check` reads
    all images to their end.

    Evaluation by `COCOBoxEvaluator` is against all that can be read of the file itself. So a box or
    image that is dropped here counts as missed there; the summary of dropped boxes says so.
    Detectron2's own evaluator gets the file as it is, or where its ids or classes are not those
    that it needs, what was loaded here.

    Args:
        name: for Detectron2's catalogs.
        json_file: path of the file.
        image_root: folder to which "file_name" in the file is relative.
        class_names: the classes, in this order. Those that the file does not have are classes
            without a box, categories that are not among them are left out; both are told. Default:
            all categories of the file.
        on_invalid: "drop" or "error", see `iou_balanced.data.datasets.validation`.
        masks: masks are trained on: "segmentation" is kept, and a box without a usable one dropped.
            tools/train_net.py sets it where the mapper has use_instance_mask. Otherwise
            "segmentation" is not read at all.
        bbox_format: "xywh" or "xyxy", what "bbox" is in the file. Default: COCO's xywh, with a
            check that refuses files which are plainly something else.
        pixel_range: how images of more than 8 bits are scaled: (low, high), the values that become
            0 and 255, or "image" for each image's own. By default they are refused.

    Raises:
        FileNotFoundError: no such file or image folder.
        ValueError: not a COCO JSON file, or one that contradicts itself; none of `class_names` is
            in it, or one in another spelling only; the name means another data set; another bad
            argument. When the data is loaded: invalid data with on_invalid="error", boxes in
            another format, or no box left.
    """
    # str() and abspath: arguments may come from a config, and "a/" and "./a" are one folder
    name = str(name)
    json_file = os.path.abspath(os.path.expanduser(str(json_file)))
    image_root = os.path.abspath(os.path.expanduser(str(image_root)))
    class_names = as_class_names(class_names)
    if bbox_format not in (None, *BBOX_FORMATS):
        raise ValueError(
            f"Expected argument `bbox_format` to be None or one of {BBOX_FORMATS}, but got "
            f"{bbox_format!r}"
        )
    arguments = {
        "function": "register_coco_json",
        "json_file": json_file,
        "image_root": image_root,
        "class_names": class_names,
        "on_invalid": on_invalid,
        "masks": bool(masks),
        "bbox_format": bbox_format,
        "pixel_range": set_pixel_range(image_root, pixel_range),
    }
    if already_registered(name, arguments):
        return name

    if not os.path.isfile(json_file):
        raise FileNotFoundError(f"data set {name!r}: json_file {json_file} does not exist")
    if not os.path.isdir(image_root):
        raise FileNotFoundError(f"data set {name!r}: image_root {image_root} is not a folder")
    contents = _read_contents(json_file)
    classes = _select(contents.categories, class_names, json_file)
    load = CheckedLoader(
        partial(
            _load,
            json_file,
            image_root,
            classes,
            masks=masks,
            bbox_format=bbox_format,
            pixel_range=arguments["pixel_range"],
        ),
        name=name,
        class_names=classes,
        on_invalid=on_invalid,
        note="What is dropped is not trained on, but stays in the ground truth of COCO evaluation, "
        "as far as it can be read.",
    )
    metadata = {
        "thing_classes": classes,
        "evaluator_type": "coco",
        "image_root": image_root,
        "coco_json": json_file,
        "bbox_format": bbox_format,
        "masks": bool(masks),
    }
    ids = {category: i for i, category in contents.categories.items()}
    file_ids = [ids.get(c) for c in classes]
    if None not in file_ids and contents.suits_pycocotools and bbox_format != "xyxy":
        if file_ids == sorted(file_ids):
            metadata["thing_dataset_id_to_contiguous_id"] = {c: i for i, c in enumerate(file_ids)}
        if file_ids == sorted(contents.categories):
            # Detectron2's evaluator sorts by category id and takes all categories of a file.
            # Without json_file it writes a fitting one from what is loaded.
            metadata["json_file"] = json_file
    return register(name, arguments, load, metadata)


@contextlib.contextmanager
def _without_gc():
    """Without garbage collection, which takes a third of the time and finds nothing: there are
    millions of lists and dicts, all of them in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class _Contents:
    """What has to be known of a file before it is loaded."""

    categories: dict  # id -> name, in order
    suits_pycocotools: bool


def _read_contents(json_file: str) -> _Contents:
    stat = os.stat(json_file)
    return _parse(json_file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)  # each loader and evaluator of a config asks, and COCO's file takes seconds
@_without_gc()
def _parse(json_file: str, mtime_ns: int, size: int) -> _Contents:
    file = CocoFile(json_file)
    if not file.categories:
        raise ValueError(f"{json_file} has no categories")
    return _Contents({c.id: c.name for c in file.categories}, file.suits_pycocotools())


def _select(categories: dict, class_names: list[str] | None, json_file: str) -> list[str]:
    """The classes of the data set, in its order.

    Raises:
        ValueError: none of `class_names` is in the file, or one in another spelling only.
    """
    found = list(categories.values())
    if class_names is None:
        return found
    check_spelling(class_names, found, of="class_names", of_others=json_file)
    if not set(class_names) & set(found):
        raise ValueError(
            f"class_names has {list_names(class_names)}, but {json_file} has only "
            f"{list_names(found)}"
        )
    return class_names


@_without_gc()
def _load(
    json_file: str,
    image_root: str,
    classes: list[str],
    *,
    masks: bool,
    bbox_format: str | None,
    pixel_range,
) -> tuple[list[dict], Findings]:
    """The raw dicts with contiguous class ids, boxes unchecked, and what is wrong with the file."""
    file = CocoFile(json_file, bbox_format=bbox_format)
    findings = file.findings
    places = {name: k for k, name in enumerate(classes)}
    class_of = [places.get(category.name) for category in file.categories]
    records = []
    for image in file.images:
        record = {
            "file_name": os.path.join(image_root, image.file_name),
            "height": image.height,
            "width": image.width,
            "image_id": image.id,
        }
        if file.has_annotations:
            record["annotations"] = []
        records.append(record)
    for box in file.boxes():
        record = records[box.image]
        source = _Source(file, box.entry, record)
        k = class_of[box.category]
        if k is None:
            category = file.categories[box.category].name
            findings.add("not_selected", f"{source}: {category!r}", category)
            continue
        annotation = _annotation(box, k, source)
        if masks and not _add_mask(annotation, box.raw, classes[k], source, findings):
            continue
        record["annotations"].append(annotation)
    records = place_records(records, json_file, findings, pixel_range)
    if bbox_format is None:
        _check_format(records, json_file, findings)
    return records, findings


def _check_format(records: list[dict], json_file: str, findings: Findings) -> None:
    check = BoxFormatCheck(json_file)
    for record in records:
        width, height = record["width"], record["height"]
        if width is not None:  # else the image is missing, which the validation says
            for annotation in record.get("annotations", ()):
                check.add(*annotation["bbox"], width, height, annotation["_source"])
    check.report(findings)


class _Source:
    """Where an annotation stands, told only when it is asked for."""

    __slots__ = ("_entry", "_file", "_record")

    def __init__(self, file: CocoFile, entry: int, record: dict):
        self._file, self._entry, self._record = file, entry, record

    def __str__(self) -> str:
        where = self._file.describe(self._entry)
        return f"{where}, image {os.path.basename(self._record['file_name'])}"


def _annotation(box: CocoBox, category_id: int, source: _Source) -> dict:
    annotation = {
        "iscrowd": box.iscrowd,
        "bbox": box.bbox,
        "category_id": category_id,
        "bbox_mode": BoxMode.XYWH_ABS,
        "_source": source,
    }
    keypoints = parse_keypoints(box.raw.get("keypoints"))
    if keypoints:
        # COCO's keypoints are indices of pixels, and Detectron2's coordinates.
        annotation["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(keypoints)]
    return annotation


def _add_mask(annotation: dict, raw: dict, class_name: str, source, findings: Findings) -> bool:
    """Give the annotation its mask; False where it has none."""
    mask = usable_mask(raw.get("segmentation"))
    if mask is None:
        text = f"{source}: segmentation {raw.get('segmentation')!r:.80}"
        findings.add("bad_mask", text, class_name)
        return False
    if isinstance(mask, dict) and isinstance(mask["counts"], list):
        import pycocotools.mask

        mask = pycocotools.mask.frPyObjects(mask, *mask["size"])
    annotation["segmentation"] = mask
    return True
