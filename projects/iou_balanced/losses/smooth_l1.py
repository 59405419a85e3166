"""Smooth L1 loss and its IoU-balanced form (arXiv 1908.05641, Eq. 2, 5-7).

Shapes: P positives; deltas (P, 4) as the detector encodes them.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from .checks import check_non_negative, check_reduction, reduce_terms, upcast
from .localization import (
    MAX_WEIGHT,
    MEASURE_ITERATIONS,
    IoUBalancedLocalization,
    LocalizationLoss,
    iou_balanced_terms,
)
from .value_checks import checks_values


def _elementwise(pred_deltas: Tensor, gt_deltas: Tensor, beta: float) -> Tensor:
    """(P, 4) smooth L1, Eq. 2.

    Raises:
        ValueError: the shapes are not the same (P, 4), or beta is negative.
    """
    check_non_negative(beta=beta)
    if pred_deltas.shape != gt_deltas.shape or pred_deltas.dim() != 2:
        raise ValueError(
            "Expected arguments `pred_deltas` and `gt_deltas` of the same shape (P, 4), "
            f"but got {tuple(pred_deltas.shape)} and {tuple(gt_deltas.shape)}"
        )
    # Eq. 2 with delta = beta; its limit at 0 is L1, which torch computes for beta = 0.
    return F.smooth_l1_loss(upcast(pred_deltas), upcast(gt_deltas), reduction="none", beta=beta)


@checks_values()
def iou_balanced_smooth_l1_loss(
    pred_deltas: Tensor,
    gt_deltas: Tensor,
    pos_iou: Tensor | None,
    *,
    lam: float = 1.5,
    weight: float = 1.0,
    beta: float = 1 / 9,
    normalize: bool = False,
    reduction: str = "sum",
    across_processes: bool = False,
) -> Tensor:
    """IoU-balanced localization loss, Eq. 5-6 of arXiv 1908.05641, or Eq. 7 with `normalize`.

    Each positive's smooth L1 terms are multiplied by w_loc * iou^lam. No gradient flows through
    the weight (the paper's constraint above Eq. 8).

    Args:
        pred_deltas: (P, 4), any float dtype; computed in float32 (float64 for float64).
        gt_deltas: (P, 4), what they should be.
        pos_iou: (P,) IoU of each regressed positive with its ground truth.
        lam: the paper's lambda, at least 0; 1.5 in the paper (Table 3).
        weight: the paper's w_loc (Eq. 6); 3.049 for RetinaNet R50 and lam = 1.5 (Table 3).
        beta: where the square goes over into the line, the paper's delta; 0 is L1.
        normalize: Eq. 7: the sum of the loss stays that of plain smooth L1 (times `weight`).
            The paper found this slightly inferior to a fixed w_loc.
        reduction: "sum"; "mean" divides by the P * 4 elements; "none" gives (P, 4).
        across_processes: take Eq. 7's two sums over the positives of all processes.

    Raises:
        ValueError: a shape, lam, beta or `reduction` is not as above.
    """
    check_reduction(reduction)
    terms = iou_balanced_terms(
        _elementwise(pred_deltas, gt_deltas, beta),
        pos_iou,
        lam=lam,
        weight=weight,
        normalize=normalize,
        across_processes=across_processes,
    )
    return reduce_terms(terms, reduction)


class SmoothL1Loss(LocalizationLoss):
    """Smooth L1 loss summed over positives (Eq. 2); beta = 0 is the L1 loss of stock RetinaNet.

    Called with deltas (P, 4); returns a scalar, or (P, 4) for reduction "none".

    Args:
        beta: where the square goes over into the line, the paper's delta.
        reduction: "sum", "mean" or "none".

    Raises:
        ValueError: beta is negative, or `reduction` not as above.
    """

    def __init__(self, *, beta: float = 0.0, reduction: str = "sum"):
        super().__init__(reduction=reduction)
        check_non_negative(beta=beta)
        self.beta = beta

    def terms(self, pred_deltas: Tensor, gt_deltas: Tensor) -> Tensor:
        """(P, 4) terms of deltas (P, 4); see `iou_balanced_smooth_l1_loss`."""
        return _elementwise(pred_deltas, gt_deltas, self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta:.6g}, {super().extra_repr()}"


class IoUBalancedSmoothL1Loss(IoUBalancedLocalization, SmoothL1Loss):
    """Module form of `iou_balanced_smooth_l1_loss`, Eq. 5-7 of arXiv 1908.05641.

    Args:
        lam, beta, normalize, reduction: see the function.
        weight: the paper's w_loc, or "auto", which measures it over the first iterations.
        across_processes, measure_from, measure_iterations, max_weight: see
            `IoUBalancedLocalization`.

    Raises:
        ValueError: as `IoUBalancedLocalization`, or beta is negative.
    """

    def __init__(
        self,
        *,
        lam: float = 1.5,
        weight: float | Literal["auto"] = 1.0,
        beta: float = 1 / 9,
        normalize: bool = False,
        reduction: str = "sum",
        across_processes: bool = True,
        measure_from: int = 0,
        measure_iterations: int = MEASURE_ITERATIONS,
        max_weight: float = MAX_WEIGHT,
    ):
        super().__init__(
            lam=lam,
            weight=weight,
            normalize=normalize,
            reduction=reduction,
            across_processes=across_processes,
            measure_from=measure_from,
            measure_iterations=measure_iterations,
            max_weight=max_weight,
        )
        check_non_negative(beta=beta)
        self.beta = beta
