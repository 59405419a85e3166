"""Ground truth as columns of numbers, with image and class numbers of our own.

Letters: N images, K classes, G objects.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from iou_balanced.formats.coco_file import CocoFile
from iou_balanced.formats.coco_ground_truth import CocoGroundTruth

from .voc_folder import read_voc_folder

__all__ = ["GroundTruth", "read_ground_truth"]


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is to be found. Images are in the order of their ids, which breaks ties of scores."""

    path: str
    """Of the file or folder; "" where it was read from neither."""
    image_ids: Sequence[Hashable]
    """(N,) as in the file."""
    file_names: Sequence[str]
    """(N,)"""
    image_sizes: np.ndarray
    """(N, 2) width and height in pixels, 0 where the file does not say it."""
    class_names: Sequence[str]
    """(K,) each once."""
    category_ids: Sequence[Hashable]
    """(K,) as in the file."""
    image: np.ndarray
    """(G,) int64 in [0, N)."""
    category: np.ndarray
    """(G,) int64 in [0, K)."""
    boxes: np.ndarray
    """(G, 4) x, y, width, height in pixels."""
    area: np.ndarray
    """(G,) square pixels; of the mask, where the file has it."""
    crowd: np.ndarray
    """(G,) bool."""
    ignored: np.ndarray
    """(G,) bool: neither an object to find nor background; crowds are."""
    notes: Sequence[str] = ()
    """What a reader of the numbers has to know of the data."""
    other_image_ids: Mapping[Hashable, int] = field(default_factory=dict)
    """Other names of images that result files may use -> image."""

    @property
    def num_images(self) -> int:
        """N"""
        return len(self.image_ids)

    @property
    def num_classes(self) -> int:
        """K"""
        return len(self.class_names)

    def objects_by_class(self) -> np.ndarray:
        """(K,) objects to find."""
        return np.bincount(self.category[~self.ignored], minlength=self.num_classes)

    @classmethod
    def from_coco(cls, truth: CocoGroundTruth, path: str = "") -> "GroundTruth":
        """From ground truth whose ids are 1, 2, ... already.

        Args:
            truth: in COCO's format.
            path: of the file that it was read from.
        """
        data = truth.dataset
        annotations = data.get("annotations", [])
        originals = {number: image_id for image_id, number in truth.image_ids.items()}
        crowd = _column([a["iscrowd"] for a in annotations], bool)
        images = data["images"]
        return cls(
            path=path,
            image_ids=[originals[x["id"]] for x in images],
            file_names=[x["file_name"] for x in images],
            image_sizes=_column([(x["width"], x["height"]) for x in images], float, (-1, 2)),
            class_names=list(truth.class_names),
            category_ids=list(truth.category_ids),
            image=_column([a["image_id"] - 1 for a in annotations], np.int64),
            category=_column([a["category_id"] - 1 for a in annotations], np.int64),
            boxes=_column([a["bbox"] for a in annotations], float, (-1, 4)),
            area=_column([a["area"] for a in annotations], float),
            crowd=crowd,
            ignored=crowd,
        )


def read_ground_truth(
    path: str | os.PathLike, *, split: str | None = None, difficult: str = "count"
) -> GroundTruth:
    """Read COCO JSON, or a folder in VOC format.

    Args:
        path: a JSON file; or a folder with Annotations and, for more than one split,
            ImageSets/Main.
        split: of a folder, a name in ImageSets/Main; may be left out where there is one only.
        difficult: VOC's difficult objects "count" like any other, as where a folder is evaluated by
            COCO's rules; or "ignore" leaves them aside, as the challenge does.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such file, contradicts itself, or has nothing to find; a bad argument.
    """
    path = os.fspath(path)
    if difficult not in ("count", "ignore"):
        raise ValueError(
            f"Expected argument `difficult` to be 'count' or 'ignore', but got {difficult!r}"
        )
    if os.path.isdir(path):
        truth = _from_voc(path, split, difficult)
    else:
        if split is not None:
            raise ValueError(
                f"split {split!r} was given, but {path} is a file: only a folder in VOC format has "
                "splits"
            )
        truth = _from_file(path)
    if not (~truth.ignored).any():
        raise ValueError(f"{path} has no objects to find: no AP is defined")
    return truth


def _from_file(path: str) -> GroundTruth:
    file = CocoFile(path)
    if not file.has_annotations:
        raise ValueError(
            f"{path} has no 'annotations', like COCO's test-dev: no AP can be computed from it"
        )
    names = [category.name for category in file.categories]
    places = {name: k for k, name in enumerate(names)}
    truth = CocoGroundTruth.from_file(file, names, places, masks=False)
    return GroundTruth.from_coco(truth, path)


def _from_voc(path: str, split: str | None, difficult: str) -> GroundTruth:
    folder = read_voc_folder(path, split)
    is_difficult = _column(folder.difficult, bool)
    notes = []
    if is_difficult.any():
        what = "are left aside" if difficult == "ignore" else "count like any other"
        notes.append(f"{int(is_difficult.sum())} difficult objects {what}.")
    if folder.num_dropped:
        notes.append(f"{folder.num_dropped} boxes without area in their image are left out.")
    ignored = is_difficult if difficult == "ignore" else np.zeros_like(is_difficult)
    boxes = _column(folder.boxes, float, (-1, 4))
    return GroundTruth(
        path=path,
        image_ids=folder.numbers,
        file_names=folder.file_names,
        image_sizes=_column(folder.sizes, float, (-1, 2)),
        class_names=folder.class_names,
        category_ids=list(range(len(folder.class_names))),
        image=_column(folder.image, np.int64),
        category=_column(folder.category, np.int64),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(len(boxes), bool),
        ignored=ignored,
        notes=notes,
        other_image_ids={stem: i for i, stem in enumerate(folder.stems)},
    )


def _column(values: Sequence, dtype, shape=(-1,)) -> np.ndarray:
    return np.array(values, dtype=dtype).reshape(shape)
