"""From a stock LazyConfig to the balanced detector in one line."""

from typing import NamedTuple

from detectron2.config import LazyCall
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.modeling.meta_arch.fcos import FCOS
from omegaconf import DictConfig

from iou_balanced.modeling.centernet.centernet import CenterNet
from iou_balanced.modeling.fcos import BalancedFCOS
from iou_balanced.modeling.foveabox.foveabox import FoveaBox
from iou_balanced.modeling.group_norm import use_head_group_norm
from iou_balanced.modeling.loss_families import (
    BOX_FAMILIES,
    CROSS_ENTROPY,
    FOCAL,
    PENALTY_REDUCED,
    Family,
    box_family,
    family_of,
)
from iou_balanced.modeling.normalizer import LossNormalizer
from iou_balanced.modeling.rcnn.fast_rcnn import BalancedFastRCNNOutputLayers
from iou_balanced.modeling.rcnn.rcnn import BalancedGeneralizedRCNN
from iou_balanced.modeling.rcnn.rpn import BalancedRPN
from iou_balanced.modeling.retinanet import BalancedRetinaNet
from iou_balanced.modeling.ssd.ssd import SSD

from .class_balance import (
    check_class_balance_node,
    locate_target,
    set_class_balance,
)
from .classification import PAPER, cls_loss_call, make_call
from .rcnn import box_predictor_nodes, rpn_node


class _Recipe(NamedTuple):
    """What belongs to a kind of detector."""

    target: type
    """Our class, which takes the place of `_target_`."""
    cls_family: Family
    cls_arguments: dict
    """Of the classification loss, where the config says nothing."""
    box_kind: str
    eta: float
    beta: float | None
    """Of smooth L1 where the caller leaves it to us; None keeps the config's own."""
    own_beta: float = 0.0
    """Of the class, where the config says nothing."""
    normalizer_start: float | None = None
    """Detectron2's first value of the moving average; None where there is none."""
    boxes_start_apart: bool = False
    """And overlap nothing: a measured w_loc would be in the thousands. Eq. 7 then."""


_FOCAL_025 = {"alpha": 0.25, "gamma": 2.0}
# Smooth L1's beta is the one for which lambda and w_loc were tuned. Stock configs have 0, which is
# L1; the authors' R-CNNs have 1 (and eta 1.3).
_RETINANET = _Recipe(
    BalancedRetinaNet, FOCAL, _FOCAL_025, "smooth_l1", 1.5, 1 / 9, normalizer_start=100.0
)
_FCOS = _Recipe(BalancedFCOS, FOCAL, _FOCAL_025, "giou", 1.5, None, normalizer_start=300.0)
_SSD = _Recipe(SSD, CROSS_ENTROPY, {"reduction": "none"}, "smooth_l1", 1.5, None, own_beta=1.0)
_FOVEABOX = _Recipe(
    FoveaBox, FOCAL, {"alpha": 0.4, "gamma": 1.5}, "smooth_l1", 1.5, None, own_beta=0.11
)
_CENTERNET = _Recipe(
    *(CenterNet, PENALTY_REDUCED, {"alpha": 2.0, "beta": 4.0}, "smooth_l1", 1.5, None),
    boxes_start_apart=True,
)
_FAST_RCNN = _Recipe(
    BalancedFastRCNNOutputLayers, CROSS_ENTROPY, {"reduction": "sum"}, "smooth_l1", 1.3, 1.0
)
# Its objectness is binary cross entropy: focal loss without focus.
_RPN = _Recipe(BalancedRPN, FOCAL, {"alpha": -1, "gamma": 0.0}, "smooth_l1", 1.3, 1 / 9)

_DENSE = {
    RetinaNet: _RETINANET,
    BalancedRetinaNet: _RETINANET,
    FCOS: _FCOS,
    BalancedFCOS: _FCOS,
    SSD: _SSD,
    FoveaBox: _FOVEABOX,
    CenterNet: _CENTERNET,
}
_STOCK = (RetinaNet, FCOS)
_STOCK_KEYS = ("focal_loss_alpha", "focal_loss_gamma", "smooth_l1_beta", "box_reg_loss_type")


def balance(
    model: DictConfig,
    *,
    eta: float | str | None = PAPER,
    lam: float | str | None = PAPER,
    weight: float | str | None = None,
    beta: float | str | None = PAPER,
    normalize: bool | None = None,
    across_processes: bool = True,
    rpn: bool = False,
    cls: str | None = None,
    correlation: float | None = None,
    class_balance: DictConfig | None = None,
    measure_from: int | None = None,
    measure_iterations: int | None = None,
) -> DictConfig:
    """Turn the LazyConfig of a stock detector into that of the IoU-balanced one, in place.

    Takes Detectron2's RetinaNet, FCOS, and the R-CNNs with a softmax box head (Faster, Mask,
    Cascade), and this package's detectors, whose losses are replaced then. The kind of box loss
    (smooth L1, GIoU, DIoU, CIoU) stays as it is.

    Args:
        model: a LazyCall, from the model zoo or the user's own.
        eta: exponent of the IoU in the classification loss (Eq. 4); None: plain. "paper": 1.5, and
            1.3 for the R-CNNs.
        lam: exponent in the localization loss (Eq. 6); None leaves it plain. "paper": 1.5.
        weight: w_loc (Eq. 6), a number or "auto". None: Eq. 7, which needs none. "paper": "auto"
            for smooth L1, Eq. 7 for CenterNet and losses of boxes (GIoU, DIoU, CIoU). The paper
            trains by Eq. 6; here, in fine-tuning, it lowered AP50, and Eq. 7 not beyond noise
            (docs/results.md).
        beta: of smooth L1. None keeps the config's own; "paper" is the one for which lambda and
            w_loc were tuned: 0.111 for RetinaNet and 1 for the R-CNNs, whose stock configs have 0
            (L1), and the config's own for the others and where lam is None. Other box losses have
            none.
        normalize: Eq. 7 instead of Eq. 6. A `weight` of "auto" or "paper" is 1 then, because Eq. 7
            keeps every sum. None: as `weight` says; False without a `weight` is the paper's Eq. 6.
            The boxes that CenterNet and FCOS start with overlap nothing: iou^lam alone leaves the
            box branch without gradient for hundreds of iterations, and a w_loc that kept the first
            sum would be in the thousands.
        across_processes: take the normaliser and all sums over all processes.
        rpn: balance the RPN of an R-CNN too, by Eq. 7 where `weight` is None; else its w_loc is
            measured, whatever `weight` is.
        cls: another classification loss, with its paper's settings: "focal", "cross_entropy",
            "iou_balanced_focal", "quality_focal", "varifocal", "matchability_aware",
            "iou_aware_bce" or "task_aligned". An `eta` that is a number balances it by IoU on
            top; "paper" does so for "iou_balanced_focal" only. Or one for rare classes, without
            `eta`: "equalized_focal", which keeps the detector's alpha and gamma, and
            "equalization_v2", which keeps its gamma.
            For RetinaNet, FCOS and FoveaBox. SSD and the R-CNNs take "cross_entropy" and "seesaw".
            None keeps the kind that the config has.
        correlation: weight of a `iou_balanced.losses.CorrelationLoss` that is added; None for none.
        class_balance: a LazyCall such as `L(BalanceOriented)(schedule=None)`, which weighs the
            classes in the classification loss; its `num_classes` is the model's. With eta=None
            and lam=None it is the only change. None keeps what the config has.
        measure_from: iterations before a w_loc of "auto" is measured; None is 0. Without a `weight`
            it means "auto".
        measure_iterations: how many it takes; None: the default of
            `iou_balanced.losses.IoUBalancedLocalization`. 1 is the paper's way, the first one.

    Returns:
        `model`, for assignment: `cfg.model = balance(cfg.model)`.

    Raises:
        ValueError: `model` is no such detector, or a value is none that the losses take. `model`
            is unchanged then.
    """
    target = locate_target(model)
    dense = next((r for known, r in _DENSE.items() if _is(target, known)), None)
    measure = {"measure_from": measure_from, "measure_iterations": measure_iterations}
    measure = {name: value for name, value in measure.items() if value is not None}
    change = _Change(eta, lam, weight, beta, normalize, across_processes, measure, cls, correlation)
    if class_balance is not None:
        check_class_balance_node(class_balance, target)
    if dense is not None:
        if rpn:
            raise ValueError(f"Expected argument `rpn` to be False: {target.__name__} has no RPN")
        _apply([(model, dense, change)])
        set_class_balance(model, class_balance)
    elif isinstance(target, type) and issubclass(target, GeneralizedRCNN):
        nodes = [(node, _FAST_RCNN, change) for _, node in box_predictor_nodes(model)]
        if rpn:
            weight = None if change.weight is None else PAPER
            plain = change._replace(weight=weight, cls=None, correlation=None)
            nodes.append((rpn_node(model), _RPN, plain))
        _apply(nodes)
        for _, node in box_predictor_nodes(model):
            set_class_balance(node, class_balance)
        if target is GeneralizedRCNN:
            model._target_ = BalancedGeneralizedRCNN
    else:
        whole = isinstance(model, DictConfig) and target is None and "model" in model
        hint = "; give the config's `.model`" if whole else ""
        raise ValueError(
            "Expected argument `model` to be a LazyCall of detectron2's RetinaNet, FCOS or "
            "GeneralizedRCNN, or of a detector of iou_balanced.modeling, but got "
            f"{target or type(model)}{hint}"
        )
    return model


class _Change(NamedTuple):
    eta: float | str | None
    lam: float | str | None
    weight: float | str | None
    beta: float | str | None
    normalize: bool | None
    across_processes: bool
    measure: dict[str, int]
    cls: str | None
    correlation: float | None


def _is(target, known: type) -> bool:
    """Of Detectron2's classes themselves, lest a user's subclass is replaced by another class."""
    if known in _STOCK:
        return target is known
    return isinstance(target, type) and issubclass(target, known)


def _apply(nodes: list[tuple[DictConfig, _Recipe, _Change]]) -> None:
    """Give each node its losses; nothing is changed before all of them are known to be possible.

    Raises:
        ValueError: a loss is not possible, or what is to be measured is no box loss's w_loc.
    """
    planned = [
        (node, recipe, change, _cls_loss(node, recipe, change), _box_loss(node, recipe, change))
        for node, recipe, change in nodes
    ]
    measure = planned[0][2].measure
    if measure and all(box_loss.get("weight") != "auto" for *_, box_loss in planned):
        raise ValueError(
            f"Expected argument `weight` to be 'auto' with {' and '.join(measure)}, which are "
            f"about its measurement, but the box loss has {planned[0][-1].get('weight')!r}"
        )
    for node, recipe, change, cls_loss, box_loss in planned:
        if not issubclass(locate_target(node), recipe.target):
            node._target_ = recipe.target
        if recipe in (_RETINANET, _FCOS):
            use_head_group_norm(node)
        # The losses hold these now; our classes do not take them.
        for key in _STOCK_KEYS:
            node.pop(key, None)
        node.cls_loss, node.box_loss = cls_loss, box_loss
        if recipe.normalizer_start is not None and not node.get("loss_normalizer"):
            start = recipe.normalizer_start
            node.loss_normalizer = LazyCall(LossNormalizer)(initial=start)
        normalizer = node.get("loss_normalizer")  # one of the user's own stays as it is
        if normalizer and locate_target(normalizer) is LossNormalizer:
            normalizer.across_processes = change.across_processes


def _cls_loss(node: DictConfig, recipe: _Recipe, change: _Change) -> DictConfig:
    return cls_loss_call(
        node,
        own_family=recipe.cls_family,
        own_arguments=recipe.cls_arguments,
        own_eta=recipe.eta,
        eta=change.eta,
        across_processes=change.across_processes,
        cls=change.cls,
        correlation=change.correlation,
    )


def _box_loss(node: DictConfig, recipe: _Recipe, change: _Change) -> DictConfig:
    old = node.get("box_loss") or {}
    family = family_of(locate_target(old), BOX_FAMILIES.values())
    if family is None:
        family = box_family(node.get("box_reg_loss_type", recipe.box_kind))
    arguments = {k: old[k] for k in family.arguments if k in old}
    if "beta" in family.arguments:
        beta = change.beta
        if beta == PAPER:
            beta = None if change.lam is None else recipe.beta
        if beta is not None:
            arguments["beta"] = beta
        elif "beta" not in arguments:
            arguments["beta"] = node.get("smooth_l1_beta", recipe.own_beta)
    elif change.beta not in (PAPER, None):
        raise ValueError(
            f"Expected argument `beta` to be None, because {family.plain.__name__} has no beta, "
            f"but got {change.beta!r}"
        )
    lam = 1.5 if change.lam == PAPER else change.lam
    if lam is not None:
        weight, normalize = change.weight, change.normalize
        start_apart = family.plain.on_boxes or recipe.boxes_start_apart
        if normalize is None:
            measured = change.measure and not start_apart
            normalize = not measured if weight is None else weight == PAPER and start_apart
        weight = PAPER if weight is None else weight
        if weight == PAPER or (weight == "auto" and normalize):
            weight = 1.0 if normalize or family.plain.on_boxes else "auto"
        arguments = {
            "lam": lam,
            "weight": weight,
            **arguments,
            "normalize": normalize,
            "across_processes": change.across_processes,
        }
        if weight == "auto":
            arguments.update(change.measure)
    return make_call(family.plain if lam is None else family.balanced, arguments)
