"""Which loss of ours stands for which of Detectron2's, plain and IoU-balanced."""

from typing import NamedTuple

from torch import nn

from iou_balanced.losses import (
    CIoULoss,
    CorrelationLoss,
    DIoULoss,
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
SIGMOID = (*FOCAL[:2], *QUALITY)
"""Those with a term for each class, and no background column."""
_OF_LABELS = (*SIGMOID, *CROSS_ENTROPY[:2])
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


def check_cls_loss(cls_loss: nn.Module, *, on_heatmaps: bool) -> None:
    """Refuse a classification loss of ours that is called with the other kind of targets.

    Raises:
        ValueError: it takes class labels where the detector has a heat map, or the reverse.
    """
    if type(cls_loss) in (_OF_LABELS if on_heatmaps else _OF_HEATMAPS):
        kinds = ("heat maps", _OF_HEATMAPS), ("class labels", FOCAL[:2])
        (kind, examples), (other, _) = kinds if on_heatmaps else kinds[::-1]
        raise ValueError(
            f"Expected argument `cls_loss` to be a loss of {kind}, as "
            f"{' and '.join(x.__name__ for x in examples)} are, but got "
            f"{type(cls_loss).__name__}, a loss of {other}"
        )
