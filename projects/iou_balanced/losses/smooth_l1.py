"""Smooth L1 loss and its IoU-balanced form (arXiv 1908.05641, Eq. 2, 5-7).

Shapes: P positives; deltas (P, 4) as the detector encodes them.
"""

import logging
import numbers

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_non_negative, check_pos_iou, check_reduction, reduce_terms, upcast
from .iou_weights import iou_ratio_weights, iou_sum_ratio

logger = logging.getLogger(__name__)


def _elementwise(pred_deltas: Tensor, gt_deltas: Tensor, beta: float) -> Tensor:
    check_non_negative(beta=beta)
    if pred_deltas.shape != gt_deltas.shape or pred_deltas.dim() != 2:
        raise ValueError(
            "Expected arguments `pred_deltas` and `gt_deltas` of the same shape (P, 4), "
            f"but got {tuple(pred_deltas.shape)} and {tuple(gt_deltas.shape)}"
        )
    # Eq. 2 with delta = beta; its limit at 0 is L1, which torch computes for beta = 0.
    return F.smooth_l1_loss(upcast(pred_deltas), upcast(gt_deltas), reduction="none", beta=beta)


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
        pred_deltas, gt_deltas: (P, 4), any float dtype; computed in float32 (float64 for
            float64).
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
    check_non_negative(lam=lam)
    terms = _elementwise(pred_deltas, gt_deltas, beta)
    if lam != 0:
        check_pos_iou(pos_iou, len(terms))
        # The weights carry no gradient.
        if normalize:  # Eq. 7
            weights = iou_ratio_weights(
                terms.detach().sum(dim=1), pos_iou, lam, across_processes=across_processes
            )
        else:  # Eq. 6 without w_loc
            weights = upcast(pos_iou.detach()) ** lam
        terms = terms * weights.to(terms.dtype)[:, None]
    return reduce_terms(terms if weight == 1 else terms * weight, reduction)


class SmoothL1Loss(nn.Module):
    """Smooth L1 loss summed over positives (Eq. 2); beta = 0 is the L1 loss of stock RetinaNet."""

    needs_pos_iou = False

    def __init__(self, *, beta: float = 0.0, reduction: str = "sum"):
        super().__init__()
        check_reduction(reduction)
        check_non_negative(beta=beta)
        self.beta, self.reduction = beta, reduction

    def forward(self, pred_deltas: Tensor, gt_deltas: Tensor) -> Tensor:
        """Deltas (P, 4) to a scalar, or (P, 4) for reduction "none"."""
        return reduce_terms(_elementwise(pred_deltas, gt_deltas, self.beta), self.reduction)

    def extra_repr(self) -> str:
        return f"beta={self.beta:.6g}, reduction={self.reduction!r}"


class IoUBalancedSmoothL1Loss(nn.Module):
    """Module form of `iou_balanced_smooth_l1_loss`, Eq. 5-7 of arXiv 1908.05641.

    `weight="auto"` measures w_loc as the paper sets it by hand: the ratio of the plain to the
    weighted sum at the first call that has positives, over all processes. It is then fixed, and
    kept for a resumed run by `resume_state_dict`; it is no part of `state_dict`, so that
    fine-tuning from a checkpoint measures its own.

    Args:
        lam, weight, beta, normalize, reduction: see the function; `weight` may be "auto".
        across_processes: take Eq. 7's sums, and those of "auto", over all processes. Every
            process then has to call the module equally often.
    """

    def __init__(
        self,
        *,
        lam: float = 1.5,
        weight: float | str = 1.0,
        beta: float = 1 / 9,
        normalize: bool = False,
        reduction: str = "sum",
        across_processes: bool = True,
    ):
        super().__init__()
        check_reduction(reduction)
        check_non_negative(lam=lam, beta=beta)
        if not isinstance(weight, numbers.Real) and weight != "auto":
            raise ValueError(
                f"Expected argument `weight` to be a number or 'auto', but got {weight!r}"
            )
        if weight != "auto":
            check_non_negative(weight=weight)
        elif normalize:
            raise ValueError(
                "Expected argument `weight` to be a number with normalize=True (Eq. 7 keeps the "
                "sum in every iteration, so that there is nothing to measure), but got 'auto'"
            )
        self.lam, self.weight, self.beta = lam, weight, beta
        self.normalize, self.reduction = normalize, reduction
        self.across_processes = across_processes
        self.measured_weight: float | None = None

    @property
    def needs_pos_iou(self) -> bool:
        """Whether the caller has to decode boxes for `pos_iou`; lam = 0 weighs by w_loc only."""
        return self.lam != 0

    @property
    def w_loc(self) -> float | None:
        """The weight in force; None where "auto" has measured nothing yet."""
        return self.measured_weight if self.weight == "auto" else self.weight

    def forward(
        self, pred_deltas: Tensor, gt_deltas: Tensor, pos_iou: Tensor | None = None
    ) -> Tensor:
        """See `iou_balanced_smooth_l1_loss`; `pos_iou` may be left out where lam is 0."""
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with lam={self.lam}, but got None")
        if self.w_loc is None:
            self._measure(pred_deltas, gt_deltas, pos_iou)
        return iou_balanced_smooth_l1_loss(
            pred_deltas,
            gt_deltas,
            pos_iou,
            lam=self.lam,
            # Where nothing could be measured, every weighted term is 0, whatever the weight.
            weight=1.0 if self.w_loc is None else self.w_loc,
            beta=self.beta,
            normalize=self.normalize,
            reduction=self.reduction,
            across_processes=self.across_processes,
        )

    @torch.no_grad()
    def _measure(self, pred_deltas: Tensor, gt_deltas: Tensor, pos_iou: Tensor | None) -> None:
        if self.lam == 0:
            self.measured_weight = 1.0
            return
        check_pos_iou(pos_iou, len(pred_deltas))
        terms = _elementwise(pred_deltas, gt_deltas, self.beta).sum(dim=1)
        self.measured_weight = iou_sum_ratio(
            terms, pos_iou, self.lam, across_processes=self.across_processes
        )
        if self.measured_weight is not None:
            # A warning, because half of the users' trainers show nothing less of this package.
            logger.warning(
                "w_loc = %.4f keeps the sum of the localization loss at its first iteration "
                "(lam = %g); it stays fixed from here on",
                self.measured_weight,
                self.lam,
            )

    def resume_state_dict(self) -> dict:
        """What a resumed run needs: the measured w_loc."""
        return {"measured_weight": self.measured_weight}

    def load_resume_state_dict(self, state: dict) -> None:
        """Take over the w_loc that the interrupted run had measured."""
        self.measured_weight = state["measured_weight"]

    def extra_repr(self) -> str:
        return (
            f"lam={self.lam}, weight={self.weight!r}, beta={self.beta:.6g}, "
            f"normalize={self.normalize}, reduction={self.reduction!r}, "
            f"across_processes={self.across_processes}"
        )
