"""IoU-aware binary cross entropy of Align-DETR (arXiv 2304.07527, version 1).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

from torch import Tensor

from .checks import check_exponents, check_flags, check_fraction
from .class_tables import ClassWeights
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .quality import QualityLoss, quality_loss, soft_target_loss
from .value_checks import checks_values


@checks_values()
@own_graph
def iou_aware_bce_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    least_target: float = 0.01,
    detached: bool = False,
    eta: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    backend: str | None = None,
) -> Tensor:
    """IoU-aware BCE (IA-BCE): the target of a positive is a mean of its own score and its IoU q.

    With p = sigmoid(logit): a positive's own element costs BCE(p, t), t = p^alpha q^(1 - alpha),
    every other one p^gamma BCE(p, 0). The paper's weights by rank among the several matches of an
    object belong to its matching, and are not here.

    Gradient flows through both BCE and through p^gamma, as in the authors' code and those of
    LW-DETR and RF-DETR; t is a constant, its p included, and is at least `least_target`. With
    `detached` p^gamma is a constant too, as RT-DETR has it in varifocal loss.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU q of each regressed positive with its ground truth, in [0, 1], in the
            order of `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        alpha: share of the score in the target, in [0, 1].
        gamma: focusing exponent of the negatives, in [0, 100].
        least_target: lower bound of t, in [0, 1].
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
    check_fraction(alpha=alpha, least_target=least_target)
    check_flags(detached=detached)

    def own_loss(own_logits: Tensor, iou: Tensor) -> Tensor:
        target = own_logits.detach().sigmoid() ** alpha * iou ** (1 - alpha)
        return soft_target_loss(own_logits, target.clamp(min=least_target))

    return quality_loss(
        pred_logits,
        gt_labels,
        pos_iou,
        own_loss,
        Negatives(gamma, 1.0, detached),
        name="IoU-aware BCE",
        eta=eta,
        class_weight=class_weight,
        reduction=reduction,
        across_processes=across_processes,
        backend=backend,
    )


class IoUAwareBCELoss(QualityLoss):
    """Module form of `iou_aware_bce_loss`.

    Args:
        alpha, gamma, least_target, detached: see `iou_aware_bce_loss`.
        eta, reduction, across_processes, backend: see `iou_aware_bce_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    _compute = staticmethod(iou_aware_bce_loss)

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        least_target: float = 0.01,
        detached: bool = False,
        eta: float = 0.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        check_exponents(gamma=gamma)
        check_fraction(alpha=alpha, least_target=least_target)
        check_flags(detached=detached)
        super().__init__(
            alpha=alpha,
            gamma=gamma,
            least_target=least_target,
            detached=detached,
            eta=eta,
            reduction=reduction,
            across_processes=across_processes,
            backend=backend,
        )
