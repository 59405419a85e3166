"""COCO-LT: the long-tailed training set of SimCal (arXiv 2007.11978, Table 7), from COCO train2017.

The authors publish the annotation file, but not how they drew it. The statistics of it in their
repository (see `coco_lt_profile`) tell. The 20 most frequent classes of COCO are whole, so every
image that shows one of them is in. Of the other classes single annotations are drawn, not images:
of the 242 images with one of its 248 buses 183 show a person as well, and every image with a person
is in, so most of COCO's 6,069 buses must be to be seen there without a box; and the classes that
are cut most have hardly more than one annotation to an image, 420 zebras in 363.

It is drawn here likewise: no choice of images meets the profile. Objects that are to be seen but
not annotated are background to the training, here as with the published file; the log and the
file's "info" say how many there are. Evaluation is on COCO val2017, with all 80 classes.
"""

import hashlib
import json
import logging
import os
from functools import cache, partial

from .cache import cached_file, check_content
from .coco_json import register_coco_json
from .coco_lt_profile import COCO_LT_BIN_EDGES, COCO_LT_BINS, COCO_LT_PROFILE, coco_lt_targets
from .coco_lt_sampling import read_recipe, write_sample
from .registration import dataset_root

__all__ = ["register_coco_lt"]

logger = logging.getLogger(__name__)

SPLITS = ("train", "val")
# In the README of github.com/twangnh/SimCal, and in its configs.
PUBLISHED = ("train_coco2017_LT_sampled.json", "train_coco2017_sampled_1.json")
# Of what is drawn and written; a higher one makes every cached file stale.
FORMAT_VERSION = 1
_HOW_TO_GET = (
    "COCO 2017 is at http://images.cocodataset.org: zips/train2017.zip (18 GB), zips/val2017.zip "
    "(1 GB) and annotations/annotations_trainval2017.zip (241 MB); unpack them in {root}. The "
    "published file of COCO-LT, train_coco2017_LT_sampled.json, is linked in the README of "
    "https://github.com/twangnh/SimCal; with it instances_train2017.json is not needed. Another "
    "folder: root=, or coco in $DETECTRON2_DATASETS."
)


def register_coco_lt(
    *,
    split: str,
    root: str | None = None,
    name: str | None = None,
    json_file: str | None = None,
    seed: int | None = None,
    scale: float | None = None,
    on_invalid: str = "drop",
) -> str:
    """Register a split of COCO-LT with COCO's 80 classes and return the data set's name.

    "train" is the published annotation file where it is there: `json_file`, or in
    `root`/annotations train_coco2017_LT_sampled.json or train_coco2017_sampled_1.json. Otherwise,
    or where `seed` or `scale` is given, it is drawn from instances_train2017.json: of each class
    the instances of `COCO_LT_PROFILE`, exactly as many and each with the same chance; of the 20
    classes of the last bin all. Images where nothing is drawn are left out; the others keep their
    crowd regions, which the published numbers count as annotations and the drawn ones do not.

    The drawn file is a cache in `root`/iou_balanced, or where that cannot be written in iopath's
    cache folder. Its name holds a hash of the source's size and time and of the arguments, and its
    "info" says how it was made: another seed or source makes another file, and no file is ever
    written over. The same source and seed give the same annotations on any machine. Several
    processes may call this at once: one draws and the others wait. What this process has found once
    it goes on with, even if files change meanwhile.

    Args:
        split: "train", or "val", which is COCO val2017.
        root: folder with train2017, val2017 and annotations, as COCO's archives unpack. Default:
            $DETECTRON2_DATASETS/coco.
        name: default: "coco_lt_<split>", with "_seed<seed>" and "_scale<scale>" where given.
        json_file: the published file, wherever it is.
        seed: not negative. Default: 0, if there is no published file.
        scale: for a part of COCO train2017: a factor in (0, 1] on the profile's numbers, those of
            the last bin excepted, whose classes stay whole. Default: 1.
        on_invalid: "drop" or "error", see `iou_balanced.data.datasets.validation`.

    Raises:
        FileNotFoundError: files are missing; says which were looked for, and how to get them.
        FileExistsError: a file of the cache's name is there that was not made here, or no more
            holds what was written.
        ValueError: a bad argument; the source is not COCO's, or has too few instances of a class;
            the name means another data set.
        OSError: no place for the cache.
    """  # noqa: DOC501
    split = str(split)
    _check_arguments(split, json_file, seed, scale)
    # str() and abspath: arguments may come from a config, and "a/" and "./a" are one folder
    root = os.path.join(dataset_root(), "coco") if root is None else str(root)
    root = os.path.abspath(os.path.expanduser(root))
    image_root = os.path.join(root, f"{split}2017")
    if not os.path.isdir(image_root):
        raise _not_found(root, [os.path.join(image_root, "*.jpg")])
    if split == "val":
        json_file = os.path.join(root, "annotations", "instances_val2017.json")
    elif json_file is None:
        json_file = _training_file(root, seed, scale)
    json_file = os.path.abspath(os.path.expanduser(str(json_file)))
    if not os.path.isfile(json_file):
        raise _not_found(root, [json_file])
    default = f"coco_lt_{split}"
    default += "" if seed is None else f"_seed{seed}"
    default += "" if scale is None else f"_scale{scale:g}"
    return register_coco_json(
        name=str(name) if name else default,
        json_file=json_file,
        image_root=image_root,
        class_names=list(COCO_LT_PROFILE),  # refuses a file with other classes than COCO's
        on_invalid=on_invalid,
    )


def _check_arguments(split, json_file, seed, scale) -> None:
    if split not in SPLITS:
        raise ValueError(f"Expected argument `split` to be one of {SPLITS}, but got {split!r}")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise ValueError(f"Expected argument `seed` to be an integer from 0 on, but got {seed!r}")
    coco_lt_targets(1.0 if scale is None else scale)
    given = {"json_file": json_file, "seed": seed, "scale": scale}
    given = [f"`{k}`" for k, v in given.items() if v is not None]
    if given and split == "val":
        raise ValueError(f"Expected {', '.join(given)} for split 'train' only, but got split 'val'")
    if json_file is not None and len(given) > 1:
        raise ValueError(
            f"Expected either `json_file`, which is finished, or what it is drawn with, but got "
            f"{', '.join(given)}"
        )


# Cached, because each loader asks for the data set's name anew: a file that changes during training
# must not end it.
@cache
def _training_file(root: str, seed: int | None, scale: float | None) -> str:
    """The published file, or else the one that is drawn here.

    Raises:
        FileNotFoundError: there is neither it nor the file to draw from.
    """  # noqa: DOC501
    published = [os.path.join(root, "annotations", file) for file in PUBLISHED]
    if seed is None and scale is None:
        for path in published:
            if os.path.isfile(path):
                logger.info("COCO-LT train: the published file, %s", path)
                return path
    else:
        published = []
    source = os.path.join(root, "annotations", "instances_train2017.json")
    if not os.path.isfile(source):
        raise _not_found(root, [*published, source])
    return _drawn_file(source, root, seed or 0, 1.0 if scale is None else float(scale))


def _drawn_file(source: str, root: str, seed: int, scale: float) -> str:
    stat = os.stat(source)
    recipe = {
        "description": "COCO-LT, drawn from COCO train2017 to the class profile of SimCal "
        "(arXiv 2007.11978)",
        "version": FORMAT_VERSION,
        "seed": seed,
        "scale": scale,
        "source": {"file": os.path.basename(source), "bytes": stat.st_size},
        "targets": coco_lt_targets(scale),
    }
    # The time is not in "info": a copy of the same source makes the same file.
    key = json.dumps([recipe, stat.st_mtime_ns])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = cached_file(
        f"coco_lt_train_seed{seed}_{digest}.json",
        root=root,
        topic="coco_lt",
        make=partial(_make, source, recipe),
    )
    info = read_recipe(path)
    if info is None or any(info.get(k) != v for k, v in recipe.items()):
        raise FileExistsError(
            f"{path} is there, but it is not the COCO-LT that was drawn from {source} with seed "
            f"{seed} and scale {scale}. Move it elsewhere"
        )
    check_content(path)
    logger.info(
        "COCO-LT train: %s, drawn from %s with seed %d, scale %g: %d images; %s; %d objects to be "
        "seen in them are without annotation",
        path,
        source,
        seed,
        scale,
        info["images"],
        _bins(info["instances"]),
        sum(info["unlabelled"].values()),
    )
    return path


def _make(source: str, recipe: dict, path: str) -> None:
    logger.info("COCO-LT train: drawing from %s, once; of COCO's size that takes a minute", source)
    write_sample(source, path, recipe)


def _bins(instances: dict[str, int]) -> str:
    """The bins of the published file with their classes, and the instances that these have here."""
    ends = [*COCO_LT_BIN_EDGES[1:], "inf"]
    return ", ".join(
        f"{sum(instances[c] for c in classes)} instances of the {len(classes)} classes of "
        f"[{low}, {high})"
        for low, high, classes in zip(COCO_LT_BIN_EDGES, ends, COCO_LT_BINS, strict=True)
    )


def _not_found(root: str, files: list[str]) -> FileNotFoundError:
    looked_for = "\n  ".join(files)
    any_of = " any of" if len(files) > 1 else ""
    return FileNotFoundError(
        f"COCO-LT is not complete. Looked for{any_of}\n  {looked_for}\n"
        + _HOW_TO_GET.format(root=root)
    )
