"""What is in a data set, and what is wrong with it, with its images opened."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from tqdm import tqdm

from iou_balanced.data.datasets.validation import CheckedLoader, validate_dataset_dicts
from iou_balanced.formats.findings import Findings
from iou_balanced.formats.image_files import ImageError, read_header

from .class_counts.table import format_class_table
from .image_reading import can_scale, pixel_range_of, wide_image_text

__all__ = ["DataReport", "check_data_set"]


@dataclass
class DataReport:
    """What was found in a data set."""

    name: str
    """The data set's."""
    class_names: list[str]
    """By contiguous class id."""
    num_images: int = 0
    """Usable images."""
    boxes: Counter = field(default_factory=Counter)
    """Class name -> boxes that are trained on."""
    images: Counter = field(default_factory=Counter)
    """Class name -> images with such a box."""
    findings: Findings = field(default_factory=Findings)
    """What is wrong with it, or left out."""
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
            dicts, report.findings, report.error = load.look()
            if report.error:
                return report
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
    if header.is_wide and not can_scale(header.mode, pixel_range_of(path)):
        return "wide_pixels", wide_image_text(path, header.mode)
    stated = (record.get("width"), record.get("height"))
    if None not in stated and stated != (header.width, header.height):
        turned = f", EXIF orientation {header.orientation}" if header.orientation != 1 else ""
        return "other_size", (
            f"{path} is {header.width} x {header.height} (stored as {header.stored[0]} x "
            f"{header.stored[1]}{turned}), but should be {stated[0]} x {stated[1]}"
        )
    return None
