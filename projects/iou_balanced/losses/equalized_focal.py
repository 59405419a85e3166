"""Equalized focal loss (arXiv 2201.02593): a focusing exponent for each class.

Shapes: K foreground classes; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

from torch import Tensor

from .checks import (
    LARGEST_EXPONENT,
    check_exponents,
    check_focal_alpha,
    check_reduction,
)
from .class_tables import ClassWeights
from .gradient_balance import (
    ClassFactors,
    GradientBalancedLoss,
    check_by_class,
    class_balanced_focal,
    scores_shape,
)

_NAME = "equalized focal loss"


def _check(gamma: float, alpha: float, scale: float, reduction: str) -> None:
    """Check the numbers of the loss.

    Raises:
        ValueError: one of them makes no sense.
    """
    check_reduction(reduction)
    check_exponents(gamma=gamma, scale=scale)
    check_focal_alpha(alpha)
    if not gamma > 0:
        raise ValueError(
            "Expected argument `gamma` to be greater than 0, because the weight of a class is its "
            f"exponent divided by it, but got {gamma!r}"
        )
    if gamma + scale > LARGEST_EXPONENT:
        raise ValueError(
            f"Expected `gamma` + `scale`, the largest exponent, to be at most "
            f"{LARGEST_EXPONENT:g}, but got {gamma + scale:g}"
        )


def equalized_factors(gradient_ratio: Tensor, gamma: float, scale: float) -> ClassFactors:
    """gamma_j = gamma + scale (1 - g_j), and the weight gamma_j / gamma (Eq. 3-5).

    Args:
        gradient_ratio: (K,) g_j, cut to [0, 1].
        gamma: that of all classes.
        scale: s of the paper.
    """
    by_class = gamma + scale * (1 - gradient_ratio.detach().clamp(0, 1))
    weight = by_class / gamma
    return ClassFactors(by_class, weight, weight)


def equalized_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    gradient_ratio: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    scale: float = 8.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Equalized focal loss (arXiv 2201.02593, Eq. 5): rare classes are focused more.

    The elements of class j have the exponent gamma_j = gamma + scale (1 - g_j) and the weight
    gamma_j / gamma, with g_j in [0, 1] the ratio of the positive to the negative gradient that the
    class had so far. g = 1 is exactly `sigmoid_focal_loss`. As in the paper and its code, the
    modulating factor carries gradient as that of focal loss does; exponent and weight carry none.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        gradient_ratio: (K,) g; above 1 counts as 1.
        gamma: the exponent of a class whose gradients are balanced (gamma_b), above 0.
        alpha: see `sigmoid_focal_loss`.
        scale: what a class without positive gradient has more (s), 8 in the paper.
        class_weight: see `sigmoid_focal_loss`; multiplies the class's own weight.
        reduction: see `sigmoid_focal_loss`.
        num_positives: see `sigmoid_focal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`; or the ratio is not (K,), or a number not as above.
    """
    _check(gamma, alpha, scale, reduction)
    check_by_class("gradient_ratio", gradient_ratio, scores_shape(pred_logits)[0])
    return class_balanced_focal(
        pred_logits,
        gt_labels,
        equalized_factors(gradient_ratio, gamma, scale),
        alpha=alpha,
        class_weight=class_weight,
        reduction=reduction,
        num_positives=num_positives,
        backend=backend,
        name=_NAME,
    )[0]


class EqualizedFocalLoss(GradientBalancedLoss):
    """Module form of `equalized_focal_loss`, which keeps the gradients of the classes.

    g_j is the sum of the gradient's absolute values on the logits of the class's positives,
    divided by that on its other logits, over all iterations so far and all processes; at most 1,
    and 1 before the first. An iteration uses what those before it left. The gradients are those of
    the loss as a sum, class weights included. (The authors' code takes them after the detector's
    normaliser, so that an iteration with many positives counts less there.)

    A resumed run goes on with the sums. With gradient accumulation they count once the batch has
    ended.

    Args:
        gamma, alpha, scale, reduction, backend: see `equalized_focal_loss`.
        num_classes: K; the detectors say it themselves.
        across_processes: add up the gradients of all processes. Every process then has to call the
            module equally often.

    Raises:
        ValueError: a value is not as there.
    """

    name = _NAME
    initial_ratio = 1.0

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float = 0.25,
        scale: float = 8.0,
        reduction: str = "sum",
        num_classes: int | None = None,
        across_processes: bool = True,
        backend: str | None = None,
    ):
        _check(gamma, alpha, scale, reduction)
        super().__init__(
            reduction=reduction,
            num_classes=num_classes,
            across_processes=across_processes,
            backend=backend,
        )
        self.gamma, self.alpha, self.scale = gamma, alpha, scale

    @property
    def gradient_ratio(self) -> Tensor:
        """(K,) g of the next iteration, in [0, 1]."""
        return super().gradient_ratio.clamp(max=1)

    @property
    def focal_alpha(self) -> float:
        """See `sigmoid_focal_loss`."""
        return self.alpha

    def _factors(self, ratio: Tensor) -> ClassFactors:
        """See `equalized_factors`."""
        return equalized_factors(ratio, self.gamma, self.scale)

    def extra_repr(self) -> str:
        return (
            f"gamma={self.gamma}, alpha={self.alpha}, scale={self.scale}, "
            f"reduction={self.reduction!r}"
        )
