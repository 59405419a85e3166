"""Equalization loss v2 (arXiv 2012.08548): positive and negative gradients of a class balanced.

Shapes: M samples, K foreground classes; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_exponents, check_non_negative, check_reduction
from .class_tables import ClassWeights
from .gradient_balance import (
    ClassFactors,
    GradientBalancedLoss,
    check_by_class,
    class_balanced_focal,
    scores_shape,
)

_NAME = "equalization loss v2"
INITIAL_RATIO = 100.0
"""Of a class before its first gradient, as in the authors' code: both weights are then 1."""


def _check(steepness: float, midpoint: float, boost: float, gamma: float, reduction: str) -> None:
    """Check the numbers of the loss.

    Raises:
        ValueError: one of them makes no sense.
    """
    check_reduction(reduction)
    check_non_negative(steepness=steepness, midpoint=midpoint, boost=boost)
    check_exponents(gamma=gamma)


def equalization_factors(
    gradient_ratio: Tensor, steepness: float, midpoint: float, boost: float, gamma: float
) -> ClassFactors:
    """Weights r_j = f(g_j) of negatives and q_j = 1 + boost (1 - r_j) of positives (Eq. 5-7).

    Args:
        gradient_ratio: (K,) g_j.
        steepness: of f(x) = 1 / (1 + exp(-steepness (x - midpoint))).
        midpoint: see `steepness`.
        boost: see above.
        gamma: exponent of a focal loss, the same for all.
    """
    negative = torch.sigmoid(steepness * (gradient_ratio.detach() - midpoint))
    return ClassFactors(gamma, 1 + boost * (1 - negative), negative)


def equalization_loss_v2(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    gradient_ratio: Tensor,
    *,
    steepness: float = 12.0,
    midpoint: float = 0.8,
    boost: float = 4.0,
    gamma: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Equalization loss v2 (arXiv 2012.08548, Eq. 5-8): sigmoid cross entropy, weighed by class.

    With g_j the ratio of the positive to the negative gradient that class j had so far, a
    positive's own element has the weight 1 + boost (1 - f(g_j)), and all other elements of the
    column f(g_j), f(x) = 1 / (1 + exp(-steepness (x - midpoint))). No gradient flows into the
    weights; with focal loss its modulating factor carries gradient, as always.

    The paper's detector has one more score, of an object of any class, which multiplies the others
    in testing. There is none here: a trained model stays a stock detector.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        gradient_ratio: (K,) g.
        steepness: of f, 12 in the paper (its gamma).
        midpoint: the ratio where f is a half, 0.8 in the paper (its mu).
        boost: how much more a positive may weigh, 4 in the paper (its alpha).
        gamma: exponent of focal loss in the place of cross entropy; the paper has 0, and a dense
            detector, with its many background elements, mostly 2. The name means what it means in
            all losses here, so that a config keeps it when the loss is exchanged.
        class_weight: see `sigmoid_focal_loss`; multiplies the loss's own weights.
        reduction: see `sigmoid_focal_loss`.
        num_positives: see `sigmoid_focal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`; or the ratio is not (K,), or a number is negative.
    """
    _check(steepness, midpoint, boost, gamma, reduction)
    check_by_class("gradient_ratio", gradient_ratio, scores_shape(pred_logits)[0])
    return class_balanced_focal(
        pred_logits,
        gt_labels,
        equalization_factors(gradient_ratio, steepness, midpoint, boost, gamma),
        alpha=-1.0,
        class_weight=class_weight,
        reduction=reduction,
        num_positives=num_positives,
        backend=backend,
        name=_NAME,
    )[0]


class EqualizationLossV2(GradientBalancedLoss):
    """Module form of `equalization_loss_v2`, which keeps the gradients of the classes.

    As `EqualizedFocalLoss` has it, except that g is not cut at 1, and is 100 before the first
    iteration. As in the authors' code the gradients are those of the weighted loss.

    Args:
        steepness, midpoint, boost, gamma, reduction, backend: see `equalization_loss_v2`.
        num_classes, across_processes: see `EqualizedFocalLoss`.

    Raises:
        ValueError: a value is not as there.
    """

    name = _NAME
    initial_ratio = INITIAL_RATIO

    def __init__(
        self,
        *,
        steepness: float = 12.0,
        midpoint: float = 0.8,
        boost: float = 4.0,
        gamma: float = 0.0,
        reduction: str = "sum",
        num_classes: int | None = None,
        across_processes: bool = True,
        backend: str | None = None,
    ):
        _check(steepness, midpoint, boost, gamma, reduction)
        super().__init__(
            reduction=reduction,
            num_classes=num_classes,
            across_processes=across_processes,
            backend=backend,
        )
        self.steepness, self.midpoint, self.boost = steepness, midpoint, boost
        self.gamma = gamma

    def _factors(self, ratio: Tensor) -> ClassFactors:
        """See `equalization_factors`."""
        return equalization_factors(ratio, self.steepness, self.midpoint, self.boost, self.gamma)

    def extra_repr(self) -> str:
        return (
            f"steepness={self.steepness}, midpoint={self.midpoint}, boost={self.boost}, "
            f"gamma={self.gamma}, reduction={self.reduction!r}"
        )
