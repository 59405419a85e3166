"""Focal loss with factors for each class, and the gradients that its classes get.

What equalized focal loss and equalization loss v2 have in common. Shapes: K foreground classes, P
positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .class_statistics import ClassStatistics, gradient_ratio
from .class_tables import ClassWeights, expand_tables, multiply_tables
from .fused.backends import check_backend
from .fused.elements import focal_slope, own_focal
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .sigmoid_scores import RowScores
from .value_checks import checks_values


class ClassFactors(NamedTuple):
    """What a class's elements are computed with; no gradient flows into it."""

    gamma: float | Tensor
    """Focusing exponent: a number, or one a class, (K,)."""
    own: Tensor
    """(K,) weight of a positive's own element."""
    rest: Tensor
    """(K,) weight of all other elements; the same tensor as `own` where they weigh the same."""


def scores_shape(pred_logits: Tensor | Sequence[Tensor]) -> tuple[int, int | None]:
    """K and the number of images, as `sigmoid_focal_loss` takes logits; (0, None) of nothing."""
    if not isinstance(pred_logits, Tensor):
        pred_logits = next(iter(pred_logits), torch.empty(0))
    return pred_logits.shape[-1], len(pred_logits) if pred_logits.dim() > 1 else None


def check_by_class(name: str, numbers: Tensor, num_classes: int) -> None:
    """Check that there is one number for each class.

    Args:
        name: of the argument.
        numbers: of shape (K,).
        num_classes: K.

    Raises:
        ValueError: they are of another shape.
    """
    if not isinstance(numbers, Tensor) or tuple(numbers.shape) != (num_classes,):
        got = tuple(numbers.shape) if isinstance(numbers, Tensor) else type(numbers).__name__
        raise ValueError(
            f"Expected argument `{name}` to have a number for each class, shape ({num_classes},), "
            f"but got {got}"
        )


@checks_values()
@own_graph
def class_balanced_focal(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    factors: ClassFactors,
    *,
    alpha: float,
    class_weight: Tensor | ClassWeights | None,
    reduction: str,
    num_positives: int | None = None,
    backend: str | None = None,
    name: str,
    with_gradients: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Focal loss with the factors of each element's class.

    Args:
        pred_logits: see `sigmoid_focal_loss`.
        gt_labels: see `sigmoid_focal_loss`.
        factors: of the classes.
        alpha: see `sigmoid_focal_loss`.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        num_positives: see `sigmoid_focal_loss`.
        backend: see `sigmoid_focal_loss`.
        name: of the loss, for errors.
        with_gradients: whether the sums of the gradients are wanted.

    Returns:
        The loss; and (2, K): for each class the sums of |slope| of this loss as a sum, weights
        included, over the positives' own elements and over all others, or None. They are taken in
        a second pass over the logits, in float32 whatever these are: in float16 the slopes of
        most background scores would be 0.
    """
    weights = expand_tables(class_weight, *scores_shape(pred_logits))
    weights = multiply_tables(weights, factors.own, factors.rest)
    scores = RowScores(
        pred_logits, gt_labels, weights, num_positives=num_positives, backend=backend
    )
    own_alpha, rest_alpha = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)
    negatives = Negatives(factors.gamma, rest_alpha)
    rest, own = scores.split(negatives, reduction, name=name)
    classes, gamma = scores.classes(), factors.gamma
    if isinstance(gamma, Tensor):
        gamma = gamma.to(own.dtype)[classes]
    weight = scores.own_weights(own.dtype) * own_alpha
    loss = scores.reduce(rest, own_focal(own, gamma) * weight, reduction)
    if not with_gradients:
        return loss, None
    with torch.no_grad():
        slopes = (focal_slope(-own, gamma) * weight).double()
        positive = slopes.new_zeros(scores.num_classes).index_add_(0, classes, slopes)
        return loss, torch.stack([positive, _column_slopes(scores, negatives)])


def _column_slopes(scores: RowScores, negatives: Negatives) -> Tensor:
    """(K,) sums of the slopes, which are never negative, of a column's other elements."""
    rows, gamma = scores.rows, negatives.gamma
    dtype = torch.promote_types(rows.logits[0].dtype, torch.float32)
    if isinstance(gamma, Tensor):
        gamma = rows.of_classes(gamma.to(dtype))
    total = torch.zeros(scores.num_classes, dtype=torch.float64, device=rows.labels.device)
    for chunk in rows.chunks():
        slopes = focal_slope(rows.read(chunk, dtype), gamma, negatives.detached)
        for factor in rows.weights(chunk, dtype):
            slopes.mul_(factor)
        rows.hide_ignored(slopes, chunk)
        rows.hide_own(slopes, chunk)
        total += slopes.sum(dim=(0, 1))
    return total * negatives.scale


class GradientBalancedLoss(nn.Module):
    """A loss that keeps the gradients of its classes: `_factors` says what it makes of them.

    Args:
        reduction: see `sigmoid_focal_loss`.
        num_classes, across_processes: see `EqualizedFocalLoss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = False
    takes_levels = takes_num_positives = True
    name: str
    """Of the loss, for errors."""
    initial_ratio: float
    """Of a class before its first gradient."""

    def __init__(
        self,
        *,
        reduction: str,
        num_classes: int | None,
        across_processes: bool,
        backend: str | None,
    ):
        super().__init__()
        check_backend(backend)
        self.reduction, self.backend = reduction, backend
        self.statistics = ClassStatistics(
            "positive",
            "negative",
            num_classes=num_classes,
            across_processes=across_processes,
            of=type(self).__name__,
        )

    def set_num_classes(self, num_classes: int) -> None:
        """See `ClassStatistics.set_num_classes`."""
        self.statistics.set_num_classes(num_classes)

    @property
    def gradient_ratio(self) -> Tensor:
        """(K,) g of the next iteration."""
        return gradient_ratio(self.statistics, initial=self.initial_ratio)

    @property
    def focal_alpha(self) -> float:
        """See `sigmoid_focal_loss`; -1 for none."""
        return -1.0

    def _factors(self, ratio: Tensor) -> ClassFactors:
        """What the classes' elements are computed with.

        Args:
            ratio: (K,) g.
        """
        raise NotImplementedError(f"{type(self).__name__} has to say its factors")

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        *,
        class_weight: Tensor | ClassWeights | None = None,
        num_positives: int | None = None,
    ) -> Tensor:
        """The loss; in training the gradients are added to the sums.

        Args:
            pred_logits: see `sigmoid_focal_loss`.
            gt_labels: see `sigmoid_focal_loss`.
            class_weight: see `sigmoid_focal_loss`; multiplies the loss's own weights.
            num_positives: see `sigmoid_focal_loss`.
        """
        self.set_num_classes(scores_shape(pred_logits)[0])
        loss, gradients = class_balanced_focal(
            pred_logits,
            gt_labels,
            self._factors(self.gradient_ratio.to(gt_labels.device)),
            alpha=self.focal_alpha,
            class_weight=class_weight,
            reduction=self.reduction,
            num_positives=num_positives,
            backend=self.backend,
            name=self.name,
            with_gradients=self.training and torch.is_grad_enabled(),
        )
        if gradients is not None:
            self.statistics.add(gradients)
        return loss
