"""`train.logit_adjustment`: a trained model's scores adjusted by its training's class counts."""

import logging
import os
from collections.abc import Sequence

from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from iou_balanced.data import ClassCounts
from iou_balanced.modeling import LogitAdjustment, adjust_logits

from .class_balance import COUNTS_FILE
from .errors import UserError
from .targets import locate_target

logger = logging.getLogger(__name__)

KEY = "train.logit_adjustment"


def adjust_for_evaluation(
    cfg: DictConfig, model: nn.Module, folders: Sequence[str], class_names: Sequence[str] | None
) -> None:
    """Adjust the model's scores as the config says; nothing without `train.logit_adjustment`.

    Args:
        cfg: a LazyConfig.
        model: trained.
        folders: where the counts of its training are looked for, in this order.
        class_names: the model's classes, in the order of its outputs; None where not known.

    Raises:
        UserError: the adjustment makes no sense, its counts are missing, or they are of other
            classes.
    """
    node = cfg.train.get("logit_adjustment")
    if node is None:
        return
    target = locate_target(node.get("_target_")) if isinstance(node, DictConfig) else None
    if isinstance(target, type):
        _check_kind(target, KEY)
    try:
        adjustment = instantiate(node)
    except (TypeError, ValueError) as e:
        raise UserError(f"{KEY}: {e}") from e
    put_adjustment(adjustment, model, folders, class_names, key=KEY)


def put_adjustment(
    adjustment: LogitAdjustment,
    model: nn.Module,
    folders: Sequence[str],
    class_names: Sequence[str] | None,
    *,
    key: str,
) -> list:
    """Give an adjustment the counts of the model's training, and put it behind the classifier.

    Args:
        adjustment: gets the counts, unless it has some.
        model: trained.
        folders: where the counts of its training are looked for, in this order.
        class_names: the model's classes, in the order of its outputs; None where not known.
        key: what gave the adjustment, for messages.

    Returns:
        those of `adjust_logits`.

    Raises:
        UserError: it is none, its counts are missing, or they are of other classes.
    """
    _check_kind(type(adjustment), key)
    try:
        if adjustment.num_classes is None:
            path = adjustment.class_counts or _find(folders, key)
            counts = ClassCounts.load(path)
            if class_names is not None:
                counts = counts.reordered(class_names, source=str(path))
            adjustment.set_counts(counts)
            logger.info("Scores are adjusted by %s with the counts in %s", adjustment, path)
        return adjust_logits(model, adjustment)
    except UserError:
        raise
    except (OSError, ValueError) as e:
        raise UserError(f"{key}: {e}") from e


def _check_kind(kind: type, key: str) -> None:
    """Refuse what is no adjustment.

    Raises:
        UserError: names the class.
    """
    if not issubclass(kind, LogitAdjustment):
        raise UserError(
            f"{key} has to be a LogitAdjustment, such as iou_balanced.modeling.PriorAdjustment, "
            f"but is {kind.__name__}"
        )


def _find(folders: Sequence[str], key: str) -> str:
    """The first class counts in the folders.

    Raises:
        UserError: there are none.
    """
    folders = list(dict.fromkeys(folder or "." for folder in folders))
    for folder in folders:
        path = os.path.join(folder, COUNTS_FILE)
        if os.path.isfile(path):
            return path
    raise UserError(
        f"{key} needs the class counts of the model's training, but there is no {COUNTS_FILE} in "
        f"{' or '.join(folders)}: give {_argument(key)}=FILE; python -m "
        "iou_balanced.data.class_counts --json-file train.json --output FILE writes one"
    )


def _argument(key: str) -> str:
    return f"{key}.CLASS_COUNTS" if key.isupper() else f"{key}.class_counts"
