"""Quality focal loss (Generalized focal loss, arXiv 2006.04388, Eq. 4).

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checks import check_exponents, check_pos_iou, check_reduction
from .class_tables import ClassWeights
from .fused.backends import check_backend
from .fused.elements import own_quality
from .fused.negatives import Negatives
from .sigmoid_scores import RowScores


@torch.compiler.disable  # a graph of its own
def quality_focal_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    beta: float = 2.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
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
        pos_iou: (P,) IoU of each regressed positive with its ground truth, in the order of
            `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        beta: focusing exponent, in [0, 100]; 2 in the paper.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: as `sigmoid_focal_loss`; or `pos_iou` is not (P,), or beta is not as above.
    """
    check_reduction(reduction)
    check_exponents(beta=beta)
    num_positives = None if pos_iou is None or pos_iou.dim() != 1 else len(pos_iou)
    scores = RowScores(
        pred_logits, gt_labels, class_weight, num_positives=num_positives, backend=backend
    )
    target = check_pos_iou(pos_iou, scores.num_positives).detach()  # a constant
    rest, own_logits = scores.split(Negatives(beta), reduction)
    terms = own_quality(own_logits, target.to(own_logits.dtype), beta)
    return scores.reduce(rest, terms * scores.own_weights(terms.dtype), reduction)


class QualityFocalLoss(nn.Module):
    """Module form of `quality_focal_loss`.

    Args:
        beta, reduction, backend: see `quality_focal_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_iou = True
    takes_levels = True

    def __init__(self, *, beta: float = 2.0, reduction: str = "sum", backend: str | None = None):
        super().__init__()
        check_reduction(reduction)
        check_backend(backend)
        check_exponents(beta=beta)
        self.beta, self.reduction, self.backend = beta, reduction, backend

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
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"beta={self.beta}, reduction={self.reduction!r}"
