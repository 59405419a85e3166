"""Cityscapes (Cordts et al., CVPR 2016) as a detection data set, by way of COCO JSON."""

import hashlib
import json
import logging
import os
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from iou_balanced.files import write_atomically

from .cache import cached_file, check_content
from .cityscapes_polygons import BOXES, GROUPS, category_names, visible_objects
from .coco_json import register_coco_json
from .registration import dataset_root

__all__ = ["SPLITS", "export_cityscapes", "register_cityscapes"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# Of what is exported; a higher one makes every cached file stale.
FORMAT_VERSION = 1
_IMAGES, _POLYGONS = "leftImg8bit", "gtFine"  # folders, and in each file's name too
_IMAGE_END, _POLYGONS_END = "_leftImg8bit.png", "_gtFine_polygons.json"


def register_cityscapes(
    *,
    split: str,
    root: str | None = None,
    name: str | None = None,
    boxes: str = "visible",
    groups: str = "polygon",
) -> str:
    """Register a split of Cityscapes with its 8 classes and return the data set's name.

    It is exported to COCO JSON (`export_cityscapes`) unless an export of the same files is there,
    and registered as that, so that evaluation is COCO's, with groups as crowd regions. What this
    process has exported or found once it goes on with, even if files change meanwhile.

    Args:
        split: "train" (2,975 images), "val" (500), or "test" (1,525, without annotations).
        root: folder with leftImg8bit and gtFine, as the official archives unpack. Default:
            $DETECTRON2_DATASETS/cityscapes.
        name: default: "cityscapes_<split>".
        boxes: "visible" or "polygon", see `export_cityscapes`.
        groups: "polygon" or "class", see `export_cityscapes`.

    Raises:
        ValueError: the name means another data set; and as `export_cityscapes`.
    """
    # str() and abspath: arguments may come from a config, and "a/" and "./a" are one folder
    root, split = _root(root), str(split)
    json_file = _exported_once(root, split, str(boxes), str(groups))
    return register_coco_json(
        name=str(name) if name else f"cityscapes_{split}",
        json_file=json_file,
        image_root=os.path.join(root, _IMAGES, split),
        on_invalid="error",  # we made it: anything invalid is damage
    )


def export_cityscapes(
    *,
    split: str,
    root: str | None = None,
    output: str | None = None,
    boxes: str = "visible",
    groups: str = "polygon",
) -> str:
    """Write a split of Cityscapes as COCO JSON, unless that is there; return the file's path.

    An annotation has bbox (XYWH, whole pixels), area (visible pixels; COCO's small, medium and
    large go by it), category_id (cityscapesscripts' id) and iscrowd, which is 1 for groups.
    Images without objects are listed too. A split without any box, such as "test", whose polygons
    are not published, gets no "annotations" at all. image ids count the files in their order.

    Without `output` the file is a cache in `root`/iou_balanced, or where that cannot be written in
    iopath's cache folder. Its name holds a hash of the names, sizes and times of the polygon files
    and of the arguments: changed data is exported anew, and an older file may be deleted. Several
    processes may call this at once: one exports and the others wait.

    Args:
        split: "train", "val" or "test".
        root: folder with leftImg8bit and gtFine; see `register_cityscapes`.
        output: write this file, in any case.
        boxes: "visible": around the pixels of an object that nothing painted later hides, the
            boxes of cityscapesscripts' instance images, which MMDetection's baselines use; or
            "polygon": around the whole polygon.
        groups: "polygon": each group polygon is a crowd region; or "class": all groups of a class
            in an image are one, as in instance images and so in MMDetection. The box around groups
            that stand far apart excuses more false detections.

    Raises:
        FileNotFoundError: files are missing; names them, and says how to get them.
        ValueError: a bad argument; or a file that is no Cityscapes annotation, by its name.
        ImportError: cityscapesscripts is not installed, and the file has to be made.
        OSError: no place for the cache; or the file in it no more holds what was written.
    """
    for argument, value, allowed in (
        ("split", split, SPLITS),
        ("boxes", boxes, BOXES),
        ("groups", groups, GROUPS),
    ):
        if value not in allowed:
            raise ValueError(
                f"Expected argument `{argument}` to be one of {allowed}, but got {value!r}"
            )
    root = _root(root)
    files = _find_files(root, split)
    if output is not None:
        output = os.path.abspath(os.path.expanduser(str(output)))
        _export(files, root, output, split=split, boxes=boxes, groups=groups)
        return output

    key = json.dumps([FORMAT_VERSION, split, boxes, groups, files])
    file_name = f"cityscapes_{split}_{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    path = cached_file(
        file_name,
        root=root,
        topic="cityscapes",
        make=partial(_export, files, root, split=split, boxes=boxes, groups=groups),
    )
    check_content(path)
    return path


# Cached, because each loader and evaluator asks for the data set's name anew: listing thousands of
# files each time is slow over a network, and a file that changes during training must not end it.
@cache
def _exported_once(root: str, split: str, boxes: str, groups: str) -> str:
    return export_cityscapes(root=root, split=split, boxes=boxes, groups=groups)


class _Files(NamedTuple):
    """An image and its polygons."""

    stem: str  # "<city>/<city>_000000_000019", what both names begin with
    size: int  # of the polygon file in bytes
    mtime_ns: int


def _root(root: str | None) -> str:
    root = os.path.join(dataset_root(), "cityscapes") if root is None else str(root)
    return os.path.abspath(os.path.expanduser(root))


def _find_files(root: str, split: str) -> list[_Files]:
    """The images of a split, with their polygons.

    Raises:
        FileNotFoundError: there are none, or an image or its polygons are missing.
    """
    images = _scan(os.path.join(root, _IMAGES, split), _IMAGE_END)
    polygons = _scan(os.path.join(root, _POLYGONS, split), _POLYGONS_END)
    if images and images.keys() == polygons.keys():
        stats = ((stem, entry.stat()) for stem, entry in sorted(polygons.items()))
        return [_Files(stem, stat.st_size, stat.st_mtime_ns) for stem, stat in stats]
    looked_for = [
        f"{os.path.join(root, folder, split, '<city>', '<city>_*')}{end}: found {count}"
        for folder, end, count in (
            (_IMAGES, _IMAGE_END, len(images)),
            (_POLYGONS, _POLYGONS_END, len(polygons)),
        )
    ]
    for folder, end, missing in (
        (_IMAGES, _IMAGE_END, sorted(polygons.keys() - images.keys())),
        (_POLYGONS, _POLYGONS_END, sorted(images.keys() - polygons.keys())),
    ):
        if missing and images and polygons:
            first = os.path.join(root, folder, split, missing[0])
            looked_for.append(f"missing are {len(missing)}, first {first}{end}")
    raise FileNotFoundError(
        "\n  ".join([f"Cityscapes, split {split!r}, is not complete. Looked for", *looked_for])
        + "\nBoth archives, leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 "
        "MB), are to be had after a free registration from "
        "https://www.cityscapes-dataset.com/downloads/, or by the command `csDownload` of "
        f"cityscapesScripts. Unpack both in {root}, or give another folder by root= or as "
        "cityscapes in $DETECTRON2_DATASETS."
    )


def _scan(folder: str, end: str) -> dict[str, os.DirEntry]:
    """The files `folder`/<city>/*`end` by their stem; none where there is no such folder."""
    found = {}
    cities = os.listdir(folder) if os.path.isdir(folder) else []
    for city in cities:
        path = os.path.join(folder, city)
        if not os.path.isdir(path):
            continue
        with os.scandir(path) as entries:
            for entry in entries:
                # "._" is what macOS adds when it packs files.
                if entry.name.endswith(end) and not entry.name.startswith("._"):
                    found[f"{city}/{entry.name.removesuffix(end)}"] = entry
    return found


def _export(files: list[_Files], root: str, path: str, *, split: str, **options: str) -> None:
    categories = category_names()  # may raise: before the progress bar begins
    images, annotations, hidden = [], [], 0
    # delay: no bar where it takes no time
    for image_id, file in enumerate(tqdm(files, f"cityscapes {split}", delay=2.0), start=1):
        source = os.path.join(root, _POLYGONS, split, file.stem + _POLYGONS_END)
        try:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
            objects, num_hidden = visible_objects(content, **options)
            height, width = content["imgHeight"], content["imgWidth"]
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{source} is no Cityscapes annotation: {e!r}") from e
        hidden += num_hidden
        file_name = file.stem + _IMAGE_END
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        annotations += [
            {
                "id": number,
                "image_id": image_id,
                "category_id": thing.category_id,
                "bbox": thing.bbox,
                "area": thing.area,
                "iscrowd": int(thing.is_group),
            }
            for number, thing in enumerate(objects, start=len(annotations) + 1)
        ]
    data = {
        "info": {
            "description": f"Cityscapes gtFine {split}, instances as boxes",
            "version": FORMAT_VERSION,
            **options,
        },
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }
    if annotations:
        data["annotations"] = annotations
    write_atomically(path, lambda f: json.dump(data, f))
    crowd = sum(a["iscrowd"] for a in annotations)
    logger.info(
        "Cityscapes %s: wrote %d images, %d boxes and %d crowd regions to %s; %d objects that "
        "others hide entirely are left out.",
        split,
        len(images),
        len(annotations) - crowd,
        crowd,
        path,
        hidden,
    )
