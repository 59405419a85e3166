"""Equalization loss v2 (arXiv 2012.08548): positive and negative gradients of a class balanced.

Shapes: M samples, K foreground classes; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_exponents, check_non_negative, check_reduction
from .class_statistics import ClassStatistics, gradient_ratio
from .class_tables import ClassWeights
from .gradient_balance import ClassFactors, check_by_class, class_balanced_focal, scores_shape

_NAME = "equalization loss v2"
INITIAL_RATIO = 100.0
"""Of a class before its first gradient, as in the authors' code: both weights are then 1."""


def _check(gamma: float, mu: float, alpha: float, focusing: float, reduction: str) -> None:
    """Check the numbers of the loss.

    Raises:
        ValueError: one of them makes no sense.
    """
    check_reduction(reduction)
    check_non_negative(gamma=gamma, mu=mu, alpha=alpha)
    check_exponents(focusing=focusing)


def equalization_factors(
    gradient_ratio: Tensor, gamma: float, mu: float, alpha: float, focusing: float
) -> ClassFactors:
    """Weights r_j = f(g_j) of negatives and q_j = 1 + alpha (1 - r_j) of positives (Eq. 5-7).

    Args:
        gradient_ratio: (K,) g_j.
        gamma: of f(x) = 1 / (1 + exp(-gamma (x - mu))).
        mu: see `gamma`.
        alpha: see above.
        focusing: exponent of a focal loss, the same for all.
    """
    negative = torch.sigmoid(gamma * (gradient_ratio.detach() - mu))
    return ClassFactors(focusing, 1 + alpha * (1 - negative), negative)


def equalization_loss_v2(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    gradient_ratio: Tensor,
    *,
    gamma: float = 12.0,
    mu: float = 0.8,
    alpha: float = 4.0,
    focusing: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    num_positives: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Equalization loss v2 (arXiv 2012.08548, Eq. 5-8): sigmoid cross entropy, weighed by class.

    With g_j the ratio of the positive to the negative gradient that class j had so far, a
    positive's own element has the weight 1 + alpha (1 - f(g_j)), and all other elements of the
    column f(g_j), f(x) = 1 / (1 + exp(-gamma (x - mu))). No gradient flows into the weights.

    The paper's detector has one more score, of an object of any class, which multiplies the others
    in testing. There is none here: a trained model stays a stock detector.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        gradient_ratio: (K,) g.
        gamma: steepness of f, 12 in the paper.
        mu: the ratio where f is a half, 0.8 in the paper.
        alpha: how much more a positive may weigh, 4 in the paper.
        focusing: exponent of focal loss in the place of cross entropy; the paper has 0, and a
            dense detector, with its many background elements, mostly 2.
        class_weight: see `sigmoid_focal_loss`; multiplies the loss's own weights.
        reduction: see `sigmoid_focal_loss`.
        num_positives: see `sigmoid_focal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`; or the ratio is not (K,), or a number is negative.
    """
    _check(gamma, mu, alpha, focusing, reduction)
    check_by_class("gradient_ratio", gradient_ratio, scores_shape(pred_logits)[0])
    return class_balanced_focal(
        pred_logits,
        gt_labels,
        equalization_factors(gradient_ratio, gamma, mu, alpha, focusing),
        alpha=-1.0,
        class_weight=class_weight,
        reduction=reduction,
        num_positives=num_positives,
        backend=backend,
        name=_NAME,
    )[0]


class EqualizationLossV2(nn.Module):
    """Module form of `equalization_loss_v2`, which keeps the gradients of the classes.

    As `EqualizedFocalLoss` has it, except that g is not cut at 1, and is 100 before the first
    iteration. As in the authors' code the gradients are those of the weighted loss.

    Args:
        gamma, mu, alpha, focusing, reduction: see `equalization_loss_v2`.
        num_classes, across_processes: see `EqualizedFocalLoss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = False
    takes_levels = True

    def __init__(
        self,
        *,
        gamma: float = 12.0,
        mu: float = 0.8,
        alpha: float = 4.0,
        focusing: float = 0.0,
        reduction: str = "sum",
        num_classes: int | None = None,
        across_processes: bool = True,
    ):
        super().__init__()
        _check(gamma, mu, alpha, focusing, reduction)
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        self.focusing, self.reduction = focusing, reduction
        self.statistics = ClassStatistics(
            "positive", "negative", num_classes=num_classes, across_processes=across_processes
        )

    def set_num_classes(self, num_classes: int) -> None:
        """See `ClassStatistics.set_num_classes`."""
        self.statistics.set_num_classes(num_classes)

    @property
    def gradient_ratio(self) -> Tensor:
        """(K,) g of the next iteration."""
        return gradient_ratio(self.statistics, initial=INITIAL_RATIO)

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        *,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """See `equalization_loss_v2`; in training the gradients are added to the sums."""
        self.set_num_classes(scores_shape(pred_logits)[0])
        ratio = self.gradient_ratio.to(gt_labels.device)
        loss, gradients = class_balanced_focal(
            pred_logits,
            gt_labels,
            equalization_factors(ratio, self.gamma, self.mu, self.alpha, self.focusing),
            alpha=-1.0,
            class_weight=class_weight,
            reduction=self.reduction,
            name=_NAME,
            with_gradients=self.training and torch.is_grad_enabled(),
        )
        if gradients is not None:
            self.statistics.add(gradients)
        return loss

    def extra_repr(self) -> str:
        return (
            f"gamma={self.gamma}, mu={self.mu}, alpha={self.alpha}, focusing={self.focusing}, "
            f"reduction={self.reduction!r}"
        )
