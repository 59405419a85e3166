"""Soft targets of task alignment learning (TOOD, arXiv 2108.07755, Eq. 1-3), without its assigner.

Shapes: K foreground classes, P positives; logits (..., K), labels (...,).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_exponents
from .class_tables import ClassWeights
from .fused.elements import own_quality
from .fused.graphs import own_graph
from .fused.negatives import Negatives
from .quality import QualityLoss, quality_loss
from .value_checks import checks_values

EPS = 1e-7
"""Beside the largest metric of an object, which it is divided by; the authors' number."""


@checks_values()
@own_graph
def task_aligned_bce_loss(
    pred_logits: Tensor | Sequence[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    *,
    pos_object: Tensor | None,
    alpha: float = 1.0,
    beta: float = 6.0,
    gamma: float = 2.0,
    eta: float = 0.0,
    class_weight: Tensor | ClassWeights | None = None,
    reduction: str = "sum",
    across_processes: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Task-aligned BCE: of an object's positives, the best aligned one learns the largest IoU.

    With s = sigmoid(logit) and the IoU u, Eq. 1: t = s^alpha u^beta of each positive. Of each
    object, t is scaled so that its largest value is the largest IoU among the object's positives:
    t-hat. Eq. 3: a positive's own element costs |t-hat - s|^gamma BCE(s, t-hat), every other one
    s^gamma BCE(s, 0).

    Gradient flows through |t-hat - s|^gamma, s^gamma and both BCE, as in the authors' code; t-hat
    is a constant, its s included. The paper chooses positives by t too, and weighs the box loss by
    t-hat, after some epochs of focal loss; here positives are the detector's own, from the start.
    The authors divide the sum by that of t-hat; a detector here divides by the positives' number,
    which is larger.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a feature level; see `sigmoid_focal_loss`.
        gt_labels: (...,), or (N, R) for a list; see `sigmoid_focal_loss`.
        pos_iou: (P,) IoU u of each regressed positive with its ground truth, in [0, 1], in the
            order of `gt_labels[(gt_labels >= 0) & (gt_labels < K)]`.
        pos_object: (P,) integers, of the same order: positives of one object have the same
            number, those of others, also in other images, another one.
        alpha: exponent of the score in t, in [0, 100].
        beta: exponent of the IoU in t, in [0, 100].
        gamma: focusing exponent, in [0, 100].
        eta: see `varifocal_loss`.
        class_weight: see `sigmoid_focal_loss`.
        reduction: see `sigmoid_focal_loss`.
        across_processes: see `varifocal_loss`. An object is in one process anyway.
        backend: see `sigmoid_focal_loss`.

    Raises:
        ValueError: an argument is not as above; values of `pos_iou` are looked at on a CPU, and
            on a GPU with debugging on.
    """
    check_exponents(alpha=alpha, beta=beta, gamma=gamma)

    def own_loss(own_logits: Tensor, iou: Tensor) -> Tensor:
        index = _check_objects(pos_object, len(iou))
        metric = own_logits.detach().sigmoid() ** alpha * iou**beta  # Eq. 1
        target = metric / (_largest_of_object(metric, index) + EPS)
        return own_quality(own_logits, target * _largest_of_object(iou, index), gamma)  # Eq. 3

    return quality_loss(
        pred_logits,
        gt_labels,
        pos_iou,
        own_loss,
        Negatives(gamma),
        name="task-aligned BCE",
        eta=eta,
        class_weight=class_weight,
        reduction=reduction,
        across_processes=across_processes,
        backend=backend,
    )


def _check_objects(pos_object: Tensor | None, num_positives: int) -> Tensor:
    """Return `pos_object`, which has to be (P,) integers.

    Raises:
        ValueError: it is None, of another shape, or of another dtype.
    """
    if pos_object is None or tuple(pos_object.shape) != (num_positives,):
        got = None if pos_object is None else tuple(pos_object.shape)
        raise ValueError(
            "Expected argument `pos_object` to have the object of each positive, "
            f"shape ({num_positives},), but got {got}"
        )
    if pos_object.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            "Expected argument `pos_object` to hold numbers of objects of dtype int64 or int32, "
            f"but got dtype {pos_object.dtype}"
        )
    return pos_object


def _largest_of_object(values: Tensor, pos_object: Tensor) -> Tensor:
    """(P,) the largest of the non-negative `values` (P,) among the positives of the same object."""
    # Any numbers -> 0, 1, ..., without asking a GPU how many objects there are.
    order = pos_object.argsort(stable=True)
    ordered = pos_object[order]
    is_next = torch.zeros_like(order)
    is_next[1:] = ordered[1:] != ordered[:-1]
    index = torch.empty_like(order).scatter_(0, order, is_next.cumsum(0))
    return torch.zeros_like(values).scatter_reduce(0, index, values, "amax")[index]


class TaskAlignedBCELoss(QualityLoss):
    """Module form of `task_aligned_bce_loss`.

    Args:
        alpha, beta, gamma: see `task_aligned_bce_loss`.
        eta, reduction, across_processes, backend: see `task_aligned_bce_loss`.

    Raises:
        ValueError: a value is not as there.
    """

    needs_pos_object = True

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 6.0,
        gamma: float = 2.0,
        eta: float = 0.0,
        reduction: str = "sum",
        across_processes: bool = True,
        backend: str | None = None,
    ):
        check_exponents(alpha=alpha, beta=beta, gamma=gamma)
        super().__init__(
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            eta=eta,
            reduction=reduction,
            across_processes=across_processes,
            backend=backend,
        )

    def forward(  # type: ignore[override]
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None,
        *,
        pos_object: Tensor | None,
        class_weight: Tensor | ClassWeights | None = None,
    ) -> Tensor:
        """See `task_aligned_bce_loss`."""
        return task_aligned_bce_loss(
            pred_logits,
            gt_labels,
            pos_iou,
            pos_object=pos_object,
            class_weight=class_weight,
            **self.arguments(),
        )
