"""Classification losses by name, for `iou_balanced.balance` and the yaml keys."""

from typing import Any, NamedTuple

from torch import nn

from iou_balanced.losses import (
    EqualizationLossV2,
    EqualizedFocalLoss,
    IoUAwareBCELoss,
    IoUBalancedFocalLoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    SeesawLoss,
    SigmoidFocalLoss,
    TaskAlignedBCELoss,
    VarifocalLoss,
)

from .loss_families import CROSS_ENTROPY, FOCAL, Family


class LossCall(NamedTuple):
    """A loss and its arguments, before it is made."""

    loss: type[nn.Module]
    arguments: dict[str, Any]


QUALITY_MEMBERS: dict[str, type[nn.Module]] = {
    "quality_focal": QualityFocalLoss,
    "varifocal": VarifocalLoss,
    "matchability_aware": MatchabilityAwareLoss,
    "iou_aware_bce": IoUAwareBCELoss,
    "task_aligned": TaskAlignedBCELoss,
}
"""The IoU is in the target; with the defaults of their papers."""
CLASS_MEMBERS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "equalized_focal": (EqualizedFocalLoss, ("alpha", "gamma", "reduction")),
    "equalization_v2": (EqualizationLossV2, ("gamma", "reduction")),
}
"""They weigh the classes by their gradients; and what they take of the detector's focal loss."""
MEMBERS = ("focal", "cross_entropy", "iou_balanced_focal", *QUALITY_MEMBERS, *CLASS_MEMBERS)
"""All names that a detector with a sigmoid for each class takes."""
SOFTMAX_MEMBERS = ("cross_entropy", "seesaw")
"""And one with a softmax over the classes and background."""


def check_member(name: str | None, family: Family, detector: str, correlation: Any = None) -> None:
    """Refuse a name that there is none of, or whose loss the detector cannot use.

    Args:
        name: of `MEMBERS`, or None.
        family: of the detector's own classification loss.
        detector: what the error calls it.
        correlation: weight of a correlation loss, or None.

    Raises:
        ValueError: says why.
    """
    names = list(dict.fromkeys([*MEMBERS, *SOFTMAX_MEMBERS]))
    if name is not None and name not in names:
        raise ValueError(f"Expected argument `cls` to be one of {names}, but got {name!r}")
    if family is FOCAL:
        if name is not None and name not in MEMBERS:
            raise ValueError(
                f"Expected argument `cls` to be one of {list(MEMBERS)} for {detector}, because it "
                f"has a sigmoid for each class and no softmax, but got {name!r}"
            )
        return
    allowed: tuple[str | None, ...] = (None,)
    instead = "its own loss is IoU-balanced by `eta`"
    if family is CROSS_ENTROPY:
        allowed = (*SOFTMAX_MEMBERS, None)
        reason = "it classifies by softmax, which has one term for all classes of a row: no class "
        reason += "has a score with a target of its own"
        if name in CLASS_MEMBERS:
            instead = "RetinaNet, FCOS and FoveaBox take it, and the box head of an R-CNN does by "
            instead += "two overrides, use_sigmoid_ce=True, which Detectron2's main branch has, "
            instead += "and cls_loss._target_"
    else:
        reason = "it learns heat maps, whose targets around a centre are none of an IoU"
        if name in CLASS_MEMBERS or name == "seesaw":
            reason = "it learns heat maps, and these losses count elements of class labels"
            instead = "classes are weighed by `class_balance`"
    if name not in allowed:
        raise ValueError(
            f"Expected argument `cls` to be {' or '.join(map(repr, allowed))} for {detector}, "
            f"because {reason} ({instead}), but got {name!r}"
        )
    if correlation is not None:
        raise ValueError(
            f"Expected argument `correlation` to be None for {detector}, because {reason}, but "
            f"got {correlation!r}"
        )


def member_call(
    name: str, *, eta: float | None, focal_arguments: dict[str, Any], across_processes: bool
) -> LossCall:
    """The loss of this name.

    Args:
        name: of `MEMBERS`, or "seesaw".
        eta: exponent of IoU-balanced weights; None for none.
        focal_arguments: alpha, gamma and reduction of the detector's own loss.
        across_processes: of losses that have sums over the positives, or over the classes.

    Raises:
        ValueError: "iou_balanced_focal" without eta, or eta where there are no such weights.
    """
    across = {"across_processes": across_processes}
    if name == "seesaw" or name in CLASS_MEMBERS:
        if eta is not None:
            raise ValueError(
                f"Expected argument `eta` to be None with cls={name!r}, which weighs classes and "
                f"not boxes, but got {eta!r}"
            )
        loss, takes = CLASS_MEMBERS.get(name, (SeesawLoss, ("reduction",)))
        own = {k: v for k, v in focal_arguments.items() if k in takes}
        return LossCall(loss, {**own, **across})
    weights = {} if eta is None else {"eta": eta}
    if name in QUALITY_MEMBERS:
        return LossCall(QUALITY_MEMBERS[name], {**weights, **across})
    if name == "iou_balanced_focal" and eta is None:
        raise ValueError(
            "Expected argument `eta` to be a number with cls='iou_balanced_focal', but got None; "
            "'focal' is the plain loss"
        )
    if name == "cross_entropy":
        focal_arguments = {**focal_arguments, "alpha": -1, "gamma": 0.0}
    if eta is None:
        return LossCall(SigmoidFocalLoss, focal_arguments)
    return LossCall(IoUBalancedFocalLoss, {**weights, **focal_arguments, **across})
