"""The names of the classes in a yaml config: of its data sets, of its model, for its evaluators."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from torch import nn

from iou_balanced.modeling import CenterNet

from .checkpoint import Checkpointer
from .class_mapping import same_classifier
from .class_names import (
    ModelClasses,
    check_number,
    check_tested,
    class_names_of,
    classes_of_evaluated,
    common_classes,
    names_in,
    no_names_error,
    peek,
    same_classes,
)
from .errors import UserError

_ATTRIBUTE = "_iou_balanced_classes"


class YamlCheckpointer(Checkpointer):
    """`Checkpointer`, whose messages are for a yaml config."""

    weights_key = "MODEL.WEIGHTS"
    how_to_name = ""
    way_out = (
        "the weights by detectron2.checkpoint.DetectionCheckpointer(trainer.model).load(FILE) in "
        "the place of resume_or_load"
    )


def training_classes(cfg: CfgNode) -> ModelClasses:
    """The classes of DATASETS.TRAIN.

    Raises:
        UserError: these data sets have other classes.
    """
    return common_classes(cfg.DATASETS.TRAIN, "DATASETS.TRAIN")


def check_classes(cfg: CfgNode, model: nn.Module, classes: ModelClasses) -> None:
    """Compare the classes of the training set with the model's outputs and with the test sets.

    Where their names are not known, the test sets have to have as many as the model.

    Raises:
        UserError: they do not fit.
    """
    num_classes = _num_classes(model)
    nodes = {GeneralizedRCNN: "ROI_HEADS", RetinaNet: "RETINANET", CenterNet: "CENTERNET"}
    node = next((name for kind, name in nodes.items() if isinstance(_bare(model), kind)), None)
    give = "it " if node is None else f"MODEL.{node}.NUM_CLASSES "
    check = {"but": f"the model {num_classes}", "give": give}
    check_number(classes, num_classes, **check)
    check_tested(cfg.DATASETS.TEST, classes)
    if classes.names is None:
        for name in cfg.DATASETS.TEST:
            own = ModelClasses(class_names_of(name), f"data set {name}")
            check_number(own, num_classes, **check)


def remember_classes(model: nn.Module, classes: ModelClasses) -> None:
    """For `evaluated_classes`, which gets the model and no trainer."""
    setattr(_bare(model), _ATTRIBUTE, classes)


def was_trained_here(model: nn.Module) -> bool:
    """Whether a trainer of this process has made it, and not only loaded its weights."""
    return getattr(_bare(model), _ATTRIBUTE, None) is not None


def evaluated_classes(cfg: CfgNode, model: nn.Module) -> ModelClasses:
    """The classes of a model: as it was trained here, or else as its file names them.

    The file is MODEL.WEIGHTS, where it is on this machine and the model has its classifier. Where
    it names none, they are those of DATASETS.TRAIN, if these are registered.
    """
    known = getattr(_bare(model), _ATTRIBUTE, None)
    if known is not None:
        return known
    num_classes, source = _num_classes(model), f"MODEL.WEIGHTS={cfg.MODEL.WEIGHTS}"
    content = peek(cfg.MODEL.WEIGHTS)
    names = names_in(content)
    if names is not None and not (
        num_classes in (None, len(names))
        and same_classifier(_bare(model), len(names), content.get("model", {}))
    ):
        names, source = None, f"The model, whose weights are not those of {source},"
    try:
        training = training_classes(cfg)
    except UserError:  # it is no training set of this model
        training = ModelClasses(None, "")
    fits = training.names is not None and num_classes in (None, len(training.names))
    return classes_of_evaluated(names, source, training if fits else None)


def check_evaluator(evaluator: DatasetEvaluator, data_set: str, names: Sequence[str]) -> None:
    """Refuse an evaluator that does not go by the model's class names where it would have to.

    Raises:
        UserError: the data set's classes are not `names` in this order, and the evaluator's
            `class_names`, if it has any, are not.
    """  # noqa: DOC501
    if class_names_of(data_set) is None or same_classes(data_set, names):
        return
    parts = evaluator._evaluators if isinstance(evaluator, DatasetEvaluators) else [evaluator]
    for part in parts:
        if getattr(part, "class_names", None) != list(names):
            remedy = (
                "build_evaluator can take an argument class_names, which is the model's, and give "
                "it to one of these"
            )
            raise no_names_error(type(part).__name__, data_set, names, remedy)


def _num_classes(model: nn.Module) -> int | None:
    model = _bare(model)
    return getattr(getattr(model, "roi_heads", model), "num_classes", None)


def _bare(model: nn.Module) -> nn.Module:
    return getattr(model, "module", model)
