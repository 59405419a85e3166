"""Matchability-aware loss of DEIM (arXiv 2412.04234, Eq. 3).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

from torch import Tensor

from .checks import check_exponents, check_flags, check_non_negative
from .class_tables import ClassWeights
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .quality import QualityLoss, quality_loss, soft_target_loss
from .value_checks import checks_values


@checks_values()
@own_graph
def matchability_aware_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    gamma: float = 1.5,
    alpha: float = 1.0,
    detached: bool = True,
    eta: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Matchability-aware loss (MAL): varifocal loss with the target q^gamma, without the factor q.

    With p = sigmoid(logit): a positive's own element costs BCE(p, q^gamma), every other one
    alpha p^gamma BCE(p, 0). Poor boxes keep a full weight, unlike in varifocal loss.

    Gradient flows through both BCE. The authors' code takes p^gamma as a constant, and so does the
    default here; `detached=False` differentiates it, as Eq. 3 reads. None flows through q.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU q of each regressed positive with its ground truth, in [0, 1], in the
            order of `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        gamma: exponent of the target and of the negatives' focusing, in [0, 100].
        alpha: weight of the negatives, at least 0; the paper has none (the code's `mal_alpha`).
        detached: whether p^gamma is a constant to the gradient.
        eta: see `varifocal_loss`.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        across_processes: see `varifocal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: an argument is not as above; values of `pos_iou` are looked at on a CPU, and
            on a GPU with debugging on.
    """
    check_exponents(gamma=gamma)
    check_non_negative(alpha=alpha)
    check_flags(detached=detached)
    return quality_loss(
        pred_logits,
        gt_labels,
        pos_iou,
        lambda own_logits, iou: soft_target_loss(own_logits, iou**gamma),
        Negatives(gamma, alpha, detached),
        name="matchability-aware loss",
        eta=eta,
        class_weight=class_weight,
        reduction=reduction,
        across_processes=across_processes,
        backend=backend,
    )


class MatchabilityAwareLoss(QualityLoss):
    """Module form of `matchability_aware_loss`.

    Args:
        gamma, alpha, detached: see `matchability_aware_loss`.
        eta, reduction, across_processes, backend: see `matchability_aware_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    _compute = staticmethod(matchability_aware_loss)

    def __init__(
        self,
        *,
        gamma: float = 1.5,
        alpha: float = 1.0,
        detached: bool = True,
        eta: float = 0.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        check_exponents(gamma=gamma)
        check_non_negative(alpha=alpha)
        check_flags(detached=detached)
        super().__init__(
            gamma=gamma,
            alpha=alpha,
            detached=detached,
            eta=eta,
            reduction=reduction,
            across_processes=across_processes,
            backend=backend,
        )
