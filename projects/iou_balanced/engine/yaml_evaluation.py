"""How the trainer for yaml configs evaluates."""

import os
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator

from iou_balanced.evaluation import COCOBoxEvaluator, VOCDetectionEvaluator

from .class_balance import find_counts_file
from .class_names import check_tested, class_names_of
from .errors import data_errors_as_user_errors
from .targets import accepts
from .yaml_class_names import check_classes, check_evaluator, evaluated_classes, training_classes
from .yaml_logit_adjustment import adjusted_scores


def evaluation_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where `TrainerWithEvaluation.build_evaluator` writes; for several data sets one for each."""
    folder = os.path.join(cfg.OUTPUT_DIR, "inference")
    if len(cfg.DATASETS.TEST) > 1:
        folder = os.path.join(folder, dataset_name.replace("/", "_"))
    return folder


class TrainerWithEvaluation(DefaultTrainer):
    """Detectron2's trainer, which evaluates `DATASETS.TEST` with our evaluators, by class names."""

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module, evaluators=None):
        """Detectron2's, with the classes matched by name.

        The model's are those of `DATASETS.TRAIN` where this trainer has trained it. Of another
        model they are those that the file `MODEL.WEIGHTS` names, if the model has its classifier,
        else those of `DATASETS.TRAIN`; the log says which.

        Args:
            cfg: a yaml (yacs) config.
            model: the detector.
            evaluators: see Detectron2. Those in use have the model's `class_names` where the
                classes of their data set are not the same in the same order.

        Raises:
            UserError: a data set has a class that the model does not have, or an evaluator goes by
                the numbers of classes that are not the model's.
        """
        classes = evaluated_classes(cfg, model)
        if classes.names is None:
            check_classes(cfg, model, classes)
        if isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        if classes.names is not None:
            for name, evaluator in zip(cfg.DATASETS.TEST, evaluators or (), strict=False):
                check_evaluator(evaluator, name, classes.names)

        class Named(cls):
            """`cls`, whose `build_evaluator` gets the names, also a subclass's."""

            @classmethod
            def build_evaluator(_, cfg, dataset_name):
                # By now the data set was read, which for some tells its classes.
                check_tested([dataset_name], classes)
                # Where the names are not known, they are the data set's own.
                names = classes.names or class_names_of(dataset_name)
                if accepts(cls.build_evaluator, "class_names"):
                    return cls.build_evaluator(cfg, dataset_name, class_names=names)
                evaluator = cls.build_evaluator(cfg, dataset_name)
                if names is not None:
                    check_evaluator(evaluator, dataset_name, names)
                return evaluator

        with adjusted_scores(cfg, model, classes.names):
            return super(TrainerWithEvaluation, Named).test(cfg, model, evaluators)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, class_names: Sequence[str] | None = None
    ) -> DatasetEvaluator:
        """COCO's metrics, and the challenge's for a data set of PASCAL VOC's.

        Those are Detectron2's own and `iou_balanced.data.register_voc`'s; "bbox" is the 11-point
        metric for VOC2007, else the area. The files go to OUTPUT_DIR/inference, for several data
        sets each to a folder below. Where a training left its class counts in OUTPUT_DIR, there are
        AP_tail and AP_head.

        Args:
            cfg: a yaml (yacs) config.
            dataset_name: of Detectron2's catalogs.
            class_names: the model's classes in the order of its outputs; `test` gives them. By
                default those of `DATASETS.TRAIN`, where they are known.

        Raises:
            UserError: the data set has a class that is not among them.
        """
        own = class_names_of(dataset_name)
        names = class_names or training_classes(cfg).names or own
        kwargs = {
            "output_dir": evaluation_folder(cfg, dataset_name),
            "class_counts": find_counts_file([cfg.OUTPUT_DIR], names),
        }
        if names != own:
            kwargs["class_names"] = list(names)
        metadata = MetadataCatalog.get(dataset_name)
        years = metadata.get("years")
        if years is None and metadata.get("evaluator_type") == "pascal_voc":
            years = [metadata.year]
        if years is not None:
            metric = "11point" if list(years) == [2007] else "area"
            kind, own_arguments = VOCDetectionEvaluator, {"metric": metric}
        else:
            kind, own_arguments = COCOBoxEvaluator, {"kpt_oks_sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS}
        with data_errors_as_user_errors():
            return kind(dataset_name, **own_arguments, **kwargs)
