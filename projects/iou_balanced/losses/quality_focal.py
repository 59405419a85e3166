"""Quality focal loss (Generalized focal loss, arXiv 2006.04388, Eq. 4).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from .checks import check_exponents, check_pos_iou, check_reduction
from .class_tables import ClassWeights
from .focal_parts import reduce_parts, tables_for
from .levels import count_positives, split_levels
from .value_checks import checks_values


@checks_values()
def quality_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    beta: float = 2.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
) -> Tensor:
    """Quality focal loss: the classifier learns the IoU of the box that it scores.

    Each element has |y - sigma|^beta times the binary cross entropy of sigma = sigmoid(logit)
    with y, which is the positive's IoU in its own class column and 0 everywhere else. Unlike a
    weight, |y - sigma|^beta passes the gradient on to sigma; none flows into y. There is no alpha.
    With every IoU 1 it is `sigmoid_focal_loss` with gamma = beta and no alpha.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in the order of
            `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        beta: focusing exponent, in [0, 100]; 2 in the paper.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`; or `pos_iou` is not (P,), or beta is not as above.
    """
    check_reduction(reduction)
    check_exponents(beta=beta)
    parts = split_levels(pred_logits, gt_labels)
    pos_iou = check_pos_iou(pos_iou, count_positives(parts))
    tables = tables_for(class_weight, parts[0].logits)
    # No alpha, and the target is a constant.
    return reduce_parts(parts, tables, -1.0, beta, reduction, pos_target=pos_iou.detach())


class QualityFocalLoss(nn.Module):
    """Module form of `quality_focal_loss`.

    Args:
        beta, reduction: see `quality_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = True
    takes_levels = True

    def __init__(self, *, beta: float = 2.0, reduction: str = "sum"):
        super().__init__()
        check_reduction(reduction)
        check_exponents(beta=beta)
        self.beta, self.reduction = beta, reduction

    def forward(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None,
        *,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """See `quality_focal_loss`."""
        return quality_focal_loss(
            pred_logits,
            gt_labels,
            pos_iou,
            beta=self.beta,
            class_weight=class_weight,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"beta={self.beta}, reduction={self.reduction!r}"
