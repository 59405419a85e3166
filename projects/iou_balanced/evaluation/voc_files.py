"""Files of the VOC evaluator: AP of each class, and what `iou_balanced.analysis` reads."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from iou_balanced.files import write_atomically
from iou_balanced.formats.values import parse_flag

from .analysis_inputs import write_analysis_inputs
from .coco_ground_truth import ground_truth_of, ground_truth_of_dicts, keep_converted
from .voc_metrics import Detections

__all__ = ["RESULTS_FILE", "VOCAnalysisFiles", "is_difficult"]

RESULTS_FILE = "coco_instances_results.json"


class VOCAnalysisFiles:
    """Ground truth and detections of a data set in COCO's format, difficult objects left aside.

    Args:
        dataset_name: of Detectron2's catalogs.
        dicts: the data set.
        class_names: the model's.
        class_counts: path of their file, or None.
    """

    def __init__(
        self,
        dataset_name: str,
        dicts: Sequence[dict],
        class_names: Sequence[str],
        class_counts=None,
    ) -> None:
        self._dataset_name, self._class_counts = dataset_name, class_counts
        self._image_ids = [record["image_id"] for record in dicts]
        metadata = MetadataCatalog.get(dataset_name)
        self._ignored: list[int] = []
        if metadata.get("json_file") or metadata.get("coco_json"):
            self._truth = ground_truth_of(dataset_name, class_names)
        else:
            self._truth = ground_truth_of_dicts(dataset_name, dicts, class_names)
            annotations = [a for record in dicts for a in record.get("annotations", ())]
            self._ignored = [i for i, a in enumerate(annotations) if is_difficult(a)]

    def write(self, output_dir: str | os.PathLike, detections: Detections) -> None:
        """Write the files into the evaluator's folder.

        Args:
            output_dir: of the evaluator.
            detections: their images as places in `dicts`, their classes the model's.
        """
        category_ids = self._truth.category_ids
        x0, y0, x1, y1 = detections.boxes.T
        boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist()
        columns = (detections.images.tolist(), detections.classes.tolist())
        rows = [
            {
                "image_id": self._image_ids[image],
                "category_id": category_ids[k],
                "bbox": box,
                "score": score,
            }
            for image, k, box, score in zip(
                *columns, boxes, detections.scores.tolist(), strict=True
            )
            if category_ids[k] is not None
        ]
        write_atomically(Path(output_dir) / RESULTS_FILE, lambda file: json.dump(rows, file))
        keep_converted(self._dataset_name, os.fspath(output_dir), self._truth)
        write_analysis_inputs(
            output_dir,
            self._dataset_name,
            self._truth,
            detections=RESULTS_FILE,
            ignored=self._ignored,
            class_counts=self._class_counts,
        )


def is_difficult(annotation: dict) -> bool:
    """Whether an object counts neither way, as crowds do.

    Args:
        annotation: of a dict of the data set.
    """
    return bool(parse_flag(annotation.get("difficult")) or parse_flag(annotation.get("iscrowd")))
