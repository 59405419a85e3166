"""Class weights in the LazyConfig of a detector, for `balance`."""

import copy

from detectron2.modeling import GeneralizedRCNN
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from iou_balanced.losses import BalanceOriented, ClassBalance
from iou_balanced.modeling.rcnn.rcnn import BalancedGeneralizedRCNN


def check_class_balance_node(node, model: type | None) -> None:
    """Refuse what is no LazyCall of a class balance, or cannot be with this class of model.

    Raises:
        ValueError: see above.
    """
    target = locate_target(node)
    if not (isinstance(target, type) and issubclass(target, ClassBalance)):
        raise ValueError(
            "Expected argument `class_balance` to be a LazyCall of one of iou_balanced.losses' "
            f"BalanceOriented, ClassBalanced and Equalization, but got {target or type(node)}"
        )
    is_rcnn = isinstance(model, type) and issubclass(model, GeneralizedRCNN)
    tells = model is GeneralizedRCNN or (is_rcnn and issubclass(model, BalancedGeneralizedRCNN))
    counts_instances = (
        issubclass(target, BalanceOriented)
        and node.get("eta", 0.8) != 1
        and node.get("counted", "instances") == "instances"
    )
    if is_rcnn and not tells and counts_instances:
        raise ValueError(
            "Expected argument `class_balance` to have counted='locations' (or eta=1), because "
            f"{model.__name__} does not tell its box head what the images show, but got "
            "counted='instances'"
        )


def set_class_balance(node: DictConfig, class_balance: DictConfig | None) -> None:
    """Give a detector's or box head's node its own copy; None leaves the node as it is."""
    if class_balance is not None:
        node.class_balance = copy.deepcopy(class_balance)  # one for each stage of a cascade
        node.class_balance.setdefault("num_classes", "${..num_classes}")


def locate_target(node) -> type | None:
    """The class that a node calls; None for what is no call."""
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return locate(target) if isinstance(target, str) else target
