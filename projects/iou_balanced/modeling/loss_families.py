"""Which loss of ours stands for which of Detectron2's, plain and IoU-balanced."""

from typing import NamedTuple

from torch import nn

from iou_balanced.losses import (
    CIoULoss,
    CorrelationLoss,
    DIoULoss,
    EqualizationLossV2,
    EqualizedFocalLoss,
    GIoULoss,
    IoUAwareBCELoss,
    IoUBalancedCIoULoss,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedDIoULoss,
    IoUBalancedFocalLoss,
    IoUBalancedGIoULoss,
    IoUBalancedPenaltyReducedFocalLoss,
    IoUBalancedSmoothL1Loss,
    MatchabilityAwareLoss,
    PenaltyReducedFocalLoss,
    QualityFocalLoss,
    SeesawLoss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    SoftmaxCrossEntropyLoss,
    TaskAlignedBCELoss,
    VarifocalLoss,
)


class Family(NamedTuple):
    """One loss in both forms, and the arguments that both take."""

    plain: type[nn.Module]
    balanced: type[nn.Module]
    arguments: tuple[str, ...]


FOCAL = Family(SigmoidFocalLoss, IoUBalancedFocalLoss, ("alpha", "gamma", "reduction"))
CROSS_ENTROPY = Family(SoftmaxCrossEntropyLoss, IoUBalancedCrossEntropyLoss, ("reduction",))
PENALTY_REDUCED = Family(
    PenaltyReducedFocalLoss, IoUBalancedPenaltyReducedFocalLoss, ("alpha", "beta", "reduction")
)
CLS_FAMILIES = (FOCAL, CROSS_ENTROPY, PENALTY_REDUCED)
QUALITY = (
    *(QualityFocalLoss, VarifocalLoss, MatchabilityAwareLoss, IoUAwareBCELoss, TaskAlignedBCELoss),
    CorrelationLoss,
)
"""Those with the IoU in a target of each class."""
SIGMOID = (*FOCAL[:2], *QUALITY, EqualizedFocalLoss, EqualizationLossV2)
"""Those with a term for each class, and no background column."""
_OF_LABELS = (*SIGMOID, *CROSS_ENTROPY[:2], SeesawLoss)
_OF_HEATMAPS = PENALTY_REDUCED[:2]

BOX_FAMILIES = {
    "smooth_l1": Family(SmoothL1Loss, IoUBalancedSmoothL1Loss, ("beta", "reduction")),
    "giou": Family(GIoULoss, IoUBalancedGIoULoss, ("reduction",)),
    "diou": Family(DIoULoss, IoUBalancedDIoULoss, ("reduction",)),
    "ciou": Family(CIoULoss, IoUBalancedCIoULoss, ("reduction",)),
}
"""By the names of Detectron2's `box_reg_loss_type`."""


def box_family(kind: str, key: str = "box_reg_loss_type") -> Family:
    """The family of a `box_reg_loss_type`.

    Raises:
        ValueError: there is none of this name.
    """
    if kind not in BOX_FAMILIES:
        raise ValueError(f"Expected {key} to be one of {list(BOX_FAMILIES)}, but got {kind!r}")
    return BOX_FAMILIES[kind]


def family_of(loss: type, families) -> Family | None:
    """The family that a loss of ours belongs to; None for any other."""
    return next((f for f in families if loss in (f.plain, f.balanced)), None)


def check_modules(**losses: nn.Module) -> None:
    """Refuse what cannot be called, such as a number in the place of a loss.

    Raises:
        ValueError: names the argument.
    """
    for name, loss in losses.items():
        if not callable(loss):
            raise ValueError(f"Expected argument `{name}` to be a module, but got {loss!r}")


def check_cls_loss(cls_loss: nn.Module, *, on_heatmaps: bool, by_softmax: bool = False) -> None:
    """Refuse a classification loss of ours that is called with other targets or logits.

    Args:
        cls_loss: of a detector.
        on_heatmaps: whether its targets are heat maps, and not labels.
        by_softmax: whether its logits have a background column.

    Raises:
        ValueError: it takes class labels where the detector has a heat map, or the reverse; or it
            is a softmax loss where the detector has no background column.
    """
    if type(cls_loss) in (_OF_LABELS if on_heatmaps else _OF_HEATMAPS):
        kinds = ("heat maps", _OF_HEATMAPS), ("class labels", FOCAL[:2])
        (kind, examples), (other, _) = kinds if on_heatmaps else kinds[::-1]
        raise ValueError(
            f"Expected argument `cls_loss` to be a loss of {kind}, as "
            f"{' and '.join(x.__name__ for x in examples)} are, but got "
            f"{type(cls_loss).__name__}, a loss of {other}"
        )
    if getattr(cls_loss, "is_softmax", False) and not by_softmax:
        raise ValueError(
            "Expected argument `cls_loss` to be a sigmoid loss, because the detector has a logit "
            "for each class and none for the background, but got "
            f"{type(cls_loss).__name__}, a softmax loss"
        )


def tell_num_classes(cls_loss: nn.Module, num_classes: int) -> None:
    """Tell a loss that keeps numbers for each class how many there are.

    Raises:
        ValueError: it was made for another number.
    """
    tell = getattr(cls_loss, "set_num_classes", None)
    if tell is None:
        return
    try:
        tell(num_classes)
    except ValueError as e:
        raise ValueError(
            f"Expected argument `cls_loss` to have num_classes={num_classes}, as the model, or "
            f"None: {e}"
        ) from e
