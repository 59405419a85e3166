"""The files that a prediction leaves: COCO results, the images that they are of, and a CSV."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from iou_balanced.engine import UserError
from iou_balanced.files import write_atomically

COLUMNS = (
    *("image_id", "file", "frame", "width", "height", "class", "category_id", "score"),
    *("x0", "y0", "x1", "y1", "picture"),
)


class Ids:
    """The numbers of images and categories in the COCO results.

    By default images are counted from 1 in the order of the inputs, frames of a video each on its
    own, and categories from 1 in the order of the model's classes.

    Args:
        class_names: of the model; None where they are not known.
        coco_file: a COCO file whose images and categories have these numbers, instead.

    Raises:
        UserError: it cannot be read, or lacks one of the classes.
    """

    def __init__(self, class_names: Sequence[str] | None, coco_file: str | os.PathLike | None):
        self._file, self._images = coco_file, None
        self._categories: dict[int, int] = {}
        if coco_file is None:
            return
        data = _load(coco_file)
        self._images = {}
        for image in data["images"]:
            entry = (Path(image["file_name"]).parts, image["id"])
            self._images.setdefault(Path(image["file_name"]).name, []).append(entry)
        numbers = {category["name"]: category["id"] for category in data["categories"]}
        if class_names is None:
            raise UserError(
                f"--ids-from {coco_file} goes by class names, and nothing says those of the model"
            )
        unknown = [name for name in class_names if name not in numbers]
        if unknown:
            raise UserError(
                f"{coco_file} has no category {unknown[0]!r}, which the model has: its "
                f"{len(numbers)} are {', '.join(map(repr, list(numbers)[:20]))}"
            )
        self._categories = {i: numbers[name] for i, name in enumerate(class_names)}

    def category(self, index: int) -> int:
        return self._categories.get(index, index + 1)

    def image(self, path: Path, count: int):
        """The image's number; `count` is its place among all, from 1.

        Raises:
            UserError: the COCO file has no such image, or several.
        """
        if self._images is None:
            return count
        entries = self._images.get(path.name, [])
        parts = path.resolve().parts
        exact = [i for names, i in entries if parts[-len(names) :] == names]
        found = exact if exact else [i for _, i in entries]
        if len(found) != 1:
            raise UserError(
                f"{self._file} has {len(found) or 'no'} images with the file_name of {path}"
            )
        return found[0]


def _load(coco_file: str | os.PathLike) -> dict:
    try:
        data = json.loads(Path(coco_file).read_text("utf-8"))
        _ = [(x["id"], x["file_name"]) for x in data["images"]]
        _ = [(x["id"], x["name"]) for x in data["categories"]]
    except (OSError, ValueError) as e:
        raise UserError(f"COCO file {coco_file} cannot be read: {e}") from e
    except (KeyError, TypeError) as e:
        raise UserError(
            f"{coco_file} is no COCO file: it needs images with id and file_name, and categories "
            f"with id and name ({type(e).__name__}: {e})"
        ) from e
    return data


class _Image(NamedTuple):
    image_id: object
    file: str
    frame: int | None
    height: int
    width: int
    picture: str


class Results:
    """Collects the detections of all images, and writes them.

    Args:
        class_names: has the name of each class index that occurs.
        num_classes: how many, where it is known.
    """

    def __init__(self, class_names: Sequence[str], num_classes: int | None, ids: Ids):
        self.class_names, self.num_classes, self.ids = class_names, num_classes, ids
        self.images: list[_Image] = []
        self.detections: list[dict] = []
        self._rows: list[list] = []

    def add(
        self, image_id, path: Path, instances: Instances, *, picture: str = "", frame: int | None
    ) -> None:
        height, width = instances.image_size
        image = _Image(image_id, str(path), frame, int(height), int(width), picture)
        self.images.append(image)
        boxes = instances.pred_boxes.tensor.tolist()
        for result, box in zip(instances_to_coco_json(instances, image_id), boxes, strict=True):
            index = result["category_id"]
            result["category_id"] = self.ids.category(index)
            self.detections.append(result)
            self._rows.append(
                [
                    *(image_id, image.file, "" if frame is None else frame),
                    *(image.width, image.height, self.class_names[index], result["category_id"]),
                    *(result["score"], *box, picture),
                ]
            )

    def write(self, folder: Path) -> None:
        """detections.json, images.json and detections.csv; see docs/predict.md."""
        numbers = range(self.num_classes or 0)
        described = {
            "images": [
                {"id": x.image_id, "file_name": x.file, "width": x.width, "height": x.height}
                | ({} if x.frame is None else {"frame": x.frame})
                for x in self.images
            ],
            "categories": [
                {"id": self.ids.category(i), "name": self.class_names[i]} for i in numbers
            ],
            "annotations": [],
        }
        write_atomically(folder / "images.json", lambda f: json.dump(described, f))
        write_atomically(folder / "detections.json", lambda f: json.dump(self.detections, f))

        def write_csv(file):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(self._rows)

        write_atomically(folder / "detections.csv", write_csv)
