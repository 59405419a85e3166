"""Finds the parts with losses in the LazyConfig of a two-stage detector."""

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.box_regression import Box2BoxTransformRotated
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig

from iou_balanced.modeling.rcnn.fast_rcnn import BalancedFastRCNNOutputLayers
from iou_balanced.modeling.rcnn.rpn import BalancedRPN


def box_predictor_nodes(model: DictConfig) -> list[tuple[str, DictConfig]]:
    """The nodes of `FastRCNNOutputLayers`, stock or ours, that a two-stage detector is made of.

    Args:
        model: a LazyCall of `GeneralizedRCNN` or of a subclass: Faster, Mask or Cascade R-CNN.

    Returns:
        Path (as OmegaConf.select takes it) and node of each: one, or one for each stage of a
        cascade. The nodes are those of `model`, not copies.

    Raises:
        ValueError: `model` is none of these; or it has no such layers, layers of another class,
            rotated boxes, or a sigmoid classifier.
    """
    _check_model(model)
    roi_heads = model.get("roi_heads")
    nodes = []
    if isinstance(roi_heads, DictConfig):
        single, stages = roi_heads.get("box_predictor"), roi_heads.get("box_predictors")
        if single is not None:
            nodes.append(("roi_heads.box_predictor", single))
        if isinstance(stages, ListConfig):
            nodes += [(f"roi_heads.box_predictors[{i}]", node) for i, node in enumerate(stages)]
    if not nodes:
        raise ValueError(
            "Expected a model with a box head, roi_heads.box_predictor or roi_heads.box_predictors "
            "(Cascade R-CNN), because its losses are the ones to balance, but there is none"
        )
    for path, node in nodes:
        _check_class(path, node, FastRCNNOutputLayers, BalancedFastRCNNOutputLayers)
        for key in ("use_sigmoid_ce", "use_fed_loss"):
            if node.get(key):
                raise ValueError(
                    f"Expected {path} to classify by softmax, as the paper's Faster R-CNN does, "
                    f"but got {key}={node.get(key)}"
                )
    return nodes


def rpn_node(model: DictConfig) -> DictConfig:
    """The node of `RPN`, stock or ours, of a two-stage detector; not a copy.

    Raises:
        ValueError: `model` is no LazyCall of `GeneralizedRCNN`; or its proposals come from
            elsewhere, from an RPN of another class, or are rotated.
    """
    _check_model(model)
    node = model.get("proposal_generator")
    _check_class("proposal_generator", node, RPN, BalancedRPN)
    return node


def _check_model(model) -> None:
    target = _target(model)
    if not (isinstance(target, type) and issubclass(target, GeneralizedRCNN)):
        raise ValueError(
            "Expected argument `model` to be a LazyCall of detectron2's GeneralizedRCNN, "
            f"but got {target or type(model)}"
        )


def _check_class(path: str, node, stock: type, ours: type) -> None:
    target = _target(node)
    # A subclass of the stock class may have losses of its own.
    if target is not stock and not (isinstance(target, type) and issubclass(target, ours)):
        raise ValueError(
            f"Expected {path} to be a LazyCall of detectron2's {stock.__name__} or of "
            f"{ours.__name__}, but got {target or type(node)}"
        )
    if _target(node.get("box2box_transform")) is Box2BoxTransformRotated:
        raise ValueError(
            f"Expected {path} to have axis-aligned boxes, because the IoU of rotated boxes is "
            "another one, but got Box2BoxTransformRotated"
        )


def _target(node):
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return locate(target) if isinstance(target, str) else target
