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
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from tqdm import tqdm

from iou_balanced.files import write_atomically
from iou_balanced.formats.findings import Findings
from iou_balanced.formats.image_files import ImageError, read_header

from .class_counts.table import format_class_table
from .class_names import match_class_names
from .coco_json import register_coco_json
from .image_reading import pixel_range_of, wide_image_text
from .validation import CheckedLoader, validate_dataset_dicts
from .voc import register_voc_dir

__all__ = ["DataReport", "check_data_set"]


@dataclass
class DataReport:
    """What was found in a data set."""

    name: str
    class_names: list[str]
    num_images: int = 0
    """That are usable."""
    boxes: Counter = field(default_factory=Counter)
    """Class name -> boxes that are trained on."""
    images: Counter = field(default_factory=Counter)
    """Class name -> images with such a box."""
    findings: Findings = field(default_factory=Findings)
    error: str = ""
    """Why the data set cannot be used at all."""

    @property
    def is_refused(self) -> bool:
        """Whether on_invalid="error" would refuse it, or a training would end."""
        return bool(self.error) or self.findings.refusable

    def text(self) -> str:
        """A table of the classes and a line for each kind of finding."""
        heading = (
            f"data set {self.name!r}: {self.num_images} images, {self.boxes.total()} boxes of "
            f"{sum(self.boxes[c] > 0 for c in self.class_names)} classes"
        )
        lines = [heading]
        left_out = self.findings.by_class
        columns = [k for k in left_out if left_out[k]]
        if self.class_names:
            rows = [
                [c, self.boxes[c], self.images[c], *(left_out[k][c] for k in columns)]
                for c in self.class_names
            ]
            headers = ["class", "boxes", "images", *(k.replace("_", " ") for k in columns)]
            lines.append(format_class_table(headers, rows))
        lines += self.findings.lines()
        if self.error:
            lines.append(f"  error: {self.error}")
        elif not self.findings.counts:
            lines.append("  nothing to remark")
        verdict = "refused" if self.is_refused else "accepted"
        lines.append(f'  {verdict}, as on_invalid="error" would')
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "images": self.num_images,
            "refused": self.is_refused,
            "error": self.error or None,
            "classes": [
                {"name": c, "boxes": self.boxes[c], "images": self.images[c]}
                for c in self.class_names
            ],
            "findings": self.findings.to_dict(),
        }


def check_data_set(
    name: str, *, open_images: bool = True, workers: int | None = None, progress: bool = True
) -> DataReport:
    """Check a data set of Detectron2's catalogs.

    Args:
        name: of the data set; of those that are registered here, findings are those of the file.
        open_images: read every image to its end.
        workers: threads that open images; default: as many as there are cores.
        progress: show a progress bar where it takes longer than two seconds.

    Returns:
        What was found; also where the data cannot be used, with the reason in `error`.

    Raises:
        KeyError: there is no such data set.
    """
    load = DatasetCatalog[name]
    report = DataReport(name, list(MetadataCatalog.get(name).get("thing_classes") or ()))
    try:
        if isinstance(load, CheckedLoader):
            dicts, report.findings = load.check()
        else:
            dicts = load()
            report.class_names = list(MetadataCatalog.get(name).get("thing_classes") or ())
            dicts, report.findings = validate_dataset_dicts(
                dicts,
                num_classes=len(report.class_names) or sys.maxsize,
                class_names=report.class_names or None,
            )
    except (OSError, ValueError, KeyError, AssertionError) as e:
        report.error = str(e).split("\n", 1)[0]
        return report
    _count(dicts, report)
    if open_images:
        _open_all(dicts, report.findings, workers, progress)
    return report


def _count(dicts: Sequence[dict], report: DataReport) -> None:
    report.num_images = len(dicts)
    for record in dicts:
        classes = Counter(
            report.class_names[a["category_id"]] if report.class_names else str(a["category_id"])
            for a in record.get("annotations", ())
            if not a.get("iscrowd", 0)
        )
        report.boxes.update(classes)
        report.images.update(classes.keys())


def _open_all(dicts, findings: Findings, workers: int | None, progress: bool) -> None:
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = tqdm(
            pool.map(_look_at, dicts),
            "opening images",
            total=len(dicts),
            unit="image",
            delay=2.0,
            disable=not progress,
        )
        for finding in found:
            if finding is not None:
                findings.add(*finding)


def _look_at(record: dict) -> tuple[str, str] | None:
    """What is wrong with an image that training would read: (kind, text)."""
    path = record["file_name"]
    try:
        header = read_header(path)
        with Image.open(path) as image:
            image.load()
    except ImageError as e:
        return "unreadable_image", str(e)
    except Exception as e:  # damaged files make Pillow raise nearly anything
        return "unreadable_image", f"image {path} cannot be read ({type(e).__name__}: {e})"
    if header.is_wide and pixel_range_of(path) is None:
        return "wide_pixels", wide_image_text(path, header.mode)
    stated = (record.get("width"), record.get("height"))
    if None not in stated and stated != (header.width, header.height):
        turned = f", EXIF orientation {header.orientation}" if header.orientation != 1 else ""
        return "other_size", (
            f"{path} is {header.width} x {header.height} (stored as {header.stored[0]} x "
            f"{header.stored[1]}{turned}), but should be {stated[0]} x {stated[1]}"
        )
    return None


# ---- the command -----------------------------------------------------------------------------


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
        cfg.merge_from_file(config_file)
        cfg.merge_from_list([part for o in overrides for part in o.split("=", 1)])
        return [("train", list(cfg.DATASETS.TRAIN)), ("test", list(cfg.DATASETS.TEST))]
    from detectron2.config import instantiate
    from omegaconf import OmegaConf

    from iou_balanced.engine.config import load_config

    cfg = load_config(config_file, overrides)
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
    if args.config_file:
        return _data_sets_of_config(args.config_file, args.overrides)
    if args.json_file:
        name = register_coco_json(
            name=Path(args.json_file).stem,
            json_file=args.json_file,
            image_root=args.image_root,
            class_names=classes,
            masks=args.masks,
        )
    elif args.voc_root:
        name = register_voc_dir(root=args.voc_root, split=args.split, class_names=classes)
    else:
        name = args.name
    return [("", [name])]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    args = _parse_args(argv)
    check = partial(check_data_set, open_images=not args.no_images, workers=args.workers)
    reports, failed = [], False
    try:
        sources = _sources(args)
        for part, names in sources:
            for name in names:
                report = check(name)
                reports.append({"part": part, **report.to_dict()})
                print(f"{part + ': ' if part else ''}{report.text()}\n")
                failed |= report.is_refused
        by_part = dict(sources)
        if by_part.get("train"):
            train = by_part["train"][0]
            model = MetadataCatalog.get(train).get("thing_classes")
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
