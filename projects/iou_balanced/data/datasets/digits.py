"""The built-in data set "digits": scenes with handwritten digits, made here, no download."""

import json
import logging
import os
import shutil

import numpy as np
from iopath.common.file_io import file_lock
from PIL import Image
from tqdm import tqdm

from .checksums import changed_files, write_checksums
from .coco_json import register_coco_json
from .digit_scenes import NUM_CLASSES, digit_sources, draw_scene
from .registration import dataset_root

__all__ = ["class_quotas", "generate_digits", "register_digits"]

logger = logging.getLogger(__name__)

# Raise it with any change of what is drawn: folders of another version are then refused.
GENERATOR_VERSION = "1"
_DEFAULT_NUM_IMAGES = {"train": 800, "val": 200}
_MAX_DIGITS = 6


def register_digits(
    *,
    split: str,
    long_tail: bool = False,
    num_images: int | None = None,
    image_size: int = 128,
    seed: int = 0,
    root: str | None = None,
    imbalance: float = 100.0,
    name: str | None = None,
) -> str:
    """Make the data set where it is missing, register it and return its name.

    Args:
        split: "train" or "val".
        long_tail: see `generate_digits`.
        num_images: default: 800 for "train", 200 for "val".
        image_size: side of the square images in pixels, 32 or more.
        seed: 0 or more.
        root: folder of data sets; default: $DETECTRON2_DATASETS, else "datasets".
        imbalance: see `generate_digits`.
        name: default: the folder's, such as "digits_train_800_128px_s0". Needed only to have the
            same data under two roots in one process.

    Raises:
        ValueError: as `generate_digits` and `register_coco_json`.
        ImportError: scikit-learn is not installed.
    """
    if num_images is None:
        num_images = _DEFAULT_NUM_IMAGES.get(split, 0)  # generate_digits refuses other splits
    folder = generate_digits(
        root=dataset_root() if root is None else root,
        split=split,
        num_images=num_images,
        image_size=image_size,
        seed=seed,
        long_tail=long_tail,
        imbalance=imbalance,
    )
    return register_coco_json(
        name=name or os.path.basename(folder),
        json_file=os.path.join(folder, "annotations.json"),
        image_root=os.path.join(folder, "images"),
        on_invalid="error",  # we made it: anything invalid is damage
    )


def generate_digits(
    *,
    root: str,
    split: str,
    num_images: int,
    image_size: int,
    seed: int,
    long_tail: bool = False,
    imbalance: float = 100.0,
) -> str:
    """Write scenes of 1 to 6 handwritten digits as PNG and COCO JSON, unless they are there.

    The digits are scikit-learn's `load_digits`, those of "train" and "val" disjoint. The result
    depends on the arguments only. Several processes may call this at once: one makes the data and
    the others wait. What an interrupted run leaves is a folder *.partial, never a data set.

    Args:
        root: folder of data sets; the data set is a folder in it, whose name states the arguments.
        split: "train" or "val".
        num_images: number of scenes.
        image_size: side of the square images in pixels, 32 or more.
        seed: 0 or more.
        long_tail: class frequencies of "train" fall exponentially from "0" to "9". "val" stays
            balanced, so there this changes nothing, not even the name.
        imbalance: frequency of "0" over that of "9" in the long tail, 1 or more.

    Returns:
        the folder: annotations.json, images/000001.png, ... and checksums.json of these

    Raises:
        ValueError: a bad argument; a folder of that name that is no complete data set, was made by
            another version of this code, or holds other files than were written.
        ImportError: scikit-learn is not installed.
    """
    if split not in _DEFAULT_NUM_IMAGES:
        raise ValueError(f"split must be 'train' or 'val', but got {split!r}")
    for key, value, least in (
        ("num_images", num_images, 1),
        ("image_size", image_size, 32),
        ("seed", seed, 0),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{key} must be an integer >= {least}, but got {value!r}")
    if not isinstance(imbalance, (int, float)) or not 1 <= imbalance < float("inf"):
        raise ValueError(f"imbalance must be 1 or more, but got {imbalance!r}")
    imbalance = float(imbalance) if long_tail and split == "train" else 1.0

    tail = f"_lt{imbalance:g}" if imbalance > 1 else ""
    name = f"digits_{split}{tail}_{num_images}_{image_size}px_s{seed}"
    folder = os.path.join(os.path.abspath(os.path.expanduser(str(root))), name)
    if not _is_complete(folder):
        with file_lock(folder):
            if not _is_complete(folder):  # another process may have made it by now
                # We hold the lock, so a partial folder is the remains of a run that was killed.
                partial = folder + ".partial"
                shutil.rmtree(partial, ignore_errors=True)
                logger.info("Making the data set %s", folder)
                _write(partial, split, num_images, image_size, seed, imbalance)
                os.rename(partial, folder)
    return folder


def class_quotas(total: int, imbalance: float) -> np.ndarray:
    """How many of `total` digits are of each class: (10,) int64, with sum `total`.

    They fall exponentially from the first to the last. Each class gets at least one where `total`
    allows it.

    Args:
        total: number of digits.
        imbalance: the first class's frequency over the last one's, at least 1; 1 is balanced.
    """
    share = float(imbalance) ** (-np.arange(NUM_CLASSES) / (NUM_CLASSES - 1))
    exact = total * share / share.sum()
    quotas = np.floor(exact).astype(np.int64)
    order = np.argsort(quotas - exact, kind="stable")  # the most rounded away first
    quotas[order[: total - quotas.sum()]] += 1
    if total >= NUM_CLASSES:
        for label in np.flatnonzero(quotas == 0):
            quotas[label] += 1
            quotas[quotas.argmax()] -= 1
    return quotas


def _is_complete(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    try:
        with open(os.path.join(folder, "annotations.json"), encoding="utf-8") as f:
            version = json.load(f)["info"]["version"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as e:
        raise ValueError(f"{folder} is not a complete digits data set ({e!r}): delete it") from e
    if version != GENERATOR_VERSION:
        raise ValueError(
            f"{folder} was made by version {version} of the digits generator and this is version "
            f"{GENERATOR_VERSION}: delete it to have it made anew"
        )
    changed = changed_files(folder)
    if changed:
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(
            f"{folder} is damaged: {changed[0]}{more}: delete the folder to have it made anew"
        )
    return True


def _write(
    folder: str, split: str, num_images: int, size: int, seed: int, imbalance: float
) -> None:
    sources = digit_sources(split)  # may raise: before anything is written
    os.makedirs(os.path.join(folder, "images"))
    # Which split and scene a stream is for goes into its seed, so that none repeats another.
    stream = (seed, sorted(_DEFAULT_NUM_IMAGES).index(split))
    rng = np.random.default_rng([*stream, 0])
    digits_per_scene = rng.integers(1, _MAX_DIGITS + 1, num_images)
    quotas = class_quotas(int(digits_per_scene.sum()), imbalance)
    labels = rng.permutation(np.repeat(np.arange(NUM_CLASSES), quotas))
    scenes = np.split(labels, np.cumsum(digits_per_scene)[:-1])

    images, annotations = [], []
    # delay: no bar where it takes no time
    for i, scene in enumerate(tqdm(scenes, f"digits {split}", delay=2.0), start=1):
        rng = np.random.default_rng([*stream, i])
        pixels, placed = draw_scene(rng, size, [int(k) for k in scene], sources)
        file_name = f"{i:06d}.png"
        path = os.path.join(folder, "images", file_name)
        Image.fromarray(pixels).save(path, compress_level=1)
        images.append({"id": i, "file_name": file_name, "height": size, "width": size})
        for digit in placed:
            x0, y0, x1, y1 = digit.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": digit.label + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    data = {
        "info": {
            "description": "Handwritten digits of scikit-learn's load_digits on drawn textures",
            "version": GENERATOR_VERSION,
            "split": split,
            "seed": seed,
            "imbalance": imbalance,
        },
        "images": images,
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(NUM_CLASSES)],
    }
    with open(os.path.join(folder, "annotations.json"), "w", encoding="utf-8") as f:
        json.dump(data, f)
    names = [f"images/{image['file_name']}" for image in images]
    write_checksums(folder, ["annotations.json", *names])
