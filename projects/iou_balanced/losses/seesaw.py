"""Seesaw loss (arXiv 2008.10032): how much a class is pushed down by the samples of another.

Shapes: M samples, K foreground classes, P positives; background is the last column. Of a dense
detector: N images, Ri anchors of level i, R of all levels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_exponents, check_fraction, check_reduction, reduce_terms
from .class_statistics import ClassStatistics, count_by_class
from .class_tables import ClassWeights
from .cross_entropy import cross_entropy_terms, sample_weights
from .gradient_balance import check_by_class, scores_shape
from .value_checks import checks_values


def _check(p: float, q: float, eps: float, reduction: str) -> None:
    """Check the numbers of the loss.

    Raises:
        ValueError: one of them makes no sense.
    """
    check_reduction(reduction)
    check_exponents(p=p, q=q)
    check_fraction(eps=eps)
    if eps == 0:
        raise ValueError("Expected argument `eps` to be greater than 0, but got 0")


@torch.no_grad()
def seesaw_log_factors(
    logits: Tensor, classes: Tensor, class_counts: Tensor, *, p: float, q: float, eps: float
) -> Tensor:
    """log S_ij = log M_ij + log C_ij (Eq. 4-6) of the positives' columns.

    Args:
        logits: (P, K) of the foreground columns.
        classes: (P,) i, the class of each.
        class_counts: (K,) samples of each class so far; 0 counts as 1.
        p: exponent of the mitigation M_ij = min(1, N_j / N_i)^p.
        q: exponent of the compensation C_ij = max(1, s_j / s_i)^q, s the softmax over the K.
        eps: the least s_i that is divided by.

    Returns:
        (P, K), 0 in the column of the class itself.
    """
    log_counts = class_counts.to(logits).clamp(min=1).log()
    mitigation = (log_counts - log_counts[classes].unsqueeze(1)).clamp(max=0)
    log_scores = logits.log_softmax(dim=1)
    own = log_scores.gather(1, classes.unsqueeze(1)).clamp(min=math.log(eps))
    compensation = (log_scores - own).clamp(min=0)
    factors = p * mitigation + q * compensation
    return factors.scatter_(1, classes.unsqueeze(1), 0.0)


@checks_values(background_column=True)
def seesaw_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    class_counts: Tensor,
    *,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 0.01,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
) -> Tensor:
    """Seesaw loss (arXiv 2008.10032, Eq. 3-6) for a softmax over K classes and background.

    Softmax cross entropy in which a sample of class i pushes the score of class j by a factor
    S_ij = M_ij C_ij: less where j is rarer (M_ij = (N_j / N_i)^p, N counted over the training),
    more where j scores higher than i (C_ij = (s_j / s_i)^q). S carries no gradient.

    Background takes no part: its own column, and the samples of background, have the factor 1, as
    in plain cross entropy. In the paper and its code there is no background class: a classifier of
    K classes learns from positives only, and two more scores tell objects from background, which
    multiply the others in testing. Here the K + 1 columns stay, so that a trained model stays a
    stock detector; p = q = 0 is `SoftmaxCrossEntropyLoss`.

    Args:
        pred_logits: (M, K + 1), background last; or one (N, Ri, K + 1) a feature level; see
            `iou_balanced_cross_entropy`.
        gt_labels: (M,), or (N, R) for a list; see `iou_balanced_cross_entropy`.
        class_counts: (K,) N, the samples of each class so far; 0 counts as 1.
        p: of the mitigation factor, in [0, 100]; 0.8 in the paper.
        q: of the compensation factor, in [0, 100]; 2 in the paper.
        eps: the least s_i that is divided by; 0.01 in the authors' code.
        class_weight: see `iou_balanced_cross_entropy`.
        reduction: see `iou_balanced_cross_entropy`.

    Raises:
        ValueError: as `iou_balanced_cross_entropy`; or the counts are not (K,), or a number is not
            as above.
    """
    _check(p, q, eps, reduction)
    check_by_class("class_counts", class_counts, scores_shape(pred_logits)[0] - 1)

    def push(logits: Tensor, labels: Tensor) -> Tensor:
        num_classes = logits.shape[1] - 1
        (rows,) = ((labels >= 0) & (labels < num_classes)).nonzero(as_tuple=True)
        factors = seesaw_log_factors(
            logits.detach()[rows, :num_classes], labels[rows], class_counts, p=p, q=q, eps=eps
        )
        shift = torch.zeros_like(logits)
        shift[rows, :num_classes] = factors
        return logits + shift

    terms, num_classes = cross_entropy_terms(pred_logits, gt_labels, push)
    if class_weight is not None:
        # No gradient flows into a weight.
        terms = terms * sample_weights(class_weight, gt_labels, num_classes, terms.dtype)
    return reduce_terms(terms, reduction, (gt_labels >= 0).sum())


class SeesawLoss(nn.Module):
    """Module form of `seesaw_loss`, which counts the samples of the classes.

    An iteration uses the counts of those before it, of all processes. (The authors' code counts
    the iteration's own samples first, and each process its own.) A resumed run goes on with
    them.

    Args:
        p, q, eps, reduction: see `seesaw_loss`.
        num_classes, across_processes: see `EqualizedFocalLoss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = False
    takes_levels = True
    is_softmax = True

    def __init__(
        self,
        *,
        p: float = 0.8,
        q: float = 2.0,
        eps: float = 0.01,
        reduction: str = "sum",
        num_classes: int | None = None,
        across_processes: bool = True,
    ):
        super().__init__()
        _check(p, q, eps, reduction)
        self.p, self.q, self.eps, self.reduction = p, q, eps, reduction
        self.statistics = ClassStatistics(
            "samples",
            num_classes=num_classes,
            across_processes=across_processes,
            of=type(self).__name__,
        )

    def set_num_classes(self, num_classes: int) -> None:
        """See `ClassStatistics.set_num_classes`."""
        self.statistics.set_num_classes(num_classes)

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        *,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """See `seesaw_loss`; in training the samples are counted."""
        num_classes = scores_shape(pred_logits)[0] - 1
        self.set_num_classes(num_classes)
        loss = seesaw_loss(
            pred_logits,
            gt_labels,
            self.statistics.sums[0].to(gt_labels.device),
            p=self.p,
            q=self.q,
            eps=self.eps,
            class_weight=class_weight,
            reduction=self.reduction,
        )
        if self.training and torch.is_grad_enabled():
            self.statistics.add(count_by_class(gt_labels, num_classes).unsqueeze(0))
        return loss

    def extra_repr(self) -> str:
        return f"p={self.p}, q={self.q}, eps={self.eps}, reduction={self.reduction!r}"
