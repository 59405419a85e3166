"""What the localization losses share: Eq. 5-7 of arXiv 1908.05641 on the terms of any box loss.

Shapes: P positives; terms (P, C), C parameters of a box, or (P,) for a loss of whole boxes.
"""

import logging
import numbers

import torch
from torch import Tensor, nn

from .checks import check_non_negative, check_pos_iou, check_reduction, reduce_terms, upcast
from .iou_weights import iou_ratio_weights, iou_sum_ratio

logger = logging.getLogger(__name__)

# Table 3 has 1.575 to 3.649.
_LARGEST_USUAL_WEIGHT = 20.0


def iou_balanced_terms(
    terms: Tensor,
    pos_iou: Tensor | None,
    *,
    lam: float = 1.5,
    weight: float = 1.0,
    normalize: bool = False,
    across_processes: bool = False,
) -> Tensor:
    """Multiply each positive's terms by w_loc * iou^lam (Eq. 6), or as Eq. 7 with `normalize`.

    No gradient flows through the weight (the paper's constraint above Eq. 8).

    Args:
        terms: (P, ...) unreduced loss, float32 or float64, at least 0.
        pos_iou: (P,) IoU of each regressed positive with its ground truth.
        lam: the paper's lambda, at least 0.
        weight: the paper's w_loc.
        normalize: Eq. 7: the sum of the terms stays what it was (times `weight`).
        across_processes: take Eq. 7's two sums over the positives of all processes.

    Raises:
        ValueError: lam is negative, or `pos_iou` has another shape.
    """
    check_non_negative(lam=lam)
    if lam != 0:
        check_pos_iou(pos_iou, len(terms))
        if normalize:  # Eq. 7
            weights = iou_ratio_weights(
                terms.detach().flatten(1).sum(dim=1) if terms.dim() > 1 else terms.detach(),
                pos_iou,
                lam,
                across_processes=across_processes,
            )
        else:  # Eq. 6 without w_loc
            weights = upcast(pos_iou.detach()) ** lam
        terms = terms * weights.to(terms.dtype).reshape(-1, *[1] * (terms.dim() - 1))
    return terms if weight == 1 else terms * weight


class LocalizationLoss(nn.Module):
    """Base of the plain box losses; a subclass gives `terms`."""

    needs_pos_iou = False
    on_boxes = False
    """Whether it is called with decoded boxes, (P, 4) XYXY in pixels, and not with deltas."""

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def terms(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss before any weight and reduction: (P, C), or (P,)."""
        raise NotImplementedError(f"{type(self).__name__} has to define terms()")

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Predictions and targets (P, 4) to a scalar, or to the terms for reduction "none"."""
        return reduce_terms(self.terms(pred, target), self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class IoUBalancedLocalization(nn.Module):
    """Mixin before a `LocalizationLoss`: weighs its terms by the IoU (Eq. 5-7).

    `weight="auto"` measures w_loc as the paper sets it by hand: the ratio of the plain to the
    weighted sum at the first call that has positives, over all processes. It is then fixed, and
    kept for a resumed run by `resume_state_dict`; it is no part of `state_dict`, so that
    fine-tuning from a checkpoint measures its own.

    Args:
        lam, normalize: see `iou_balanced_terms`.
        weight: the paper's w_loc (Eq. 6), or "auto".
        across_processes: take Eq. 7's sums, and those of "auto", over all processes. Every
            process then has to call the module equally often.
        reduction: "sum", "mean" or "none", of the weighted terms.

    Raises:
        ValueError: a value is none of these, or "auto" together with Eq. 7.
    """

    def __init__(
        self,
        *,
        lam: float = 1.5,
        weight: float | str = 1.0,
        normalize: bool = False,
        reduction: str = "sum",
        across_processes: bool = True,
    ):
        super().__init__(reduction=reduction)
        check_non_negative(lam=lam)
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
        self.lam, self.weight, self.normalize = lam, weight, normalize
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

    def forward(self, pred: Tensor, target: Tensor, pos_iou: Tensor | None = None) -> Tensor:
        """See `iou_balanced_terms`; `pos_iou` may be left out where lam is 0."""
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with lam={self.lam}, but got None")
        terms = self.terms(pred, target)
        if self.w_loc is None:
            self._measure(terms.detach(), pos_iou)
        terms = iou_balanced_terms(
            terms,
            pos_iou,
            lam=self.lam,
            # Where nothing could be measured, every weighted term is 0, whatever the weight.
            weight=1.0 if self.w_loc is None else self.w_loc,
            normalize=self.normalize,
            across_processes=self.across_processes,
        )
        return reduce_terms(terms, self.reduction)

    @torch.no_grad()
    def _measure(self, terms: Tensor, pos_iou: Tensor | None) -> None:
        if self.lam == 0:
            self.measured_weight = 1.0
            return
        check_pos_iou(pos_iou, len(terms))
        terms = terms.sum(dim=1) if terms.dim() > 1 else terms
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
            if self.measured_weight > _LARGEST_USUAL_WEIGHT:
                logger.warning(
                    "The boxes of the first iteration hardly overlap their objects, so that this "
                    "w_loc will be far too large once they do: give a number (the paper's are "
                    "1.6 to 3.6), or normalize=True with weight=1 (Eq. 7)"
                )

    def resume_state_dict(self) -> dict:
        """What a resumed run needs: the measured w_loc (None before that); {} where it is given."""
        return {"measured_weight": self.measured_weight} if self.weight == "auto" else {}

    def load_resume_state_dict(self, state: dict) -> None:
        """Take over the w_loc that the interrupted run had measured."""
        self.measured_weight = state.get("measured_weight")

    def extra_repr(self) -> str:
        return (
            f"lam={self.lam}, weight={self.weight!r}, normalize={self.normalize}, "
            f"{super().extra_repr()}, across_processes={self.across_processes}"
        )
