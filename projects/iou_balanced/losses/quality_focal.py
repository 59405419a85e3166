"""Quality focal loss (Generalized focal loss, arXiv 2006.04388, Eq. 2).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

from torch import Tensor

from .checks import check_exponents
from .class_tables import ClassWeights
from .fused.elements import own_quality
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .quality import QualityLoss, quality_loss
from .value_checks import checks_values


@checks_values()
@own_graph
def quality_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    beta: float = 2.0,
    eta: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Quality focal loss: the classifier learns the IoU of the box that it scores.

    Each element has |y - sigma|^beta times the binary cross entropy of sigma = sigmoid(logit)
    with y, which is the positive's IoU in its own class column and 0 everywhere else. Unlike a
    weight, |y - sigma|^beta passes the gradient on to sigma; none flows into y. There is no alpha.
    With every IoU 1 it is `sigmoid_focal_loss` with gamma = beta and no alpha.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in [0, 1], in the
            order of `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        beta: focusing exponent, in [0, 100]; 2 in the paper.
        eta: see `varifocal_loss`.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        across_processes: see `varifocal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: an argument is not as above; values of `pos_iou` are looked at on a CPU, and
            on a GPU with debugging on.
    """
    check_exponents(beta=beta)
    return quality_loss(
        pred_logits,
        gt_labels,
        pos_iou,
        lambda own_logits, iou: own_quality(own_logits, iou, beta),
        Negatives(beta),
        name="quality focal loss",
        eta=eta,
        class_weight=class_weight,
        reduction=reduction,
        across_processes=across_processes,
        backend=backend,
    )


class QualityFocalLoss(QualityLoss):
    """Module form of `quality_focal_loss`.

    Args:
        beta, eta, reduction, across_processes, backend: see `quality_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    _compute = staticmethod(quality_focal_loss)

    def __init__(
        self,
        *,
        beta: float = 2.0,
        eta: float = 0.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        check_exponents(beta=beta)
        super().__init__(
            beta=beta,
            eta=eta,
            reduction=reduction,
            across_processes=across_processes,
            backend=backend,
        )
