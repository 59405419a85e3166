"""The files that evaluation leaves: metrics as CSV, and boxes for COCO's evaluation server."""

import csv
import json
import os
import zipfile
from pathlib import Path

from detectron2.evaluation.testing import flatten_results_dict

from iou_balanced.files import write_atomically


def write_metrics_csv(path: str | os.PathLike, results: dict) -> Path:
    """Write {task: {metric: value}} as rows `metric,value`, for example `bbox/AP,35.64`.

    Values keep full precision; NaN is written as nan.

    Args:
        path: of the file; it is replaced as a whole.
        results: {task: {metric: value}}.
    """

    def write(file):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["metric", "value"])
        writer.writerows((k, repr(float(v))) for k, v in flatten_results_dict(results).items())

    return write_atomically(path, write)


def write_result_file(path: str | os.PathLike, results) -> tuple[Path, Path]:
    """Write detections as COCO's evaluation server takes them.

    Args:
        path: ends in .json; a .zip of the same name with just this file is written beside it.
        results: dicts with image_id, category_id (the data set's), bbox (XYWH, pixels), score;
            other keys are left out.

    Returns:
        The paths of the JSON and of the zip file. Boxes are rounded to 0.01 pixels and scores to
        five decimals, which keeps the upload small.
    """
    rows = [
        {
            "image_id": result["image_id"],
            "category_id": int(result["category_id"]),
            "bbox": [round(float(x), 2) for x in result["bbox"]],
            "score": round(float(result["score"]), 5),
        }
        for result in results
    ]
    path = write_atomically(path, lambda file: json.dump(rows, file, separators=(",", ":")))

    def write_zip(file):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, arcname=path.name)

    return path, write_atomically(path.with_suffix(".zip"), write_zip, mode="wb")


def check_result_file(
    result_file: str | os.PathLike | None, output_dir: str | os.PathLike | None
) -> Path | None:
    """The path of `result_file` in `output_dir`; None for None.

    Raises:
        ValueError: it does not end in .json, or is neither absolute nor has a folder.
    """
    if result_file is None:
        return None
    if not str(result_file).endswith(".json"):
        raise ValueError(f"Expected argument `result_file` to end in .json, but got {result_file}")
    if output_dir is None and not os.path.isabs(result_file):
        raise ValueError(
            f"Expected argument `result_file` to be absolute, or output_dir to be given, "
            f"but got {result_file!r} and output_dir=None"
        )
    return Path(output_dir or "") / result_file
