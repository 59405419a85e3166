"""Ground truth as COCO's scorers read it alike, whatever ids and keys a file has.

pycocotools takes the annotation id 0 for "no match", faster-coco-eval reads ids as 64-bit numbers,
both need numbers for the ids of images, and an `area` and `iscrowd` that are numbers too. So all
ids here are our own: images, categories and annotations from 1.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from .coco_file import CocoFile
from .values import in_order, parse_number

__all__ = ["CocoGroundTruth", "parse_keypoints", "usable_mask"]


@dataclass(frozen=True)
class CocoGroundTruth:
    """Ground truth with ids of our own, and what they were before.

    The K classes are those of the model; class k is the category k + 1.
    """

    dataset: dict
    """In COCO's format; without "annotations" where the data set has none to score against."""
    class_names: list[str]
    """(K,) the model's."""
    image_ids: Mapping[Hashable, int]
    """The data set's image id -> ours."""
    category_ids: Sequence
    """(K,) the data set's category id of each class; None for a class that it does not have."""
    boxes_without_mask: list[str] = field(default_factory=list)
    """Where the annotations stand that have no segmentation that a scorer could read."""

    @property
    def present_classes(self) -> list[str]:
        """The classes that the data set has, with or without objects."""
        classes = zip(self.class_names, self.category_ids, strict=True)
        return [name for name, category in classes if category is not None]

    @classmethod
    def from_file(
        cls,
        file: CocoFile,
        class_names: Sequence[str],
        places: Mapping[str, int],
        *,
        masks: bool = True,
    ) -> "CocoGroundTruth":
        """Everything in a file that can be scored: crowds, boxes beyond the border or without area.

        Left out are annotations of images or categories that the file does not list, which the
        scorers pass over too, and those whose box cannot be read.

        Args:
            file: its boxes are read here.
            class_names: (K,) the model's.
            places: name of a category in the file -> class; others are left out.
            masks: keep segmentations.
        """
        images = [
            {
                "id": i,
                "file_name": image.file_name,
                "width": image.width or 0,
                "height": image.height or 0,
            }
            for i, image in enumerate(file.images, start=1)
        ]
        classes = [places.get(category.name) for category in file.categories]
        category_ids: list = [None] * len(class_names)
        for category, k in zip(file.categories, classes, strict=True):
            if k is not None:
                category_ids[k] = category.id
        annotations, without_mask = [], []
        for box in file.boxes(for_training=False):
            k = classes[box.category]
            if k is None:
                continue
            raw = box.raw
            annotation = _annotation(
                len(annotations) + 1, box.image + 1, k + 1, box.bbox, box.iscrowd, raw.get("area")
            )
            if masks:
                mask = usable_mask(raw.get("segmentation"))
                if mask is None:
                    without_mask.append(file.describe(box.entry))
                else:
                    annotation["segmentation"] = mask
            annotation.update(_keypoints(raw))
            annotations.append(annotation)
        _complete_keypoints(annotations)
        dataset = {"images": images, "categories": _categories(class_names)}
        if file.has_annotations:
            dataset["annotations"] = annotations
        return cls(
            dataset,
            list(class_names),
            {image.id: i for i, image in enumerate(file.images, start=1)},
            category_ids,
            without_mask,
        )

    @classmethod
    def from_records(
        cls, records: Sequence[Mapping], class_names: Sequence[str], category_ids: Sequence
    ) -> "CocoGroundTruth":
        """The same from images that were loaded already.

        Args:
            records: with "image_id", "file_name", "width", "height" and, where they are annotated,
                "annotations" with "bbox" (x, y, width, height), "class" (of the K), and, where
                known, "iscrowd", "area", "segmentation", "keypoints" and "num_keypoints".
            class_names: (K,)
            category_ids: (K,) see the class.

        Raises:
            ValueError: two images have one id; names both.
        """
        order = in_order(record["image_id"] for record in records)
        image_ids: dict[Hashable, int] = {}
        images, annotations, without_mask = [], [], []
        for number, i in enumerate(order, start=1):
            record = records[i]
            if record["image_id"] in image_ids:
                other = records[order[image_ids[record["image_id"]] - 1]]
                raise ValueError(
                    f"two images have the id {record['image_id']!r}: {other['file_name']} and "
                    f"{record['file_name']}"
                )
            image_ids[record["image_id"]] = number
            images.append(
                {"id": number, **{k: record[k] for k in ("file_name", "width", "height")}}
            )
            for j, box in enumerate(record.get("annotations", ())):
                annotation = _annotation(
                    len(annotations) + 1,
                    number,
                    box["class"] + 1,
                    box["bbox"],
                    box.get("iscrowd", 0),
                    box.get("area"),
                )
                annotation.update(_keypoints(box))
                mask = usable_mask(box.get("segmentation"))
                if mask is None:
                    without_mask.append(f"{record['file_name']}, box {j}")
                else:
                    annotation["segmentation"] = mask
                annotations.append(annotation)
        _complete_keypoints(annotations)
        dataset = {"images": images, "categories": _categories(class_names)}
        if annotations:
            dataset["annotations"] = annotations
        return cls(dataset, list(class_names), image_ids, list(category_ids), without_mask)

    def with_original_categories(
        self, results: Sequence[Mapping]
    ) -> tuple[list[dict], Counter[str]]:
        """Detections with the data set's categories in the place of the model's classes.

        Args:
            results: in COCO's format, "category_id" in [0, K).

        Returns:
            those of categories that the data set has, and how many of others there are, by class.

        Raises:
            ValueError: a class that is not in [0, K).
        """
        known, unknown = [], Counter()
        for result in results:
            k = result["category_id"]
            if not 0 <= k < len(self.class_names):
                raise ValueError(
                    f"a detection in image {result['image_id']!r} is of class {k}, but there are "
                    f"{len(self.class_names)} classes"
                )
            if self.category_ids[k] is None:
                unknown[self.class_names[k]] += 1
            else:
                known.append({**result, "category_id": self.category_ids[k]})
        return known, unknown

    def with_original_ids(self) -> dict:
        """The data set with the ids that it had before, for other tools."""
        images = {number: image_id for image_id, number in self.image_ids.items()}
        dataset = dict(self.dataset)
        dataset["images"] = [{**x, "id": images[x["id"]]} for x in dataset["images"]]
        dataset["categories"] = [
            {**x, "id": self.category_ids[x["id"] - 1]}
            for x in dataset["categories"]
            if self.category_ids[x["id"] - 1] is not None
        ]
        if "annotations" in dataset:
            dataset["annotations"] = [
                {
                    **x,
                    "image_id": images[x["image_id"]],
                    "category_id": self.category_ids[x["category_id"] - 1],
                }
                for x in dataset["annotations"]
            ]
        return dataset


def usable_mask(segmentation) -> list[list[float]] | dict | None:
    """The mask by COCO's rules: an RLE, or those polygons that have three points and more.

    Args:
        segmentation: anything of an annotation file.

    Returns:
        None where there is nothing of this: a flat list, two corners, an empty list.
    """
    if isinstance(segmentation, dict):
        return segmentation if _is_rle(segmentation) else None
    if not isinstance(segmentation, list):
        return None
    return [points for points in segmentation if _is_polygon(points)] or None


def parse_keypoints(keypoints) -> list[float] | None:
    """x, y and visibility of each point, as numbers; None where they cannot be read.

    Args:
        keypoints: anything of an annotation file.
    """
    if not isinstance(keypoints, (list, tuple)) or not keypoints or len(keypoints) % 3:
        return None
    values = [parse_number(v) for v in keypoints]
    return None if None in values else values


def _keypoints(raw: Mapping) -> dict:
    keypoints = parse_keypoints(raw.get("keypoints"))
    if keypoints is None:
        return {}
    number = parse_number(raw.get("num_keypoints"))
    if number is None:
        number = sum(v > 0 for v in keypoints[2::3])
    return {"keypoints": keypoints, "num_keypoints": number}


def _complete_keypoints(annotations: list[dict]) -> None:
    """Give annotations without keypoints ones that are not labelled, which pycocotools needs."""
    lengths = {len(a["keypoints"]) for a in annotations if "keypoints" in a}
    if lengths:
        for annotation in annotations:
            annotation.setdefault("keypoints", [0] * max(lengths))
            annotation.setdefault("num_keypoints", 0)


def _is_polygon(points) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(type(v) in (int, float) and parse_number(v) is not None for v in points)
    )


def _is_rle(segmentation: dict) -> bool:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, (list, tuple)) and len(size) == 2):
        return False
    if not all(type(v) is int and v > 0 for v in size):
        return False
    if not isinstance(counts, list):
        return isinstance(counts, (str, bytes)) and len(counts) > 0
    # Runs beyond the mask would be written beyond its memory.
    are_counts = len(counts) > 0 and all(type(v) is int and v >= 0 for v in counts)
    return are_counts and sum(counts) <= size[0] * size[1]


def _annotation(number: int, image: int, category: int, bbox, iscrowd: int, area) -> dict:
    area = parse_number(area)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [float(v) for v in bbox],
        "area": float(bbox[2]) * float(bbox[3]) if area is None else area,
        "iscrowd": iscrowd,
    }


def _categories(class_names: Sequence[str]) -> list[dict]:
    return [{"id": k, "name": name} for k, name in enumerate(class_names, start=1)]
