"""`TEST.LOGIT_ADJUSTMENT`: scores adjusted after training, for the evaluations of a yaml config."""

import contextlib
import inspect
import os
from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode
from torch import nn

from iou_balanced import modeling
from iou_balanced.modeling import LogitAdjustment

from .class_names import class_names_of
from .errors import UserError
from .logit_adjustment import put_adjustment
from .yaml_class_names import was_trained_here

KEY = "TEST.LOGIT_ADJUSTMENT"
ADJUSTMENTS = ("PriorAdjustment", "FractalAdjustment")


def adjustment_of(cfg: CfgNode) -> LogitAdjustment | None:
    """What `TEST.LOGIT_ADJUSTMENT.NAME` says, with its arguments; None where it is empty.

    Args:
        cfg: a yaml (yacs) config.

    Raises:
        UserError: there is no such adjustment, or it has no such argument, or not of this value.
    """
    node = cfg.TEST.get("LOGIT_ADJUSTMENT")
    if node is None or not node.NAME:
        return None
    if node.NAME not in ADJUSTMENTS:
        raise UserError(f"{KEY}.NAME={node.NAME}: give {', '.join(ADJUSTMENTS)} or ''")
    kind = getattr(modeling, node.NAME)
    given = {k.lower(): v for k, v in node.items() if k != "NAME" and v is not None}
    unknown = sorted(set(given).difference(inspect.signature(kind).parameters))
    if unknown:
        raise UserError(
            f"{KEY}.{unknown[0].upper()}={given[unknown[0]]}: {node.NAME} has no such argument"
        )
    try:
        return kind(**given)
    except ValueError as e:
        raise UserError(f"{KEY}: {e}") from e


def refuse_in_training(cfg: CfgNode) -> None:
    """Refuse a training whose evaluations would be those of other scores than the model's.

    Args:
        cfg: a yaml (yacs) config.

    Raises:
        UserError: it has an adjustment.
    """
    if adjustment_of(cfg) is not None:
        raise UserError(
            f"{KEY}.NAME={cfg.TEST.LOGIT_ADJUSTMENT.NAME} is for a trained model: give it where "
            "the model is evaluated, with `test`"
        )


@contextlib.contextmanager
def adjusted_scores(
    cfg: CfgNode, model: nn.Module, class_names: Sequence[str] | None
) -> Iterator[None]:
    """Within, the model's scores are adjusted as the config says.

    Args:
        cfg: a yaml (yacs) config. The counts are looked for in OUTPUT_DIR and beside MODEL.WEIGHTS:
            first in OUTPUT_DIR where a trainer has made the model, else beside the weights.
        model: trained; wrapped for several processes or not.
        class_names: the model's classes, in the order of its outputs; None where not known: then
            those of the first data set of DATASETS.TEST.

    Raises:
        UserError: the adjustment makes no sense, its counts are missing, or they are of other
            classes.
    """
    adjustment, handles = adjustment_of(cfg), []
    if adjustment is not None:
        folders = [os.path.dirname(cfg.MODEL.WEIGHTS), cfg.OUTPUT_DIR]
        if was_trained_here(model):  # the weights are those that it began with
            folders.reverse()
        if class_names is None and cfg.DATASETS.TEST:
            class_names = class_names_of(cfg.DATASETS.TEST[0])
        model = getattr(model, "module", model)
        handles = put_adjustment(adjustment, model, folders, class_names, key=KEY)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
