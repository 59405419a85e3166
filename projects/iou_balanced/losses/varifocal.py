"""Varifocal loss (arXiv 2008.13367, Eq. 2).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_exponents, check_flags, check_non_negative
from .class_tables import ClassWeights
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .quality import QualityLoss, as_negative, quality_loss, soft_target_loss
from .value_checks import checks_values


@checks_values()
@own_graph
def varifocal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
    detached: bool = False,
    eta: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Varifocal loss: the score learns the IoU q, and good boxes count more.

    With p = sigmoid(logit), Eq. 2: a positive's own element costs q BCE(p, q), every other one
    alpha p^gamma BCE(p, 0). A positive with q = 0 is a negative there, and so it is here.

    Gradient flows through both BCE and through p^gamma, as in the authors' code and MMDetection's;
    none through q, neither as target nor as factor. The code of RT-DETR (PyTorch) and of those who
    build on it takes p^gamma as a constant: `detached`.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU q of each regressed positive with its ground truth, in [0, 1], in the
            order of `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        alpha: weight of the negatives, at least 0.
        gamma: focusing exponent of the negatives, in [0, 100].
        iou_weighted: whether a positive's BCE is multiplied by q.
        detached: whether p^gamma is a constant to the gradient.
        eta: exponent of IoU-balanced weights on top (Eq. 4 of arXiv 1908.05641); 0: none. The sum
            of the positives' own elements stays.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        across_processes: take the sums of IoU-balanced weights over all processes.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: an argument is not as above; values of `pos_iou` are looked at on a CPU, and
            on a GPU with debugging on.
    """
    check_exponents(gamma=gamma)
    check_non_negative(alpha=alpha)
    check_flags(iou_weighted=iou_weighted, detached=detached)
    negatives = Negatives(gamma, alpha, detached)

    def own_loss(own_logits: Tensor, iou: Tensor) -> Tensor:
        terms = soft_target_loss(own_logits, iou)
        if iou_weighted:
            terms = iou * terms
        return torch.where(iou == 0, as_negative(own_logits, negatives), terms)

    return quality_loss(
        pred_logits,
        gt_labels,
        pos_iou,
        own_loss,
        negatives,
        name="varifocal loss",
        eta=eta,
        class_weight=class_weight,
        reduction=reduction,
        across_processes=across_processes,
        backend=backend,
    )


class VarifocalLoss(QualityLoss):
    """Module form of `varifocal_loss`.

    Args:
        alpha, gamma, iou_weighted, detached: see `varifocal_loss`.
        eta, reduction, across_processes, backend: see `varifocal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    _compute = staticmethod(varifocal_loss)

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        detached: bool = False,
        eta: float = 0.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        check_exponents(gamma=gamma)
        check_non_negative(alpha=alpha)
        check_flags(iou_weighted=iou_weighted, detached=detached)
        super().__init__(
            alpha=alpha,
            gamma=gamma,
            iou_weighted=iou_weighted,
            detached=detached,
            eta=eta,
            reduction=reduction,
            across_processes=across_processes,
            backend=backend,
        )
