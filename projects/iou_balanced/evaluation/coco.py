"""COCO evaluation with the metrics of the papers, on top of Detectron2's evaluator."""

import contextlib
import copy
import itertools
import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import detectron2.evaluation.coco_evaluation as stock
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO

from iou_balanced.data.class_counts import ClassCounts
from iou_balanced.evaluation.class_groups import (
    TAIL_RATIO,
    ClassGroups,
    ap_by_class,
    format_ap_table,
)
from iou_balanced.evaluation.metrics import (
    class_names_of,
    coco_metrics,
    find_scorer,
    score_nothing,
)
from iou_balanced.evaluation.result_files import (
    check_result_file,
    write_metrics_csv,
    write_result_file,
)
from iou_balanced.files import write_atomically

METRICS_FILE = "coco_metrics.csv"
CLASSES_FILES = {"bbox": "class_metrics.csv", "segm": "class_metrics_segm.csv"}


class COCOBoxEvaluator(COCOEvaluator):
    """Detectron2's COCOEvaluator with more thresholds, faster scoring, and no stale files.

    `evaluate()` returns `{"bbox": {...}}` with AP, AP50, AP60, AP70, AP75, AP80, AP90, APs, APm,
    APl and "AP-<class>" for every class: in 0..100, not rounded, NaN where the set has no ground
    truth for it. Masks ("segm") get the same keys; keypoints the stock ones. A model that detects
    nothing has AP 0. A set without annotations gives no metric at all, `{}`.

    Files in `output_dir`, beside the stock class's: `coco_metrics.csv` (metric,value; of the last
    evaluation), the result file described below, and with `class_counts` `class_metrics.csv` (for
    masks `class_metrics_segm.csv`) with the training counts, the group, AP and AP50 of each class.

    A data set that is registered as dicts only is converted to COCO's format whenever an evaluator
    is made, by the processes that evaluate. What was converted is kept as
    `<dataset name>_coco_format.json` in `output_dir` for other tools, but never read again, and the
    data set's metadata does not point to it: neither changed data nor a deleted folder can spoil a
    later evaluation. The other processes get an empty ground truth, which they do not use.
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
        scorer: str = "auto",
        result_file: str | None = None,
        class_counts: ClassCounts | str | os.PathLike | None = None,
        tail_ratio: float = TAIL_RATIO,
    ):
        """Args that the stock class does not have:

            scorer: "auto" (faster-coco-eval where installed, else pycocotools), "pycocotools" or
                "faster-coco-eval". All agree to 1e-6. `use_fast_impl=False` turns "auto" into
                "pycocotools". With a `max_dets_per_image` other than 100, and for keypoints,
                Detectron2 scores with pycocotools in any case.
            result_file: a name ending in .json, in `output_dir` or absolute: the boxes in the form
                that COCO's server takes (image_id, category_id, bbox as XYWH in pixels, score),
                and beside it a .zip with just this file, ready for upload. The server wants a name
                such as "detections_test-dev2017_<algorithm>_results.json". Default:
                "<dataset name>_results.json" for a set without annotations, else none.
            class_counts: of the training set, or the path of their JSON file. With it, AP_tail and
                AP_head come after APl: the mean AP of the classes that are rare in training, and
                of the others; see `ClassGroups`.
            tail_ratio: share of the images, summed over the classes, that the tail has.

        Raises:
            ValueError: bad `scorer`, `result_file` or `tail_ratio`; `class_counts` of other
                classes, which are found by name.
            ImportError: the scorer that was asked for is missing.
            OSError: the file of `class_counts` cannot be read.
        """
        if scorer == "auto" and not use_fast_impl:
            scorer = "pycocotools"
        self._scorer = find_scorer(scorer)
        self._result_file = check_result_file(result_file, output_dir)

        evaluates = not distributed or comm.is_main_process()
        with _json_file_of(dataset_name, output_dir, convert=evaluates):
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
        self._logger = logging.getLogger(__name__)
        # From here on it only selects the name that `_scored_by` replaces.
        self._use_fast_impl = True
        self._img_ids = None
        self._groups = None
        if class_counts is not None and evaluates and self._do_evaluation:
            self._groups = ClassGroups(class_counts, self._names(), tail_ratio=tail_ratio)

        if evaluates and not self._do_evaluation and self._result_file is None:
            if output_dir is None:
                self._logger.warning(
                    f"'{dataset_name}' has no annotations, and without output_dir its detections "
                    "are not written either."
                )
            else:
                name = dataset_name.replace("/", "_")
                self._result_file = Path(output_dir) / f"{name}_results.json"

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
        if results and self._output_dir:
            write_metrics_csv(Path(self._output_dir) / METRICS_FILE, results)
        return results

    def _eval_predictions(self, predictions, img_ids=None):
        # The stock class writes the data set's category ids into these dicts, so that a second
        # evaluate() would map them twice.
        predictions = [
            {**image, "instances": [dict(result) for result in image["instances"]]}
            for image in predictions
        ]
        with _scored_by(self._scorer):
            super()._eval_predictions(predictions, img_ids=img_ids)
        if self._result_file is not None:
            results = itertools.chain.from_iterable(image["instances"] for image in predictions)
            paths = write_result_file(self._result_file, results)
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
        names, max_dets = self._names(), self._max_dets_per_image[2]
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
            if self._output_dir:
                path = Path(self._output_dir) / CLASSES_FILES[iou_type]
                self._groups.write_csv(path, columns)
        self._logger.info(f"Per-class {iou_type} AP:\n{table}")
        return metrics

    def _names(self) -> list[str]:
        """The classes' names, in the order of the evaluation."""
        return class_names_of(
            self._coco_api,
            self._metadata.get("thing_classes"),
            self._metadata.get("thing_dataset_id_to_contiguous_id"),
        )


def load_ground_truth(dataset_name: str) -> COCO:
    """The COCO ground truth of a registered data set, converted where it has no JSON file."""
    with (
        _json_file_of(dataset_name, None, convert=True),
        contextlib.redirect_stdout(None),
    ):
        return COCO(stock.PathManager.get_local_path(MetadataCatalog.get(dataset_name).json_file))


@contextlib.contextmanager
def _json_file_of(dataset_name: str, output_dir: str | None, *, convert: bool):
    """Give the metadata a `json_file` for as long as the ground truth is being read."""
    metadata = MetadataCatalog.get(dataset_name)
    if hasattr(metadata, "json_file"):
        yield
        return
    empty = {"images": [], "categories": []}
    ground_truth = convert_to_coco_dict(dataset_name) if convert else empty
    with tempfile.TemporaryDirectory() as temporary:
        folder = output_dir if output_dir is not None and convert else temporary
        name = dataset_name.replace("/", "_")
        path = Path(folder) / f"{name}_coco_format.json"
        write_atomically(path, lambda file: json.dump(ground_truth, file))
        metadata.json_file = str(path)
        try:
            yield
        finally:
            del metadata.json_file


@contextlib.contextmanager
def _scored_by(scorer):
    """Let Detectron2 score with `scorer`.

    In v0.6 and in main alike, the class that scores is looked up under this name in the module when
    it is needed, and no argument or method of the evaluator reaches it.
    """
    previous = stock.COCOeval_opt
    stock.COCOeval_opt = scorer
    try:
        yield
    finally:
        stock.COCOeval_opt = previous
