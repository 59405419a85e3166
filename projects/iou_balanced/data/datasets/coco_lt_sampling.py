"""Drawing COCO-LT from the annotations of COCO train2017, and writing what was drawn.

Shape letters: A annotations and I images of the source, K classes.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from tabulate import tabulate

from iou_balanced.files import write_atomically

from .coco_lt_profile import COCO_LT_PROFILE

__all__ = ["Sample", "read_recipe", "sample_annotations", "write_sample"]

logger = logging.getLogger(__name__)

# How a file of ours begins; `read_recipe` needs no more of it than the first entry.
_BEGIN = '{"info": '
_INFO_CHARACTERS = 1 << 16


class Sample(NamedTuple):
    """What is drawn; an unlabelled object is to be seen in a kept image, but not annotated."""

    kept: np.ndarray
    """(A,) bool, instances and crowd regions."""
    kept_images: np.ndarray
    """(I,) bool."""
    unlabelled: np.ndarray
    """(A,) bool, instances."""


def sample_annotations(
    classes: np.ndarray,
    images: np.ndarray,
    is_crowd: np.ndarray,
    annotation_ids: np.ndarray,
    targets: dict[str, int | None],
    *,
    num_images: int,
    seed: int,
) -> Sample:
    """Draw from the instances of each class at random until it has as many as its target says.

    Each instance has the same chance, whatever else is in its image. An image is kept if an
    instance of it is; crowd regions stay in the images that are kept, and count for nothing.

    The draw is a function of the seed and of the set of annotation ids alone: neither the order of
    the annotations matters, nor the machine, nor NumPy's version (a bit generator's raw numbers do
    not change between versions, those of its distributions may).

    Args:
        classes: (A,) int in [0, K).
        images: (A,) int in [0, I).
        is_crowd: (A,) bool.
        annotation_ids: (A,) int, distinct.
        targets: class name -> number of instances, None for all, in the order of the K classes.
        num_images: I.
        seed: not negative.

    Raises:
        ValueError: a class has fewer instances than its target; says by class how many.
    """
    available = np.bincount(classes[~is_crowd], minlength=len(targets))
    wanted = np.array(
        [n if t is None else t for t, n in zip(targets.values(), available, strict=True)]
    )
    lacking = [
        f"{name!r} has {n} and should have {max(t, 1)}"
        for name, n, t in zip(targets, available, wanted, strict=True)
        if n < max(t, 1)
    ]
    if lacking:
        raise ValueError(f"too few instances: {', '.join(lacking)}")

    keys = np.empty(len(annotation_ids), np.uint64)
    keys[np.argsort(annotation_ids)] = np.random.PCG64(seed).random_raw(len(keys))
    instances = np.flatnonzero(~is_crowd)
    instances = instances[
        np.lexsort((annotation_ids[instances], keys[instances], classes[instances]))
    ]
    # sorted by class, and by chance within a class: the place within the class is the rank
    begin = np.cumsum(available) - available
    rank = np.arange(len(instances)) - begin[classes[instances]]

    kept = np.zeros(len(classes), bool)
    kept[instances[rank < wanted[classes[instances]]]] = True
    kept_images = np.bincount(images[kept], minlength=num_images) > 0
    unlabelled = ~kept & ~is_crowd & kept_images[images]
    kept |= is_crowd & kept_images[images]
    return Sample(kept, kept_images, unlabelled)


def write_sample(source: str, path: str, recipe: dict) -> None:
    """Sample the COCO JSON file `source` by `recipe` and write what is kept to `path`.

    Images and annotations stay as they are, in their order; images without instance are left out.
    The entry "info" is the recipe with what came of it: the source's SHA-256 and own "info", the
    number of images, instances and unlabelled instances by class.

    Args:
        source: path of the file to draw from.
        path: of the file to write.
        recipe: has "seed" and "targets" (class name -> number or None); all of it goes into "info".

    Raises:
        ValueError: `source` is no COCO JSON file with the 80 classes of COCO and an annotation id
            for each box, or has too few instances.
    """
    data, columns = _read(source)
    targets, num_images = recipe["targets"], len(data["images"])
    try:
        sample = sample_annotations(*columns, targets, num_images=num_images, seed=recipe["seed"])
    except ValueError as e:
        raise ValueError(
            f"{source} is not the whole of COCO train2017, for which the profile is made: {e}. "
            "For a part of it give a (smaller) scale=, the factor on the profile"
        ) from e
    classes, images, is_crowd, _ = columns

    def count(mask: np.ndarray) -> dict[str, int]:
        numbers = np.bincount(classes[mask], minlength=len(targets))
        return dict(zip(targets, numbers.tolist(), strict=True))

    instances, crowd = count(sample.kept & ~is_crowd), count(sample.kept & is_crowd)
    unlabelled = count(sample.unlabelled)
    info = {
        **recipe,
        "source_sha256": _sha256(source),
        "source_info": data.get("info"),
        "images": int(sample.kept_images.sum()),
        "instances": instances,
        "crowd_regions": crowd,
        "unlabelled": unlabelled,
    }
    write_atomically(path, lambda file: _write(file, data, sample, info))
    counted = sample.kept & ~is_crowd
    pairs = np.unique(classes[counted] * num_images + images[counted])
    image_counts = np.bincount(pairs // num_images, minlength=len(targets)).tolist()
    rows = [
        (c, COCO_LT_PROFILE[c], instances[c], crowd[c], n, unlabelled[c])
        for c, n in zip(targets, image_counts, strict=True)
    ]
    rows.sort(key=lambda row: row[2])
    headers = ("class", "published", "instances", "crowd regions", "images", "unlabelled")
    logger.info("COCO-LT, by class:\n%s", tabulate(rows, headers, tablefmt="pipe"))


def read_recipe(path: str) -> dict | None:
    """The "info" of a file that `write_sample` wrote, None if it did not write this one.

    Args:
        path: of a file in UTF-8.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read(_INFO_CHARACTERS)
    if not text.startswith(_BEGIN):
        return None
    try:
        info, _ = json.JSONDecoder().raw_decode(text, len(_BEGIN))
    except ValueError:
        return None
    return info if isinstance(info, dict) else None


def _read(source: str) -> tuple[dict, tuple[np.ndarray, ...]]:
    """The file's content; classes, images, is_crowd and ids of its annotations.

    Raises:
        ValueError: it is no COCO JSON file with the 80 classes of COCO and distinct whole numbers
            as annotation ids.
    """  # noqa: DOC501
    try:
        data = json.loads(Path(source).read_text(encoding="utf-8"))
        ids = {c["id"]: str(c["name"]) for c in data["categories"]}
        number = {name: k for k, name in enumerate(COCO_LT_PROFILE)}
        if sorted(ids.values()) != sorted(number):
            found = sorted(ids.values())
            raise ValueError(f"{source} must have the 80 classes of COCO, but has {found}")
        classes = {i: number[name] for i, name in ids.items()}
        images = {image["id"]: i for i, image in enumerate(data["images"])}
        columns = [], [], [], []
        for a in data["annotations"]:
            for key, known in (("category_id", classes), ("image_id", images)):
                if a[key] not in known:
                    raise ValueError(f"{source}, annotation id {a['id']}: unknown {key} {a[key]!r}")
            if not isinstance(a["id"], int):
                raise TypeError(f"annotation id {a['id']!r} is no integer")
            values = classes[a["category_id"]], images[a["image_id"]], bool(a["iscrowd"]), a["id"]
            for column, value in zip(columns, values, strict=True):
                column.append(value)
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{source} is not JSON: {e}") from e
    except KeyError as e:
        raise ValueError(f"{source} is not COCO JSON: an entry or the file lacks {e}") from e
    except (TypeError, AttributeError) as e:
        raise ValueError(f"{source} is not COCO JSON: {e}") from e
    types = np.int64, np.int64, bool, np.int64
    columns = tuple(np.array(c, t) for c, t in zip(columns, types, strict=True))
    if len(np.unique(columns[-1])) < len(columns[-1]):
        raise ValueError(f"{source}: annotation ids must be distinct, but some occur twice")
    return data, columns


def _write(file: IO, data: dict, sample: Sample, info: dict) -> None:
    images = [image for image, kept in zip(data["images"], sample.kept_images, strict=True) if kept]
    rest = {k: v for k, v in data.items() if k not in ("info", "images", "annotations")}
    # "info" first, for `read_recipe`. One annotation at a time: json.dump of the whole is slow,
    # json.dumps of the whole takes as much memory again as the file.
    file.write(json.dumps({"info": info, **rest, "images": images})[:-1])
    file.write(', "annotations": [')
    encode = json.JSONEncoder().encode
    separator = "\n"
    for annotation, kept in zip(data["annotations"], sample.kept, strict=True):
        if kept:
            file.write(separator + encode(annotation))
            separator = ",\n"
    file.write("]}")


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
