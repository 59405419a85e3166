"""The output folder of a training: its detections, and what they are compared with."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from iou_balanced.formats.coco_file import CocoFile
from iou_balanced.formats.coco_ground_truth import CocoGroundTruth
from iou_balanced.formats.text_files import read_json

from .ground_truth import GroundTruth, read_ground_truth

__all__ = ["INPUTS_FILE", "RunFolder", "find_inputs", "read_run_folder"]

INPUTS_FILE = "analysis_inputs.json"
_INFERENCE = "inference"
_KEYS = ("data_set", "ground_truth", "detections")


@dataclass(frozen=True)
class RunFolder:
    """What an evaluation left."""

    inputs: Mapping
    """Of `analysis_inputs.json`."""
    folder: Path
    """Where that file is."""
    metrics: Path
    """The training's metrics.json, which may be missing."""

    @property
    def data_set(self) -> str:
        """Its name."""
        return self.inputs["data_set"]

    @property
    def detections(self) -> Path:
        """The result file."""
        return self.folder / self.inputs["detections"]

    @property
    def images(self) -> str | None:
        """Folder of the images, where it is there."""
        images = self.inputs.get("images")
        return images if images and os.path.isdir(images) else None

    @property
    def class_counts(self) -> str | None:
        """File of the training instances of each class, where it is there."""
        counts = self.inputs.get("class_counts")
        return counts if counts and os.path.isfile(counts) else None

    def read_ground_truth(self) -> GroundTruth:
        """What was scored: the same classes, and the same objects left aside.

        Raises:
            OSError: a file cannot be read.
            ValueError: the ground truth is not there any more, or is not what it should be.
        """
        path = self.folder / self.inputs["ground_truth"]  # an absolute one stays as it is
        if not path.is_file():
            raise ValueError(f"{path}, the ground truth of {self.folder}, does not exist any more")
        if self.inputs.get("class_names") is None:
            truth = read_ground_truth(path)
        else:
            file = CocoFile(os.fspath(path), bbox_format=self.inputs.get("bbox_format"))
            names = self.inputs["class_names"]
            classes = {i: k for k, i in enumerate(self.inputs["category_ids"]) if i is not None}
            places = {x.name: classes[x.id] for x in file.categories if x.id in classes}
            known = CocoGroundTruth.from_file(file, names, places, masks=False)
            truth = GroundTruth.from_coco(known, os.fspath(path))
        if ignored := self.inputs.get("ignored"):
            mask = truth.ignored.copy()
            mask[ignored] = True
            note = f"{len(ignored)} difficult objects are left aside."
            truth = replace(truth, ignored=mask, notes=[*truth.notes, note])
        if truth.ignored.all():
            raise ValueError(f"{path} has no objects to find: no AP is defined")
        return truth


def find_inputs(folder: str | os.PathLike) -> Path | None:
    """`analysis_inputs.json` in an output folder or in its folder `inference`."""
    for place in (Path(folder), Path(folder) / _INFERENCE):
        if (place / INPUTS_FILE).is_file():
            return place / INPUTS_FILE
    return None


def read_run_folder(folder: str | os.PathLike) -> RunFolder:
    """What the evaluation of a training left.

    Args:
        folder: train.output_dir, or the evaluator's folder below it.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is none, or it is damaged; names the folder.
    """
    path = find_inputs(folder)
    if path is None:
        raise ValueError(
            f"{os.fspath(folder)} has no {INPUTS_FILE}, nor has its folder {_INFERENCE}: it is no "
            "output folder of a training that was evaluated"
        )
    inputs = read_json(path)
    absent = [key for key in _KEYS if not isinstance(inputs, dict) or key not in inputs]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}")
    place = path.parent
    parent = place.parent if place.name == _INFERENCE else place
    return RunFolder(inputs, place, parent / "metrics.json")
