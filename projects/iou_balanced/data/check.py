"""Check data sets before training: read all annotations, open all images, say what is wrong.

python -m iou_balanced.data.check --json-file train.json --image-root images
python -m iou_balanced.data.check --voc-root FOLDER --split trainval
python -m iou_balanced.data.check --config-file CONFIG.py [key=value ...]
python -m iou_balanced.data.check --config-file CONFIG.yaml
python -m iou_balanced.data.check --name coco_2017_val

Prints the boxes of each class and every kind of finding with examples. The exit status is 1 where
on_invalid="error" would refuse the data, or training would end at an image; --output writes all of
it as JSON. --no-images leaves the images closed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from iou_balanced.data.datasets.coco_json import register_coco_json
from iou_balanced.data.datasets.voc import register_voc_dir
from iou_balanced.files import write_atomically
from iou_balanced.formats.class_names import list_names, match_class_names
from iou_balanced.formats.coco_file import BBOX_FORMATS

from .data_report import check_data_set


def _data_sets_of_config(config_file: str, overrides: list[str]) -> list[tuple[str, list[str]]]:
    """(train or test, names) of a LazyConfig or a yaml config, registered.

    Raises:
        ValueError: the config cannot be read, or names data sets that nobody registered.
    """
    # Only the command knows of configs: the package `data` is below `engine`.
    if config_file.endswith((".yaml", ".yml")):
        from detectron2.config import get_cfg

        cfg = get_cfg()
        cfg.set_new_allowed(True)
        try:
            cfg.merge_from_file(config_file)
            cfg.merge_from_list([part for o in overrides for part in o.split("=", 1)])
        except Exception as e:  # yacs asserts, yaml and its constructors raise errors of their own
            text = " ".join(f"{type(e).__name__}: {e}".split())
            raise ValueError(f"{config_file} cannot be read with {overrides}: {text}") from e
        return [("train", list(cfg.DATASETS.TRAIN)), ("test", list(cfg.DATASETS.TEST))]
    from detectron2.config import instantiate
    from omegaconf import OmegaConf

    from iou_balanced.engine.config import load_config
    from iou_balanced.engine.loader import prepare_masks
    from iou_balanced.engine.missing import check_missing

    cfg = load_config(config_file, overrides)
    check_missing(cfg, below="datasets.")
    prepare_masks(cfg)
    found = []
    for part in ("train", "test"):
        names = OmegaConf.select(cfg.dataloader, f"{part}.dataset.names")
        if names is not None:
            names = instantiate(names)
            found.append((part, [names] if isinstance(names, str) else list(names)))
    return found


def _parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m iou_balanced.data.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--json-file", help="annotations in COCO's format; with --image-root")
    source.add_argument("--voc-root", help="a folder in VOC format; with --split")
    source.add_argument("--config-file", help="a LazyConfig or yaml config: its data sets")
    source.add_argument("--name", help="a data set of Detectron2's own")
    parser.add_argument("--image-root", help="folder of the images of --json-file")
    parser.add_argument("--split", help="of --voc-root: a name in ImageSets/Main")
    parser.add_argument("--class-names", help="the classes, with commas between them")
    parser.add_argument("--masks", action="store_true", help="masks of --json-file are needed")
    parser.add_argument("--bbox-format", choices=BBOX_FORMATS, help="of --json-file")
    parser.add_argument("--difficult", choices=("keep", "drop"), default="keep", help="VOC's")
    parser.add_argument("--pixel-range", help="LOW,HIGH or image: of more than 8 bits")
    parser.add_argument("--no-images", action="store_true", help="do not open the images")
    parser.add_argument("--workers", type=int, help="threads that open images")
    parser.add_argument("--output", help="JSON file for the result")
    parser.add_argument("overrides", nargs="*", help="key=value, for --config-file")
    args = parser.parse_args(argv)
    for given, needed in (("json_file", "image_root"), ("voc_root", "split")):
        if getattr(args, given) and not getattr(args, needed):
            option = needed.replace("_", "-")
            parser.error(f"--{given.replace('_', '-')} needs --{option}")
    if args.overrides and not args.config_file:
        parser.error(f"{args.overrides[0]}: overrides go with --config-file")
    return args


def _sources(args: argparse.Namespace) -> list[tuple[str, list[str]]]:
    classes = args.class_names.split(",") if args.class_names else None
    pixel_range = args.pixel_range
    if pixel_range not in (None, "image"):
        pixel_range = pixel_range.split(",")
    if args.config_file:
        return _data_sets_of_config(args.config_file, args.overrides)
    if args.json_file:
        name = register_coco_json(
            name=f"{Path(args.json_file).name} in {args.image_root}",
            json_file=args.json_file,
            image_root=args.image_root,
            class_names=classes,
            masks=args.masks,
            bbox_format=args.bbox_format,
            pixel_range=pixel_range,
        )
    elif args.voc_root:
        name = register_voc_dir(
            root=args.voc_root,
            split=args.split,
            class_names=classes,
            difficult=args.difficult,
            pixel_range=pixel_range,
        )
    else:
        name = args.name
    return [("", [name])]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Args:
        argv: the command line; default: this process's.
    """  # noqa: DOC501
    args = _parse_args(argv)
    check = partial(check_data_set, open_images=not args.no_images, workers=args.workers)
    reports, failed = [], False
    try:
        sources = _sources(args)
        for part, names in sources:
            for name in names:
                if name not in DatasetCatalog:
                    raise ValueError(
                        f"no data set is registered as {name!r}: Detectron2's own are such as "
                        "coco_2017_val; for others give --json-file, --voc-root or --config-file"
                    )
                report = check(name)
                if part == "train" and not report.boxes and not report.error:
                    report.error = "it has no box to train on"
                reports.append({"part": part, **report.to_dict()})
                print(f"{part + ': ' if part else ''}{report.text()}\n")
                failed |= report.is_refused
        by_part = dict(sources)
        if by_part.get("train"):
            train, *others = by_part["train"]
            model = MetadataCatalog.get(train).get("thing_classes")
            for name in others:
                classes = MetadataCatalog.get(name).get("thing_classes")
                if classes != model:
                    raise ValueError(
                        f"the training sets {train!r} and {name!r} have other classes, or another "
                        f"order: {list_names(model or ())} and {list_names(classes or ())}"
                    )
            for name in by_part.get("test", ()):
                classes = MetadataCatalog.get(name).get("thing_classes")
                if model and classes:
                    match_class_names(
                        classes, model, of=f"data set {name!r}", model=f"the training set {train!r}"
                    )
    except (OSError, ValueError, KeyError) as e:
        message = e.args[0] if isinstance(e, KeyError) and e.args else e
        print(f"error: {message}")
        reports.append({"error": str(message)})
        failed = True
    if args.output:
        write_atomically(args.output, lambda file: json.dump(reports, file, indent=2))
        print(f"Wrote {args.output}.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
