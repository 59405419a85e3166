"""Any folder in VOC format as a Detectron2 data set."""

import os
from collections.abc import Sequence
from functools import partial

from iou_balanced.data.image_reading import set_pixel_range
from iou_balanced.formats.class_names import check_spelling, list_names
from iou_balanced.formats.voc_xml import class_names_of, split_file

from .registration import already_registered, as_class_names, register
from .validation import CheckedLoader
from .voc_files import load_voc_split

__all__ = ["register_voc_dir", "voc_class_names"]

# Boxes are inclusive, so one with xmax == xmin is 1 pixel wide after the subtraction. Files that
# hold one hold a stray click, not an object of one pixel: such a box counts as one without area.
_MIN_SIDE = 1.0


def register_voc_dir(
    *,
    root: str,
    split: str,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    difficult: str = "keep",
    on_invalid: str = "drop",
    pixel_range: Sequence[float] | str | None = None,
) -> str:
    """Register a folder in VOC format and return the data set's name.

    The folder has Annotations/*.xml, ImageSets/Main/<split>.txt and JPEGImages/ (jpg, png, ...).
    The image is the file of the xml's stem, or else the one in <filename>. Boxes are 1-based
    inclusive pixels in the file and become XYXY_ABS as in Detectron2's own VOC loader (1 is
    subtracted from xmin and ymin). `image_id` is the line in the split file, from 1, because fast
    COCO evaluation takes numbers only; "voc_id" is the stem. An annotation has "difficult" (0, 1).

    Nothing but class names is read before Detectron2 asks for the data. For COCO evaluation
    Detectron2 converts what is then loaded to COCO JSON, so dropped boxes are missing there too,
    and difficult ones count like any other. `VOCDetectionEvaluator` treats them as the challenge
    does.

    Args:
        root: the folder.
        split: a name in ImageSets/Main, without .txt.
        name: default: the folder's name and the split, such as "bccd_train"; with
            "_without_difficult" where those are dropped.
        class_names: default: all that occur in Annotations, of whatever split, sorted. Of the names
            in the files, boxes of others are dropped as unknown; names here that no file has are
            classes without a box.
        difficult: "keep", or "drop" to leave difficult objects out, for training.
        on_invalid: "drop" or "error", see `iou_balanced.data.datasets.validation`.
        pixel_range: how images of more than 8 bits are scaled: (low, high), the values that become
            0 and 255, or "image" for each image's own. By default they are refused.

    Raises:
        FileNotFoundError: the folder, its Annotations or the split is missing.
        ValueError: no classes; none of `class_names` is in the files, or one in another spelling
            only; the name means another data set; another bad argument. When the data is loaded:
            invalid data with on_invalid="error", or no box left.
    """
    if root is None:  # whose text would be a folder's name
        raise ValueError("root is None: give the folder")
    # str() and abspath: arguments may come from a config, and "a/" and "./a" are one folder
    root, split = os.path.abspath(os.path.expanduser(str(root))), str(split)
    class_names = as_class_names(class_names)
    suffix = name_suffix(difficult)
    name = str(name) if name else f"{os.path.basename(root)}_{split}{suffix}"
    arguments = {
        "function": "register_voc_dir",
        "root": root,
        "split": split,
        "class_names": class_names,
        "difficult": difficult,
        "on_invalid": on_invalid,
        "pixel_range": set_pixel_range(os.path.join(root, "JPEGImages"), pixel_range),
    }
    if already_registered(name, arguments):
        return name

    _check_layout(root, split)
    classes = voc_class_names(root)
    if class_names is not None:
        check_spelling(class_names, classes, of="class_names", of_others=root)
        if not set(class_names) & set(classes):
            raise ValueError(
                f"class_names has {list_names(class_names)}, but the xml files in {root} have only "
                f"{list_names(classes)}"
            )
        classes = class_names
    load = CheckedLoader(
        partial(
            load_voc_split,
            root,
            split,
            classes,
            difficult,
            pixel_range=arguments["pixel_range"],
        ),
        name=name,
        class_names=classes,
        on_invalid=on_invalid,
        min_side=_MIN_SIDE,
    )
    metadata = {
        "thing_classes": classes,
        "evaluator_type": "coco",
        "dirname": root,
        "split": split,
        "difficult": difficult,
        "image_root": os.path.join(root, "JPEGImages"),
    }
    return register(name, arguments, load, metadata)


def voc_class_names(root: str) -> list[str]:
    """The class names in all xml files of `root`/Annotations, sorted.

    Files that cannot be parsed are passed over here and reported when the data is loaded.

    Args:
        root: folder in VOC format.

    Raises:
        ValueError: there is no object in any of them.
    """
    return class_names_of(root)


def _check_layout(root: str, split: str) -> None:
    for folder in (root, os.path.join(root, "Annotations"), os.path.join(root, "JPEGImages")):
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f"{folder} is not a folder; a VOC data set has Annotations, ImageSets/Main and "
                "JPEGImages"
            )
    file = split_file(root, split)
    if not os.path.isfile(file):
        folder = os.path.dirname(file)
        found = os.listdir(folder) if os.path.isdir(folder) else []
        splits = sorted(f[: -len(".txt")] for f in found if f.endswith(".txt"))
        raise FileNotFoundError(f"split {split!r}: {file} does not exist; splits there: {splits}")


def name_suffix(difficult: str) -> str:
    """What tells the name of a data set without its difficult objects from that with them.

    Raises:
        ValueError: `difficult` is neither "keep" nor "drop".
    """
    if difficult not in ("keep", "drop"):
        raise ValueError(
            f"Expected argument `difficult` to be 'keep' or 'drop', but got {difficult!r}"
        )
    return "_without_difficult" if difficult == "drop" else ""
