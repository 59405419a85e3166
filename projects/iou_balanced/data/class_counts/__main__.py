"""Count the classes of a COCO JSON file, and print the class weights of Eq. 5.

python -m iou_balanced.data.class_counts --json-file annotations.json [--output class_counts.json]

Counted are the boxes of the file, crowds left out. Training can have fewer, where it drops boxes
that are invalid; it says so.
"""

import argparse
import math
import sys
from pathlib import Path

from detectron2.structures import BoxMode

from iou_balanced.formats.coco_file import CocoFile
from iou_balanced.formats.findings import Findings

from .counts import ClassCounts
from .extremes import warn_extreme


def count_json_file(json_file: str, findings: Findings | None = None) -> ClassCounts:
    """The counts of a COCO JSON file; the images themselves are not read.

    Classes are the file's categories in the order of their ids.

    Args:
        json_file: its path.
        findings: gets what could not be read of the file, whose boxes do not count.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no COCO JSON file, has no annotations, or contradicts itself.
    """
    file = CocoFile(json_file)
    if not file.has_annotations:
        raise ValueError(
            f"{json_file} is not COCO JSON with annotations: the file lacks 'annotations'"
        )
    records = [
        {
            "file_name": image.file_name,
            "width": image.width,
            "height": image.height,
            "annotations": [],
        }
        for image in file.images
    ]
    for box in file.boxes():
        annotation = {
            "category_id": box.category,
            "iscrowd": box.iscrowd,
            "bbox": box.bbox,
            "bbox_mode": BoxMode.XYWH_ABS,
        }
        records[box.image]["annotations"].append(annotation)
    names = [category.name for category in file.categories]
    if findings is not None:
        findings.update(file.findings)
    counts = ClassCounts.from_dicts(records, names, name=Path(json_file).stem)
    return counts.with_fractal_dimensions(records)


def inverse_frequencies(instances: tuple[int, ...]) -> list[float]:
    """alpha_i = n / (K n_i), Eq. 5; NaN for a class without instances."""
    total, num_classes = sum(instances), len(instances)
    return [total / (num_classes * n) if n else math.nan for n in instances]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m iou_balanced.data.class_counts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json-file", required=True, help="annotations in COCO's format")
    parser.add_argument("--output", help="file for the counts, to evaluate AP_tail and AP_head")
    args = parser.parse_args(argv)
    try:
        findings = Findings()
        counts = count_json_file(args.json_file, findings)
        alpha = inverse_frequencies(counts.instances)
        if findings.counts:
            print(findings.summary(counts.name), file=sys.stderr)
        print(counts.table(alpha))
        present = [k for k, n in enumerate(counts.instances) if n]
        warning = warn_extreme(
            [alpha[k] for k in present],
            [counts.class_names[k] for k in present],
            instances=[counts.instances[k] for k in present],
        )
        if warning:
            print(warning)
        absent = [
            name for name, n in zip(counts.class_names, counts.instances, strict=True) if not n
        ]
        if absent:
            print(f"Without any instance, and so without a weight by Eq. 5: {', '.join(absent)}.")
        if args.output:
            print(f"Wrote {counts.save(args.output)}.")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
