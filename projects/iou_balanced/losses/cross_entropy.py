"""Softmax cross entropy and its IoU-balanced form (arXiv 1908.05641, Eq. 1, 3-4).

Shapes: M samples, K foreground classes, P positives; background is the last column.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import (
    check_labels,
    check_non_negative,
    check_pos_iou,
    check_reduction,
    reduce_terms,
    upcast,
)
from .iou_weights import iou_ratio_weights


def iou_balanced_cross_entropy(
    pred_logits: Tensor,
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    eta: float = 1.5,
    reduction: str = "sum",
    across_processes: bool = False,
) -> Tensor:
    """IoU-balanced classification loss, Eq. 3-4 of arXiv 1908.05641, for a softmax classifier.

    The cross entropy of each positive is multiplied by iou^eta, scaled so that its sum over all
    positives given stays what it was; background samples keep weight 1. Where every IoU is 0
    Eq. 4 is 0/0, and the loss is the unweighted one. No gradient flows through a weight.

    Args:
        pred_logits: (M, K + 1), background last; computed in float32 (float64 for float64).
        gt_labels: (M,) integers: -1 ignored, 0..K-1 foreground, K background.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in the order of
            `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        eta: exponent of the IoU, at least 0.
        reduction: "sum"; "mean" divides by the samples that are not ignored; "none" gives (M,)
            with 0 where ignored.
        across_processes: take Eq. 4's two sums over the positives of all processes.

    Raises:
        ValueError: a shape, a dtype, eta or `reduction` is not as above.
    """
    check_reduction(reduction)
    check_non_negative(eta=eta)
    if pred_logits.dim() != 2:
        raise ValueError(
            f"Expected argument `pred_logits` of shape (M, K + 1), got {tuple(pred_logits.shape)}"
        )
    check_labels(pred_logits, gt_labels)
    terms = F.cross_entropy(
        upcast(pred_logits), gt_labels.long(), ignore_index=-1, reduction="none"
    )
    if eta != 0:
        background = pred_logits.shape[1] - 1
        positives = ((gt_labels >= 0) & (gt_labels < background)).nonzero().squeeze(1)
        check_pos_iou(pos_iou, positives.numel())
        # Eq. 4; the weights carry no gradient.
        weights = torch.ones_like(terms)
        weights[positives] = iou_ratio_weights(
            terms.detach()[positives], pos_iou, eta, across_processes=across_processes
        )
        terms = terms * weights
    return reduce_terms(terms, reduction, (gt_labels >= 0).sum())


class SoftmaxCrossEntropyLoss(nn.Module):
    """Softmax cross entropy on (M, K + 1) logits; -1 is ignored, background is the last class."""

    needs_pos_iou = False

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, pred_logits: Tensor, gt_labels: Tensor) -> Tensor:
        """See `iou_balanced_cross_entropy` with eta = 0."""
        return iou_balanced_cross_entropy(
            pred_logits, gt_labels, None, eta=0, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class IoUBalancedCrossEntropyLoss(nn.Module):
    """Module form of `iou_balanced_cross_entropy`, Eq. 3-4 of arXiv 1908.05641.

    With `across_processes` (the default) Eq. 4's two sums run over the positives of all
    processes; every process then has to call the module equally often.
    """

    def __init__(self, *, eta: float = 1.5, reduction: str = "sum", across_processes: bool = True):
        super().__init__()
        check_reduction(reduction)
        check_non_negative(eta=eta)
        self.eta, self.reduction, self.across_processes = eta, reduction, across_processes

    @property
    def needs_pos_iou(self) -> bool:
        """Whether the caller has to decode boxes for `pos_iou`; eta = 0 is the plain loss."""
        return self.eta != 0

    def forward(
        self, pred_logits: Tensor, gt_labels: Tensor, pos_iou: Tensor | None = None
    ) -> Tensor:
        """See `iou_balanced_cross_entropy`; `pos_iou` may be left out where eta is 0."""
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with eta={self.eta}, but got None")
        return iou_balanced_cross_entropy(
            pred_logits,
            gt_labels,
            pos_iou,
            eta=self.eta,
            reduction=self.reduction,
            across_processes=self.across_processes,
        )

    def extra_repr(self) -> str:
        return (
            f"eta={self.eta}, reduction={self.reduction!r}, "
            f"across_processes={self.across_processes}"
        )
