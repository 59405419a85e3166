"""COCO evaluation with the metrics of the papers, on top of Detectron2's evaluator."""

import copy
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from iou_balanced.data.class_counts import ClassCounts
from iou_balanced.files import write_atomically
from iou_balanced.formats.class_names import list_names

from .analysis_inputs import write_analysis_inputs
from .class_groups import TAIL_RATIO, ClassGroups, ap_by_class, format_ap_table
from .coco_ground_truth import (
    coco_api_of,
    empty_ground_truth,
    ground_truth_of,
    keep_converted,
    scorable_tasks,
)
from .metrics import (
    absent_classes_text,
    check_max_dets,
    coco_metrics,
    find_scorer,
    score_nothing,
)
from .result_files import (
    check_result_file,
    write_metrics_csv,
    write_result_file,
)
from .stock_coco import NoCategoryMap, empty_json_file, scored_by

METRICS_FILE = "coco_metrics.csv"
RESULTS_FILE = "coco_instances_results.json"
CLASSES_FILES = {"bbox": "class_metrics.csv", "segm": "class_metrics_segm.csv"}


class COCOBoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator with more thresholds, faster scoring, and no stale files.

    `evaluate()` returns `{"bbox": {...}}` with AP, AP50, AP60, AP70, AP75, AP80, AP90, APs, APm,
    APl and "AP-<class>" for every class: in 0..100, not rounded, NaN where the set has no ground
    truth for it. Masks ("segm") get the same keys; keypoints the stock ones. A model that detects
    nothing has AP 0. A set without annotations gives no metric at all, `{}`.

    Files in `output_dir`, beside the stock class's: `coco_metrics.csv` (metric,value; of the last
    evaluation), the result file described below, and with `class_counts` `class_metrics.csv` (for
    masks `class_metrics_segm.csv`) with the training counts, the group, AP and AP50 of each class;
    `analysis_inputs.json`, by which `tools/compare.py` finds ground truth and detections.

    What is scored has ids of our own (`iou_balanced.formats.coco_ground_truth`), so that every
    scorer gives the same numbers whatever ids a file has, and whether or not its boxes have an
    area. In the files that are written, ids are those of the data set.

    Classes are matched by name where `class_names` is given: the metrics are then those of the
    model's classes, NaN for one that the data set does not have.

    The ground truth is read whenever an evaluator is made, by the processes that evaluate; the
    others get an empty one, which they do not use. That of a data set that is registered as dicts
    only is kept as `<dataset name>_coco_format.json` in `output_dir` for other tools, but never
    read again.

    Args:
        dataset_name, tasks, distributed, output_dir: see `detectron2.evaluation.COCOEvaluator`.
        max_dets_per_image, use_fast_impl, kpt_oks_sigmas: likewise.
        scorer: "pycocotools", the reference; "faster-coco-eval", which is refused where its
            numbers on a small set differ by more than 1e-6; or "auto", the second where it is
            installed. `use_fast_impl=False` turns "auto" into "pycocotools". With a
            `max_dets_per_image` other than 100, and for keypoints, Detectron2 scores with
            pycocotools in any case.
        result_file: a name ending in .json, in `output_dir` or absolute: the boxes in the form
            that COCO's server takes (image_id, category_id, bbox as XYWH in pixels, score),
            and beside it a .zip with just this file, ready for upload. The server wants a name
            such as "detections_test-dev2017_<algorithm>_results.json". Default:
            "<dataset name>_results.json" for a set without annotations, else none.
        class_counts: of the training set, or the path of their JSON file. With it, AP_tail and
            AP_head come after APl: the mean AP of the classes that are rare in training, and
            of the others; see `ClassGroups`.
        tail_ratio: share of the images, summed over the classes, that the tail has.
        class_names: the model's classes, in the order of its outputs; default: those of the
            data set, in its order.

    Raises:
        ValueError: bad `scorer`, `result_file` or `tail_ratio`; `class_counts` of other
            classes, which are found by name; a class of the data set that is not among
            `class_names`; a file that contradicts itself.
        ImportError: the scorer that was asked for is missing.
        OSError: the file of `class_counts` cannot be read.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        scorer: str = "pycocotools",
        result_file: str | None = None,
        class_counts: ClassCounts | str | os.PathLike | None = None,
        tail_ratio: float = TAIL_RATIO,
        class_names: Sequence[str] | None = None,
    ):
        if scorer == "auto" and not use_fast_impl:
            scorer = "pycocotools"
        self._scorer = find_scorer(scorer)
        check_max_dets(max_dets_per_image)
        self._result_file = check_result_file(result_file, output_dir)

        evaluates = not distributed or comm.is_main_process()
        class_names = None if class_names is None else [str(name) for name in class_names]
        make = ground_truth_of if evaluates else empty_ground_truth
        self._ground_truth = make(dataset_name, class_names)
        with empty_json_file(dataset_name):
            # use_fast_impl=False: main would warn that Detectron2's own fast scorer is not built.
            super().__init__(
                dataset_name,
                tasks,
                distributed,
                output_dir,
                max_dets_per_image=max_dets_per_image,
                use_fast_impl=False,
                kpt_oks_sigmas=kpt_oks_sigmas,
            )
        self._coco_api = coco_api_of(self._ground_truth.dataset)
        self._do_evaluation = "annotations" in self._ground_truth.dataset
        self._kpt_oks_sigmas = kpt_oks_sigmas
        # A copy, because `_eval_predictions` sets the stock class's to None for a moment.
        self._folder = output_dir
        self._logger = logging.getLogger(__name__)
        # So that the stock class scores with the name that `scored_by` replaces.
        self._use_fast_impl = True
        self._img_ids = None
        self._groups, self._class_counts = None, class_counts
        if class_counts is not None and evaluates and self._do_evaluation:
            names = self._ground_truth.class_names
            self._groups = ClassGroups(class_counts, names, tail_ratio=tail_ratio)
        if evaluates:
            own = self._ground_truth.present_classes
            absent = class_names and absent_classes_text(dataset_name, class_names, own)
            if absent:
                self._logger.warning(absent)
            keep_converted(dataset_name, output_dir, self._ground_truth)

        if evaluates and not self._do_evaluation and self._result_file is None:
            if output_dir is None:
                self._logger.warning(
                    f"'{dataset_name}' has no annotations, and without output_dir its detections "
                    "are not written either."
                )
            else:
                name = dataset_name.replace("/", "_")
                self._result_file = Path(output_dir) / f"{name}_results.json"

    @property
    def class_names(self) -> list[str]:
        """The model's classes, in the order of its outputs."""
        return list(self._ground_truth.class_names)

    def evaluate(self, img_ids: Sequence[int] | None = None) -> OrderedDict:
        """Score what was processed since `reset()`; may be called again.

        Args:
            img_ids: score these images only.

        Returns:
            {task: {metric: value}} on the main process (with distributed=False on each), else {}.
        """
        self._img_ids = img_ids
        self._results = None
        results = super().evaluate(img_ids)
        if self._distributed and not comm.is_main_process():
            return results
        if self._results is None:
            # The stock class stops early where no image was processed at all.
            self._results = OrderedDict()
            self._eval_predictions([], img_ids=img_ids)
            results = copy.deepcopy(self._results)
        if not self._do_evaluation:
            self._logger.warning(
                f"'{self._metadata.name}' has no annotations: no metric can be computed."
            )
        if results and self._folder:
            write_metrics_csv(Path(self._folder) / METRICS_FILE, results)
            name, truth, counts = self._metadata.name, self._ground_truth, self._class_counts
            write_analysis_inputs(self._folder, name, truth, class_counts=counts)
        return results

    def _eval_predictions(self, predictions, img_ids=None):
        truth = self._ground_truth
        results = [dict(x) for image in predictions for x in image["instances"]]
        self._write_results(results)
        for result in results:
            result["image_id"] = self._own_image_id(result["image_id"])
            result["category_id"] += 1
        for image in predictions:
            self._own_image_id(image["image_id"])
        if img_ids is not None:
            img_ids = [self._own_image_id(i) for i in img_ids]
            self._img_ids = img_ids
        tasks = self._tasks or self._tasks_from_predictions(results)
        if self._do_evaluation:
            tasks = scorable_tasks(self._metadata.name, truth, tasks)
        # The stock method writes files in these ids, and looks for a map of categories.
        metadata, given = self._metadata, self._tasks
        self._output_dir, self._metadata, self._tasks = None, NoCategoryMap(), tasks
        try:
            with scored_by(self._scorer):
                super()._eval_predictions([{"instances": results}], img_ids=img_ids)
        finally:
            self._output_dir, self._metadata, self._tasks = self._folder, metadata, given

    def _eval_box_proposals(self, predictions):
        evaluates, output_dir = self._do_evaluation, self._output_dir
        mapped = [{**x, "image_id": self._own_image_id(x["image_id"])} for x in predictions]
        try:
            # First the file, with the data set's ids, and then the numbers.
            self._do_evaluation = False
            super()._eval_box_proposals(predictions)
            self._do_evaluation, self._output_dir = evaluates, None
            if evaluates:
                super()._eval_box_proposals(mapped)
        finally:
            self._do_evaluation, self._output_dir = evaluates, output_dir

    def _own_image_id(self, image_id) -> int:
        number = self._ground_truth.image_ids.get(image_id)
        if number is None:
            raise ValueError(
                f"data set {self._metadata.name!r}: image {image_id!r} was processed, and is not "
                "in its ground truth"
            )
        return number

    def _write_results(self, results: list[dict]) -> None:
        try:
            known, unknown = self._ground_truth.with_original_categories(results)
        except ValueError as e:
            raise ValueError(f"data set {self._metadata.name!r}: {e}") from e
        if not self._folder and self._result_file is None:
            return
        if unknown:
            self._logger.info(
                f"{unknown.total()} detections are not in the result files, because the data set "
                f"has no category for them: {list_names(sorted(unknown))}"
            )
        if self._folder:
            path = Path(self._folder) / RESULTS_FILE
            write_atomically(path, lambda file: json.dump(known, file))
        if self._result_file is not None:
            paths = write_result_file(self._result_file, known)
            self._logger.info(f"Wrote {paths[0]} and {paths[1]} for COCO's evaluation server.")

    def _derive_coco_results(self, coco_eval, iou_type, class_names=None):
        if iou_type == "keypoints":
            return super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None:
            self._logger.warning("The model detected nothing.")
            coco_eval = score_nothing(
                self._coco_api,
                iou_type,
                img_ids=self._img_ids,
                max_dets=self._max_dets_per_image,
            )
        names, max_dets = self._ground_truth.class_names, self._max_dets_per_image[2]
        metrics = coco_metrics(coco_eval, names, max_dets=max_dets)
        if self._groups is not None:
            metrics = self._groups.add_means(metrics)
        main = {name: value for name, value in metrics.items() if not name.startswith("AP-")}
        self._logger.info(f"Evaluation results for {iou_type}:\n{create_small_table(main)}")
        columns = {"AP": [metrics[f"AP-{name}"] for name in names]}
        if self._groups is None:
            table = format_ap_table(names, columns["AP"])
        else:
            columns["AP50"] = ap_by_class(coco_eval, iou_threshold=0.5, max_dets=max_dets)
            table = self._groups.format_table(columns)
            if self._folder:
                path = Path(self._folder) / CLASSES_FILES[iou_type]
                self._groups.write_csv(path, columns)
        self._logger.info(f"Per-class {iou_type} AP:\n{table}")
        return metrics
