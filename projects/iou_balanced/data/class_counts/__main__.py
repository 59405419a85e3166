"""Count the classes of a COCO JSON file, and print the class weights of Eq. 5.

python -m iou_balanced.data.class_counts --json-file annotations.json [--output class_counts.json]

Counted are the boxes of the file, crowds left out. Training can have fewer, where it drops boxes
that are invalid; it says so.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from .counts import ClassCounts
from .extremes import warn_extreme


def count_json_file(json_file: str) -> ClassCounts:
    """The counts of a COCO JSON file; the images themselves are not read.

    Classes are the file's categories in the order of their ids. Annotations of images that the
    file does not list are passed over, as Detectron2's loader does.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no COCO JSON file, has no annotations, or a box has an unknown category.
    """
    try:
        with open(json_file, encoding="utf-8") as file:
            data = json.load(file)
        categories = {c["id"]: str(c["name"]) for c in data["categories"]}
        records = {
            image["id"]: {"file_name": image["file_name"], "annotations": []}
            for image in data["images"]
        }
        contiguous = {c: k for k, c in enumerate(sorted(categories))}
        for annotation in data["annotations"]:
            if annotation["image_id"] not in records:
                continue
            category = annotation["category_id"]
            # As text it is unknown to whoever counts, who then names the image as well.
            k = contiguous.get(category, f"category_id {category} of the file")
            box = {"category_id": k, "iscrowd": annotation.get("iscrowd", 0)}
            records[annotation["image_id"]]["annotations"].append(box)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{json_file} is not JSON: {error}") from error
    except KeyError as error:
        raise ValueError(
            f"{json_file} is not COCO JSON with annotations: an entry or the file lacks {error}"
        ) from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{json_file} is not COCO JSON: {error}") from error
    names = [categories[c] for c in contiguous]
    return ClassCounts.from_dicts(list(records.values()), names, name=Path(json_file).stem)


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
        counts = count_json_file(args.json_file)
        alpha = inverse_frequencies(counts.instances)
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
