"""PASCAL VOC evaluation: the challenge's metrics at all IoU thresholds of the paper."""

import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm
from tabulate import tabulate

from iou_balanced.data.class_counts import ClassCounts
from iou_balanced.files import write_atomically
from iou_balanced.formats.class_names import match_class_names

from .class_groups import TAIL_RATIO, ClassGroups
from .metrics import absent_classes_text
from .result_files import write_metrics_csv
from .voc_class_rows import class_rows, write_class_rows
from .voc_files import VOCAnalysisFiles, is_difficult
from .voc_metrics import Detections, GroundTruth, summarize_voc_ap, voc_average_precision

METRICS = ("11point", "area")
METRICS_FILE = "voc_metrics.csv"
CLASSES_FILE = "voc_metrics_per_class.csv"
GROUPS_FILE = "class_metrics.csv"


class VOCDetectionEvaluator(DatasetEvaluator):
    """Average precision by the rules of the challenge, see `iou_balanced.evaluation.voc_metrics`.

    `evaluate()` returns `{"bbox": ..., "bbox_11point": ..., "bbox_area": ...}`, each with AP (mean
    over IoU 0.50:0.05:0.95), AP50, AP60, AP70, AP75, AP80, AP90 and "AP-<class>" for every class:
    in 0..100, not rounded, NaN for a class without an object that counts, which the means leave
    out. "bbox" is the one of the other two that `metric` names. Scores are not rounded either.
    Where they are equal, images go in the order of the data set, and the boxes of an image in the
    order of the model, however many processes there are. A model that detects nothing has AP 0. A
    data set without annotations gives no metric at all, `{}`.

    Every data set in Detectron2's format can be evaluated, with any image ids. An annotation with
    "difficult" (as `register_voc` and `register_voc_dir` give it) or with "iscrowd" is a difficult
    object. Images that were not processed count as ones where nothing was detected.

    The data set's classes are found among the model's by name (`class_names`), in whatever order
    they are; a class of the model that the data set does not have is one without an object.

    Files in `output_dir`: `voc_metrics.csv` with what `evaluate()` returned;
    `voc_metrics_per_class.csv` with AP and AP50, AP55, ..., AP95 of each class by both metrics; and
    for each class `comp4_det_<split>_<class>.txt` as the challenge's server and development kit
    take them, with the lines `image score xmin ymin xmax ymax`, pixels counted from 1. With
    `class_counts` also `class_metrics.csv` with the training counts, the group, AP and AP50 of each
    class ("bbox"). For `tools/compare.py` ground truth and detections in COCO's format, and
    `analysis_inputs.json`, which names them.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        distributed: bool = True,
        *,
        metric: str = "area",
        class_names: Sequence[str] | None = None,
        class_counts: ClassCounts | str | os.PathLike | None = None,
        tail_ratio: float = TAIL_RATIO,
    ):
        """
        Args:
            dataset_name: a registered data set; read when the evaluator is made, by the processes
                that evaluate.
            output_dir: None writes no files.
            distributed: gather the detections of all processes and evaluate on the main one.
            metric: what "bbox" is. "11point" is the challenge's metric for VOC2007, and that of
                the paper's Table 5; "area" the one since 2010.
            class_names: the model's classes in the order of its outputs; "AP-<class>" are these.
                Default: the data set's own.
            class_counts: of the training set, or the path of their JSON file. With it, AP_tail and
                AP_head come before "AP-<class>": the mean AP of the classes that are rare in
                training, and of the others; see `ClassGroups`.
            tail_ratio: share of the images, summed over the classes, that the tail has.

        Raises:
            OSError: the file of `class_counts` cannot be read.
            ValueError: bad `metric` or `tail_ratio`; the data set has a class that is not among
                `class_names`; `class_counts` of other classes; a data set without its difficult
                objects, on which a detection of one would be false; two images of the same id; a
                category id outside the data set's classes.
        """
        if metric not in METRICS:
            raise ValueError(
                f"Expected argument `metric` to be one of {METRICS}, but got {metric!r}"
            )
        metadata = MetadataCatalog.get(dataset_name)
        if metadata.get("difficult") == "drop":
            raise ValueError(
                f"Expected argument `dataset_name` to be a data set with its difficult objects, "
                f"but got {dataset_name!r}, which was registered with difficult='drop'"
            )
        self._logger = logging.getLogger(__name__)
        self._dataset_name = dataset_name
        own = [str(name) for name in metadata.thing_classes]
        self._class_names = own if class_names is None else [str(name) for name in class_names]
        self._places = match_class_names(own, self._class_names, of=f"data set {dataset_name!r}")
        self._split = metadata.get("split") or dataset_name.replace("/", "_")
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._distributed = distributed
        self._metric = metric
        self._predictions = []
        self._groups = None
        if not distributed or comm.is_main_process():
            if class_counts is not None:
                self._groups = ClassGroups(class_counts, self._class_names, tail_ratio=tail_ratio)
            if absent := absent_classes_text(dataset_name, self._class_names, own):
                self._logger.warning(absent)
            dicts = DatasetCatalog.get(dataset_name)
            self._read_ground_truth(dicts)
            if output_dir is not None:
                self._analysis_files = VOCAnalysisFiles(
                    dataset_name, dicts, self._class_names, class_counts
                )

    @property
    def class_names(self) -> list[str]:
        """The model's classes, in the order of its outputs."""
        return list(self._class_names)

    def _read_ground_truth(self, dicts: list[dict]) -> None:
        self._image_index = {record["image_id"]: i for i, record in enumerate(dicts)}
        if len(self._image_index) < len(dicts):
            raise ValueError(
                f"Expected argument `dataset_name` to be a data set whose image ids differ, but "
                f"{self._dataset_name!r} has {len(dicts)} images and {len(self._image_index)} ids"
            )
        self._voc_ids = [str(record.get("voc_id", record["image_id"])) for record in dicts]
        self._ground_truth = None
        if not any("annotations" in record for record in dicts):
            return
        objects = [(i, a) for i, record in enumerate(dicts) for a in record.get("annotations", ())]
        if not any("difficult" in a or "iscrowd" in a for _, a in objects):
            self._logger.warning(
                f"'{self._dataset_name}' does not say which objects are difficult: all count."
            )
        boxes = [
            BoxMode.convert(list(a["bbox"]), BoxMode(a["bbox_mode"]), BoxMode.XYXY_ABS)
            for _, a in objects
        ]
        self._ground_truth = GroundTruth(
            images=np.array([i for i, _ in objects], dtype=np.int64),
            classes=self._model_classes([a["category_id"] for _, a in objects]),
            boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            difficult=np.array([is_difficult(a) for _, a in objects], dtype=bool),
        )

    def _model_classes(self, category_ids: Sequence[int]) -> np.ndarray:
        """(G,) indices among the model's classes.

        Raises:
            ValueError: a category_id is none of a class.
        """
        ids, places = np.array(category_ids, dtype=np.int64), np.array(self._places, dtype=np.int64)
        bad = ids[(ids < 0) | (ids >= len(places))]
        if len(bad):
            raise ValueError(
                f"data set '{self._dataset_name}': category_id {bad[0]} is none of its "
                f"{len(places)} classes"
            )
        return places[ids]

    def reset(self):
        self._predictions = []

    def process(self, inputs, outputs):
        """Keep the detections of some images.

        Args:
            inputs: the dicts that the model was given; "image_id" is used.
            outputs: dicts with "instances", which have pred_boxes, scores and pred_classes.
        """
        for record, output in zip(inputs, outputs, strict=True):
            instances = output["instances"]
            boxes, scores = instances.pred_boxes.tensor.float(), instances.scores.float()
            columns = (c.cpu().numpy() for c in (instances.pred_classes, boxes, scores))
            self._predictions.append((record["image_id"], *columns))

    def evaluate(self) -> OrderedDict:
        """Score what was processed since `reset()`; may be called again.

        Returns:
            {task: {metric: value}} on the main process (with distributed=False on each), else {}.

        Raises:
            ValueError: an image that the data set does not have, or one that came twice.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain.from_iterable(comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return OrderedDict()
        detections = self._collect(predictions)
        if self._output_dir is not None:
            self._write_challenge_files(detections)
        if self._ground_truth is None:
            self._logger.warning(
                f"'{self._dataset_name}' has no annotations: no metric can be computed."
            )
            return OrderedDict()

        names = self._class_names
        ap = voc_average_precision(self._ground_truth, detections, num_classes=len(names))
        by_metric = {name: summarize_voc_ap(ap[name], names) for name in METRICS}
        if self._groups is not None:
            by_metric = {name: self._groups.add_means(by_metric[name]) for name in METRICS}
            self._report_groups(ap[self._metric])
        results = OrderedDict(bbox=by_metric[self._metric].copy())
        results.update((f"bbox_{name}", by_metric[name]) for name in METRICS)
        self._log(by_metric, ap)
        if self._output_dir is not None:
            write_metrics_csv(self._output_dir / METRICS_FILE, results)
            write_atomically(
                self._output_dir / CLASSES_FILE, lambda f: write_class_rows(f, ap, names)
            )
            self._analysis_files.write(self._output_dir, detections)
        return results

    def _collect(self, predictions: list[tuple]) -> Detections:
        """Detections by the order of the data set's images, whichever process saw them.

        Raises:
            ValueError: an image is unknown or came twice; or a class is none of the model's.
        """
        by_index = {}
        for image_id, *columns in predictions:
            index = self._image_index.get(image_id)
            if index is None or index in by_index:
                what = "is not in it" if index is None else "was processed twice"
                raise ValueError(f"data set '{self._dataset_name}': image {image_id!r} {what}")
            by_index[index] = columns
        order = sorted(by_index)
        numbers = [len(by_index[i][0]) for i in order]
        classes, boxes, scores = (
            np.concatenate([np.empty(shape), *(by_index[i][column] for i in order)])
            for column, shape in enumerate((0, (0, 4), 0))
        )
        images = np.repeat(np.array(order, dtype=np.int64), numbers)
        beyond = classes[(classes < 0) | (classes >= len(self._class_names))]
        if beyond.size:
            raise ValueError(
                f"'{self._dataset_name}': a detection is of class {int(beyond[0])}, but there are "
                f"{len(self._class_names)} classes"
            )
        return Detections(images, classes.astype(np.int64), boxes, scores)

    def _write_challenge_files(self, detections: Detections) -> None:
        # As the data loader took 1 from xmin and ymin, they get it back.
        boxes = detections.boxes + np.array([1, 1, 0, 0])
        for k, name in enumerate(self._class_names):
            # Nine digits are as many as a float32 has.
            rows = detections.classes == k
            lines = [
                f"{self._voc_ids[image]} {score:.9g} {x0:.9g} {y0:.9g} {x1:.9g} {y1:.9g}\n"
                for image, score, (x0, y0, x1, y1) in zip(
                    detections.images[rows], detections.scores[rows], boxes[rows], strict=True
                )
            ]
            file = f"comp4_det_{self._split}_{name}.txt".replace("/", "_")
            write_atomically(self._output_dir / file, lambda f, lines=lines: f.writelines(lines))

    def _report_groups(self, ap: np.ndarray) -> None:
        columns = {"AP": ap.mean(axis=0), "AP50": ap[0]}  # (T, K), the first threshold is 0.5
        table = self._groups.format_table(columns)
        self._logger.info(f"Training counts and AP ({self._metric}):\n{table}")
        if self._output_dir is not None:
            self._groups.write_csv(self._output_dir / GROUPS_FILE, columns)

    def _log(self, by_metric: dict, ap: dict) -> None:
        main = [m for m in next(iter(by_metric.values())) if not m.startswith("AP-")]
        rows = [(name, *(metrics[m] for m in main)) for name, metrics in by_metric.items()]
        table = tabulate(rows, ["metric", *main], tablefmt="pipe", floatfmt=".3f")
        self._logger.info(f"PASCAL VOC evaluation ('bbox' is {self._metric}):\n{table}")
        header, *rows = class_rows({self._metric: ap[self._metric]}, self._class_names)
        rows = [row[1:] for row in rows]
        table = tabulate(rows, header[1:], tablefmt="pipe", floatfmt=".1f")
        self._logger.info(f"Per-class AP ({self._metric}):\n{table}")
