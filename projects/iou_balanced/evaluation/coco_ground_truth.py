"""The ground truth of a registered data set for COCO's scorers, with the model's classes."""

import contextlib
import json
import logging
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import pycocotools.mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO

from iou_balanced.files import write_atomically
from iou_balanced.formats.class_names import match_class_names
from iou_balanced.formats.coco_file import CocoFile
from iou_balanced.formats.coco_ground_truth import CocoGroundTruth, parse_keypoints, usable_mask
from iou_balanced.formats.image_files import ImageError, read_header
from iou_balanced.formats.values import parse_flag, parse_number

from .metrics import distinct_names

__all__ = [
    "coco_api_of",
    "converted_file",
    "empty_ground_truth",
    "ground_truth_of",
    "ground_truth_of_dicts",
    "keep_converted",
    "load_ground_truth",
    "scorable_tasks",
    "take_image_sizes",
]

logger = logging.getLogger(__name__)


def ground_truth_of(dataset_name: str, class_names: Sequence[str] | None = None) -> CocoGroundTruth:
    """Ground truth from the data set's COCO JSON file, or from its dicts where it has none.

    Args:
        dataset_name: of Detectron2's catalogs.
        class_names: (K,) the model's, in the order of its outputs; default: the data set's own.

    Raises:
        ValueError: the data set has a class that the model does not have, with both lists; its file
            contradicts itself; two of its images have one id.
        OSError: the file cannot be read.
    """
    metadata = MetadataCatalog.get(dataset_name)
    path = metadata.get("coco_json") or metadata.get("json_file")
    if path is None:
        return ground_truth_of_dicts(dataset_name, DatasetCatalog.get(dataset_name), class_names)
    file = CocoFile(PathManager.get_local_path(path), bbox_format=metadata.get("bbox_format"))
    selected = _classes_of_file(file, metadata)
    names = distinct_names(list(selected), list(range(len(selected))))
    model, places = _match(names, class_names, dataset_name)
    by_name = dict(zip(selected.values(), places, strict=True))
    return CocoGroundTruth.from_file(file, model, by_name)


def empty_ground_truth(dataset_name: str, class_names: Sequence[str] | None) -> CocoGroundTruth:
    """Of a process that does not evaluate: no image and no object.

    Args:
        dataset_name: of Detectron2's catalogs.
        class_names: the model's; default: the data set's own.
    """
    names = class_names or MetadataCatalog.get(dataset_name).get("thing_classes") or ()
    return CocoGroundTruth({"images": [], "categories": []}, list(names), {}, [None] * len(names))


def coco_api_of(dataset: dict) -> COCO:
    """pycocotools' index of a data set in COCO's format that is in memory.

    Args:
        dataset: in COCO's format.
    """
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(None):
        coco.createIndex()
    return coco


def load_ground_truth(dataset_name: str) -> COCO:
    """The COCO ground truth of a registered data set, with the ids that the data set has.

    Args:
        dataset_name: of Detectron2's catalogs.

    Raises:
        ValueError: as `ground_truth_of`.
        OSError: as `ground_truth_of`.
    """
    return coco_api_of(ground_truth_of(dataset_name).with_original_ids())


def keep_converted(
    dataset_name: str, output_dir: str | None, ground_truth: CocoGroundTruth
) -> None:
    """Write the ground truth of a data set without a JSON file of its own, for other tools.

    Args:
        dataset_name: of Detectron2's catalogs.
        output_dir: folder of the file; None writes none.
        ground_truth: of the data set.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if output_dir is None or metadata.get("json_file") or metadata.get("coco_json"):
        return
    path = Path(output_dir) / converted_file(dataset_name)
    dataset = ground_truth.with_original_ids()
    write_atomically(path, lambda file: json.dump(dataset, file, default=_as_json))


def converted_file(dataset_name: str) -> str:
    """The name of the file that `keep_converted` writes.

    Args:
        dataset_name: of Detectron2's catalogs; a slash in it becomes an underscore.
    """
    return f"{dataset_name.replace('/', '_')}_coco_format.json"


def _as_json(value):
    """RLE masks are bytes; ids may be numpy's."""
    return value.decode("ascii") if isinstance(value, bytes) else value.item()


def _classes_of_file(file: CocoFile, metadata) -> dict[str, str]:
    """The data set's classes in its order: name -> name of the category in the file."""
    names = {category.id: category.name for category in file.categories}
    classes = metadata.get("thing_classes")
    if classes is None:
        return {name: name for name in names.values()}
    if metadata.get("coco_json") is not None:
        return {name: name for name in classes}
    # Of Detectron2's own: the metadata may have other names than the file. Without a map from
    # category to class, Detectron2 takes them to be the same numbers.
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    by_class = names if contiguous is None else {k: names.get(c) for c, k in contiguous.items()}
    return {name: by_class.get(k) or name for k, name in enumerate(classes)}


def _match(
    names: Sequence[str], class_names: Sequence[str] | None, dataset_name: str
) -> tuple[list[str], list[int]]:
    """(the model's classes, the place of each of `names` among them)."""
    if class_names is None:
        return list(names), list(range(len(names)))
    model = list(class_names)
    places = match_class_names(names, model, of=f"data set {dataset_name!r}")
    return model, places


def ground_truth_of_dicts(
    dataset_name: str, dicts: Sequence[dict], class_names: Sequence[str] | None = None
) -> CocoGroundTruth:
    """Ground truth from the dicts of a data set.

    Args:
        dataset_name: of Detectron2's catalogs.
        dicts: as Detectron2's catalog gives them; boxes in any of its modes, in pixels.
        class_names: (K,) the model's, in the order of its outputs; default: the data set's own.

    Raises:
        ValueError: the data set has a class that the model does not have; a value of a box cannot
            be read, with image, box and key.
    """
    metadata = MetadataCatalog.get(dataset_name)
    names = distinct_names(metadata.thing_classes, list(range(len(metadata.thing_classes))))
    model, places = _match(names, class_names, dataset_name)
    # As Detectron2's own conversion to COCO's format names them.
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = {k: category for category, k in contiguous.items()}
    category_ids: list = [None] * len(model)
    for k, place in enumerate(places):
        category_ids[place] = ids.get(k, k)
    records = [
        {
            "image_id": record.get("image_id", i),
            "file_name": record.get("file_name", ""),
            "width": int(record.get("width") or 0),
            "height": int(record.get("height") or 0),
            **_boxes(record, places),
        }
        for i, record in enumerate(dicts)
    ]
    return CocoGroundTruth.from_records(records, model, category_ids)


def _boxes(record: dict, places: Sequence[int]) -> dict:
    if "annotations" not in record:
        return {}
    return {"annotations": [_box(record, i, places) for i in range(len(record["annotations"]))]}


def _box(record: dict, index: int, places: Sequence[int]) -> dict:
    """A box of a record, its class the model's, its values parsed.

    Raises:
        ValueError: a value that cannot be read; names image, box and key.
    """
    annotation = record["annotations"][index]
    where = f"image {record.get('file_name', record.get('image_id'))}, box {index}"
    bbox = [parse_number(v.item() if hasattr(v, "item") else v) for v in annotation["bbox"]]
    category, iscrowd = annotation.get("category_id"), parse_flag(annotation.get("iscrowd") or 0)
    if len(bbox) != 4 or None in bbox:
        raise ValueError(f"{where}: bbox {annotation['bbox']!r} is not four finite numbers")
    if not isinstance(category, Integral) or not 0 <= category < len(places):
        raise ValueError(f"{where}: category_id {category!r} is no class in [0, {len(places)})")
    if iscrowd is None:
        raise ValueError(f"{where}: iscrowd {annotation['iscrowd']!r} is neither 0 nor 1")
    bbox = BoxMode.convert(
        [float(v) for v in bbox], BoxMode(annotation["bbox_mode"]), BoxMode.XYWH_ABS
    )
    box = {"class": places[category], "bbox": bbox, "iscrowd": iscrowd}
    for key in ("area", "num_keypoints"):
        if key in annotation:
            box[key] = annotation[key]
    mask = usable_mask(annotation.get("segmentation"))
    if mask is not None:
        if isinstance(mask, dict) and isinstance(mask["counts"], list):
            mask = pycocotools.mask.frPyObjects(mask, *mask["size"])
        box["segmentation"] = mask
        if "area" not in box:  # COCO's is the mask's
            box["area"] = _mask_area(mask)
    keypoints = parse_keypoints(annotation.get("keypoints"))
    if keypoints is not None:
        # Back to COCO's indices of pixels; the visibility of each point is the third number.
        box["keypoints"] = [v if i % 3 == 2 else v - 0.5 for i, v in enumerate(keypoints)]
    return box


def _mask_area(segmentation) -> float:
    if isinstance(segmentation, dict):
        return float(pycocotools.mask.area(segmentation))
    return PolygonMasks([segmentation]).area()[0].item()


def take_image_sizes(dataset_name: str, dataset: dict) -> None:
    """Give the images in `dataset` the sizes of their files, as far as these can be read.

    Masks are drawn at that size, and an annotation file need not have it.

    Args:
        dataset_name: of Detectron2's catalogs.
        dataset: in COCO's format; changed in place.
    """
    root = MetadataCatalog.get(dataset_name).get("image_root") or ""
    for image in dataset["images"]:
        with contextlib.suppress(OSError, ImageError):
            header = read_header(Path(root) / image["file_name"])
            image["width"], image["height"] = header.width, header.height


def scorable_tasks(name: str, truth: CocoGroundTruth, tasks: Sequence[str]) -> list[str]:
    """Those of `tasks` that the ground truth of a data set can score.

    Args:
        name: of the data set.
        truth: its ground truth.
        tasks: of "bbox", "segm" and "keypoints".

    Raises:
        ValueError: "segm", and an object has no mask.
    """
    tasks = list(tasks)
    if "segm" in tasks:
        if truth.boxes_without_mask:
            raise ValueError(
                f"data set {name!r}: masks cannot be scored, because "
                f"{len(truth.boxes_without_mask)} of its objects have none, first "
                f"{truth.boxes_without_mask[0]}. Give tasks=['bbox'] to score boxes only"
            )
        take_image_sizes(name, truth.dataset)
    if "keypoints" in tasks and not truth.dataset["annotations"]:
        tasks.remove("keypoints")
        logger.warning("'%s' has no object: its keypoints are not scored", name)
    return tasks
