"""The data sets of the PASCAL VOC challenges, 2007 to 2012, in their official layout."""

import logging
import os
from collections.abc import Sequence
from functools import partial

from detectron2.data.datasets.pascal_voc import CLASS_NAMES
from detectron2.utils import comm

from .registration import already_registered, dataset_root, register
from .validation import CheckedLoader, Findings
from .voc import name_suffix
from .voc_files import image_size, load_voc_split, read_split, split_file

__all__ = ["VOC_CLASSES", "register_voc"]

logger = logging.getLogger(__name__)

VOC_CLASSES = list(CLASS_NAMES)
"""The 20 classes of the challenges since 2007, in their official order."""

_SPLITS = ("train", "val", "trainval", "test")
_PAGE = "http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/"
_EVALUATION_SERVER = "http://host.robots.ox.ac.uk:8080/"
_TRAINVAL_TAR = {
    2007: "VOCtrainval_06-Nov-2007.tar",
    2008: "VOCtrainval_14-Jul-2008.tar",
    2009: "VOCtrainval_11-May-2009.tar",
    2010: "VOCtrainval_03-May-2010.tar",
    2011: "VOCtrainval_25-May-2011.tar",
    2012: "VOCtrainval_11-May-2012.tar",
}
_TEST_TAR_2007 = "VOCtest_06-Nov-2007.tar"
_NUM_EXAMPLES = 5


def register_voc(
    *,
    years: int | Sequence[int],
    split: str,
    root: str | None = None,
    name: str | None = None,
    difficult: str = "keep",
    on_invalid: str = "drop",
) -> str:
    """Register a split of one or several years of the challenge; return the data set's name.

    "07+12 trainval" is `years=[2007, 2012], split="trainval"`. Below `root` each year is either
    VOC2007, the layout of Detectron2, or VOCdevkit/VOC2007, which is how the official archives
    unpack. The images are those that ImageSets/Main/<split>.txt lists; parts of persons, and what
    is there for segmentation only, are not used.

    The data set has the 20 `VOC_CLASSES`. Boxes, "image_id" (here counted through the years) and
    the other keys are those of `register_voc_dir`; boxes of one pixel are kept, as the challenge
    counts them. The test sets after 2007 are registered without "annotations", because those are
    not public: evaluation then only writes the files for the server.

    Args:
        years: from 2007 to 2012.
        split: "train", "val", "trainval" or "test".
        root: default: $DETECTRON2_DATASETS, else ./datasets.
        name: default: such as "voc2007_2012_trainval", with "_without_difficult" where those are
            dropped. Detectron2's own sets are named "voc_2007_trainval" and so on.
        difficult: "keep" marks difficult objects as such, which evaluation needs; "drop" leaves
            them out, as MMDetection does in training.
        on_invalid: "drop" or "error", see `iou_balanced.data.datasets.validation`.

    Raises:
        FileNotFoundError: a year is missing, or (when the data is loaded) an image or annotation
            that the split lists; says where it was looked for and how to get it.
        ValueError: a bad argument; the name means another data set.
    """
    years = _check_years(years)
    if split not in _SPLITS:
        raise ValueError(f"Expected argument `split` to be one of {_SPLITS}, but got {split!r}")
    annotated = [not (split == "test" and year > 2007) for year in years]
    if len(set(annotated)) > 1:
        raise ValueError(
            f"Expected argument `years` to have annotations or to have none, but got {years}: the "
            "test sets after 2007 have none"
        )
    suffix = name_suffix(difficult)
    name = str(name) if name else f"voc{'_'.join(map(str, years))}_{split}{suffix}"
    root = os.path.abspath(os.path.expanduser(str(root)) if root else dataset_root())
    arguments = {
        "function": "register_voc",
        "years": years,
        "split": split,
        "root": root,
        "difficult": difficult,
        "on_invalid": on_invalid,
    }
    if already_registered(name, arguments):
        return name

    folders = _find(root, years, split)
    load = CheckedLoader(
        partial(_load, root, folders, split, difficult, annotated[0]),
        name=name,
        class_names=VOC_CLASSES,
        on_invalid=on_invalid,
    )
    # Not "pascal_voc": Detectron2's own VOC evaluator needs other image ids.
    metadata = {
        "thing_classes": list(VOC_CLASSES),
        "evaluator_type": "coco",
        "years": years,
        "split": split,
        "difficult": difficult,
    }
    return register(name, arguments, load, metadata)


def _check_years(years) -> list[int]:
    given = years
    years = [years] if isinstance(years, int) else list(years)
    if not years or len(set(years)) < len(years) or not set(years) <= set(_TRAINVAL_TAR):
        raise ValueError(
            "Expected argument `years` to be distinct years from 2007 to 2012, as numbers, but got "
            f"{given!r}"
        )
    return years


def _find(root: str, years: list[int], split: str) -> dict[int, str]:
    """Year -> its folder.

    Raises:
        FileNotFoundError: one is missing; says where it was looked for and how to get it.
    """
    folders, problems = {}, []
    for year in years:
        places = [os.path.join(root, *parts, f"VOC{year}") for parts in ((), ("VOCdevkit",))]
        looked_for = [split_file(place, split) for place in places]
        found = [p for p, file in zip(places, looked_for, strict=True) if os.path.isfile(file)]
        if found:
            folders[year] = found[0]
        else:
            problems.append(
                f"PASCAL VOC {year} {split} is missing: there is neither {looked_for[0]} nor "
                f"{looked_for[1]}. {_how_to_get(year, split, root)}"
            )
    if problems:
        raise FileNotFoundError("\n".join([*problems, _layout(root)]))
    return folders


def _how_to_get(year: int, split: str, root: str) -> str:
    if split == "test" and year > 2007:
        source = f"the test images of {year}, after registration, from {_EVALUATION_SERVER}"
    else:
        tar = _TEST_TAR_2007 if split == "test" else _TRAINVAL_TAR[year]
        source = f"{tar} from {_PAGE.format(year=year)}"
    # Its folders are TrainVal/VOCdevkit/VOC2011.
    move = " Move VOCdevkit out of TrainVal." if year == 2011 else ""
    return f"Get {source} and unpack it in {root}.{move}"


def _layout(root: str) -> str:
    variable = os.getenv("DETECTRON2_DATASETS")
    is_set = "not set" if variable is None else repr(variable)
    return (
        f"Expected below {root} ($DETECTRON2_DATASETS is {is_set}), with or without VOCdevkit:\n"
        "  VOCdevkit/VOC<year>/Annotations/*.xml\n"
        "  VOCdevkit/VOC<year>/ImageSets/Main/<split>.txt\n"
        "  VOCdevkit/VOC<year>/JPEGImages/*.jpg"
    )


def _load(
    root: str, folders: dict[int, str], split: str, difficult: str, annotated: bool
) -> tuple[list[dict], Findings]:
    dicts, findings = [], Findings()
    num_lines = 0
    for year, folder in folders.items():
        lines = read_split(folder, split)
        missing = _missing_files(folder, [stem for _, stem in lines], annotated)
        # AP on the rest would be another number, and nobody would see that it is.
        if missing:
            raise FileNotFoundError(
                f"PASCAL VOC {year} {split} is incomplete: {split_file(folder, split)} lists "
                f"{len(lines)} images, and {len(missing)} files are missing: "
                f"{', '.join(missing[:_NUM_EXAMPLES])}{', ...' * (len(missing) > _NUM_EXAMPLES)}. "
                f"{_how_to_get(year, split, root)}"
            )
        if annotated:
            records, _ = load_voc_split(folder, split, VOC_CLASSES, difficult, findings)
        else:
            records = [_bare_record(folder, stem, line) for line, stem in lines]
        for record in records:
            record["image_id"] += num_lines
        num_lines += lines[-1][0] if lines else 0
        dicts += records
    if any(findings.counts[k] for k in ("bad_annotation", "missing_image", "unreadable_image")):
        raise ValueError(
            findings.summary(f"PASCAL VOC {split}", "Files are damaged: unpack again.")
        )
    if difficult == "drop" and comm.is_main_process():
        empty = sum(not record.get("annotations") for record in dicts)
        logger.info("Difficult objects left out; %d of %d images have no other.", empty, len(dicts))
    return dicts, findings


def _missing_files(folder: str, stems: list[str], annotated: bool) -> list[str]:
    missing = []
    for sub, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml"))[: 1 + annotated]:
        path = os.path.join(folder, sub)
        there = set(os.listdir(path)) if os.path.isdir(path) else set()
        missing += [os.path.join(path, s + suffix) for s in stems if s + suffix not in there]
    return missing


def _bare_record(folder: str, stem: str, line: int) -> dict:
    path = os.path.join(folder, "JPEGImages", stem + ".jpg")
    width, height = image_size(path)
    return {
        "file_name": path,
        "image_id": line,
        "voc_id": stem,
        "height": height,
        "width": width,
    }
