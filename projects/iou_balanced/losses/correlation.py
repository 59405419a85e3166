"""Correlation loss (arXiv 2301.01019): 1 - rho between the positives' scores and IoUs.

Shapes: N images, Ri anchors of level i, K foreground classes, P positives.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .checks import (
    check_flags,
    check_non_negative,
    check_pos_iou,
    is_number,
    upcast,
)
from .class_tables import ClassWeights
from .correlation_coefficients import COEFFICIENTS
from .focal import SigmoidFocalLoss
from .fused.graphs import own_graph
from .gathering import gather_rows
from .heatmap_focal import IoUBalancedPenaltyReducedFocalLoss, PenaltyReducedFocalLoss
from .sigmoid_scores import RowScores
from .soft_ranks import soft_ranks
from .value_checks import checks_values

REDUCTIONS = ("sum", "mean")
STRENGTH = 0.01
"""Of soft ranks. The authors' code has 1, at which soft ranks of numbers in [0, 1] are these
numbers, but for a constant: their Spearman is Pearson."""


@checks_values()
@own_graph
def correlation_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    kind: str = "concordance",
    strength: float = STRENGTH,
    iou_gradient: bool = False,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
) -> Tensor:
    """Correlation loss 1 - rho between the positives' scores, in their own column, and their IoUs.

    rho is Lin's concordance coefficient, Pearson's, or Spearman's through the soft ranks of arXiv
    2002.08871. Fewer than two positives have a loss of 0, and so have numbers without any spread,
    by Pearson and Spearman; their concordance is 0, unless all are one number. It is computed in
    float64.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in [0, 1], in the
            order of `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        kind: "concordance", "pearson" or "spearman".
        strength: regularisation of the soft ranks, above 0: how far scores are apart that have
            ranks of their own. At 1, the number of the authors' code, it is Pearson's coefficient.
        iou_gradient: whether gradient flows into `pos_iou`; none does in the authors' code.
        class_weight: see `sigmoid_focal_loss`; the weights of the positives' own elements weigh
            the pairs, other than in the paper, which has none.
        reduction: "mean" is 1 - rho; "sum" is P times that, so that a detector, which divides
            sums by the number of positives, adds 1 - rho.
        across_processes: correlate the positives of all processes, which then all have to call
            it. The values of all processes add up to that of the whole batch (for "mean" they
            are all the same), and with gradients averaged over processes, as DDP does, each
            score gets the gradient that it has in one process with the whole batch.

    Raises:
        ValueError: an argument is not as above; values of `pos_iou` are looked at on a CPU, and
            on a GPU with debugging on.
    """
    _check_arguments(kind, strength, iou_gradient, reduction)
    num_positives = None if pos_iou is None or pos_iou.dim() != 1 else len(pos_iou)
    scores = RowScores(pred_logits, gt_labels, class_weight, num_positives=num_positives)
    pos_iou = check_pos_iou(pos_iou, scores.num_positives)
    own_logits = _own_logits(scores)
    own_iou = pos_iou.double() if iou_gradient else pos_iou.detach().double()
    weights = torch.ones_like(own_iou) * scores.own_weights(torch.float64)
    pairs = torch.stack([own_logits.sigmoid().double(), own_iou, weights], dim=1)
    everyone = gather_rows(pairs) if across_processes else pairs
    if len(everyone) < 2:
        return pairs[:, 0].sum().to(own_logits.dtype) * 0
    score, iou, weights = everyone.unbind(1)
    if kind == "spearman":
        score, iou = soft_ranks(score, strength), soft_ranks(iou, strength)
    loss = 1 - COEFFICIENTS[kind](score, iou, weights.detach())
    # What the value is multiplied by, and what the gradient is: it reaches one's own scores only.
    share, scale = float(len(pairs)), float(len(everyone))
    if reduction == "mean":
        share, scale = 1.0, _num_processes() if across_processes else 1.0
    return (loss * scale + loss.detach() * (share - scale)).to(own_logits.dtype)


def _num_processes() -> float:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return float(torch.distributed.get_world_size()) if distributed else 1.0


def _own_logits(scores: RowScores) -> Tensor:
    """(P,) logits of the positives' own elements, float32 at least, with gradient."""
    levels = scores.rows.logits
    per_image = sum(x.shape[1] for x in levels)
    rows, images, classes = scores.positives % max(per_image, 1), scores.images(), scores.classes()
    # Without any rows, an empty part of the logits, in their graph.
    own = upcast(levels[0].new_zeros(len(rows)) if per_image else levels[0].reshape(-1)[:0])
    first = 0
    for x in levels:
        if x.shape[1]:
            place = rows - first
            inside = (place >= 0) & (place < x.shape[1])
            found = upcast(x[images, place.clamp(0, x.shape[1] - 1), classes])
            own = torch.where(inside, found, own)
        first += x.shape[1]
    return own


def _check_arguments(kind: str, strength: float, iou_gradient: bool, reduction: str) -> None:
    """Check the hyperparameters.

    Raises:
        ValueError: one is not as `correlation_loss` says.
    """
    if not isinstance(kind, str) or kind not in COEFFICIENTS:
        raise ValueError(
            f"Expected argument `kind` to be one of {tuple(COEFFICIENTS)}, but got {kind!r}"
        )
    if not is_number(strength) or not 0 < strength < math.inf:
        raise ValueError(
            f"Expected argument `strength` to be finite and above 0, but got {strength!r}"
        )
    check_flags(iou_gradient=iou_gradient)
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"Expected argument `reduction` to be one of {REDUCTIONS}, because a correlation is "
            f"one number of all positives, but got {reduction!r}"
        )


class CorrelationLoss(nn.Module):
    """Adds `weight` (1 - rho) to a classification loss; see `correlation_loss`.

    A detector divides the sum of both by its normaliser, usually the positives' number: the
    correlation is multiplied by it before, so that the detector's loss has `weight` (1 - rho).

    Args:
        loss: what it is added to: any sigmoid loss of this package, with a "sum" or "mean".
            `SigmoidFocalLoss()` by default.
        weight: of 1 - rho, at least 0. The authors' configs have 0.1 to 0.4.
        kind, strength, iou_gradient, across_processes: see `correlation_loss`.

    Raises:
        ValueError: a value is not as there; or `loss` is a softmax loss, one of heat maps, a
            CorrelationLoss, or has the reduction "none".
    """

    needs_pos_iou = True
    takes_over = ("across_processes",)
    wraps = "loss"
    """What a loss becomes where a command line puts this one in its place."""

    def __init__(
        self,
        *,
        loss: nn.Module | None = None,
        weight: float = 0.2,
        kind: str = "concordance",
        strength: float = STRENGTH,
        iou_gradient: bool = False,
        across_processes: bool = True,
    ):
        super().__init__()
        check_non_negative(weight=weight)
        check_flags(across_processes=across_processes)
        self.loss = _check_loss(loss)
        _check_arguments(kind, strength, iou_gradient, self.reduction)
        self.weight, self.kind, self.strength = weight, kind, strength
        self.iou_gradient, self.across_processes = iou_gradient, across_processes

    @property
    def reduction(self) -> str:
        """That of the loss."""
        return getattr(self.loss, "reduction", "sum")

    @property
    def takes_levels(self) -> bool:
        """Whether the loss takes one tensor a level."""
        return getattr(self.loss, "takes_levels", False)

    @property
    def needs_pos_object(self) -> bool:
        """Whether the loss has to know the positives' objects."""
        return getattr(self.loss, "needs_pos_object", False)

    @property
    def needs_iou_gradient(self) -> bool:
        """Whether the caller has to decode boxes with gradient for `pos_iou`."""
        return self.iou_gradient

    def set_num_classes(self, num_classes: int) -> None:
        """Tell the loss how many classes the detector has, if it wants to know.

        Args:
            num_classes: K.
        """
        tell = getattr(self.loss, "set_num_classes", None)
        if tell is not None:
            tell(num_classes)

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None,
        *,
        class_weight: Tensor | ClassWeights | None = None,
        pos_object: Tensor | None = None,
    ) -> Tensor:
        """The loss and `weight` times `correlation_loss`; see there.

        Args:
            pred_logits: see `correlation_loss`.
            gt_labels: see `correlation_loss`.
            pos_iou: see `correlation_loss`.
            class_weight: see `correlation_loss`; the loss gets it as well.
            pos_object: see `task_aligned_bce_loss`; the loss gets it where it asks for it.
        """
        more: dict[str, Any] = {"class_weight": class_weight}
        if self.needs_pos_object:
            more["pos_object"] = pos_object
        if getattr(self.loss, "takes_num_positives", False) and pos_iou is not None:
            more["num_positives"] = pos_iou.numel()
        if getattr(self.loss, "needs_pos_iou", False):
            loss: Tensor = self.loss(pred_logits, gt_labels, pos_iou, **more)
        else:
            loss = self.loss(pred_logits, gt_labels, **more)
        return loss + self.weight * correlation_loss(
            pred_logits,
            gt_labels,
            pos_iou,
            kind=self.kind,
            strength=self.strength,
            iou_gradient=self.iou_gradient,
            class_weight=class_weight,
            reduction=self.reduction,
            across_processes=self.across_processes,
        )

    def extra_repr(self) -> str:
        return (
            f"weight={self.weight}, kind={self.kind!r}, strength={self.strength}, "
            f"iou_gradient={self.iou_gradient}, across_processes={self.across_processes}"
        )


def _check_loss(loss: nn.Module | None) -> nn.Module:
    """The loss to wrap.

    Raises:
        ValueError: there is no score in [0, 1] for each class in it.
    """
    if loss is None:
        return SigmoidFocalLoss()
    softmax = getattr(loss, "is_softmax", False)
    heatmaps = isinstance(loss, (PenaltyReducedFocalLoss, IoUBalancedPenaltyReducedFocalLoss))
    if isinstance(loss, CorrelationLoss):
        raise ValueError(
            "Expected argument `loss` to be without a correlation loss of its own, whose `weight` "
            "can be changed instead, but got CorrelationLoss"
        )
    if softmax or heatmaps or not isinstance(loss, nn.Module):
        raise ValueError(
            "Expected argument `loss` to be a module with a sigmoid loss of class labels, such as "
            f"VarifocalLoss, but got {type(loss).__name__}"
        )
    return loss
