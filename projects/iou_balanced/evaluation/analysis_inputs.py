"""What an evaluation leaves for `iou_balanced.analysis`: where ground truth and detections are."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from iou_balanced.analysis.run_folder import INPUTS_FILE
from iou_balanced.files import write_atomically
from iou_balanced.formats.coco_ground_truth import CocoGroundTruth

from .coco_ground_truth import converted_file

__all__ = ["write_analysis_inputs"]


def write_analysis_inputs(
    output_dir: str | os.PathLike,
    dataset_name: str,
    ground_truth: CocoGroundTruth,
    *,
    detections: str = "coco_instances_results.json",
    ignored: Sequence[int] = (),
    class_counts=None,
) -> Path:
    """Write `analysis_inputs.json`, which `iou_balanced.analysis.run_folder` reads.

    The ground truth is the data set's own JSON file, with the categories that are classes of the
    model; of a data set without one, what `keep_converted` wrote.

    Args:
        output_dir: of the evaluator.
        dataset_name: of Detectron2's catalogs.
        ground_truth: what was scored.
        detections: a result file in `output_dir`, in the ids of the data set.
        ignored: objects, by their place among the annotations, that are neither to be found nor
            background.
        class_counts: file of the training instances; other kinds are left out.
    """
    metadata = MetadataCatalog.get(dataset_name)
    path = metadata.get("coco_json") or metadata.get("json_file")
    inputs = {"data_set": dataset_name, "detections": detections}
    if path is None:
        inputs["ground_truth"] = converted_file(dataset_name)
    else:
        inputs |= {
            "ground_truth": os.path.abspath(PathManager.get_local_path(path)),
            "bbox_format": metadata.get("bbox_format"),
            "class_names": list(ground_truth.class_names),
            "category_ids": list(ground_truth.category_ids),
        }
    inputs |= {
        "images": metadata.get("image_root"),
        "ignored": [int(i) for i in ignored],
        "class_counts": None,
    }
    if isinstance(class_counts, (str, os.PathLike)):
        inputs["class_counts"] = os.path.abspath(class_counts)
    text = json.dumps(inputs, indent=1, ensure_ascii=False, default=os.fspath)
    return write_atomically(Path(output_dir) / INPUTS_FILE, lambda file: file.write(text + "\n"))
