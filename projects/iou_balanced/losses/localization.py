"""What the localization losses share: Eq. 5-7 of arXiv 1908.05641 on the terms of any box loss.

Shapes: P positives; terms (P, C), C parameters of a box, or (P,) for a loss of whole boxes.
"""

import contextlib
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from .checks import (
    check_exponents,
    check_flags,
    check_non_negative,
    check_pos_iou,
    check_reduction,
    reduce_terms,
    upcast,
)
from .iou_weights import iou_power_sums, iou_ratio_weights, weights_from_sums
from .value_checks import checks_values
from .w_loc import WLocMeasurement

MEASURE_ITERATIONS = 10
MAX_WEIGHT = 20.0


@checks_values()
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
        ValueError: lam is negative or above 100, or `pos_iou` has another shape.
    """
    check_exponents(lam=lam)
    if lam != 0:
        pos_iou = check_pos_iou(pos_iou, len(terms), values=False)
        if normalize:  # Eq. 7
            weights = iou_ratio_weights(
                _of_boxes(terms), pos_iou, lam, across_processes=across_processes
            )
        else:  # Eq. 6 without w_loc
            weights = upcast(pos_iou.detach()) ** lam
        terms = _weigh(terms, weights)
    return terms if weight == 1 else terms * weight


def _of_boxes(terms: Tensor) -> Tensor:
    """(P,) loss of each box, without gradient."""
    return terms.detach().flatten(1).sum(dim=1) if terms.dim() > 1 else terms.detach()


def _weigh(terms: Tensor, weights: Tensor) -> Tensor:
    return terms * weights.to(terms.dtype).reshape(-1, *[1] * (terms.dim() - 1))


class LocalizationLoss(nn.Module):
    """Base of the plain box losses; a subclass gives `terms`.

    Args:
        reduction: "sum", "mean" or "none".

    Raises:
        ValueError: `reduction` is not as above.
    """

    on_boxes = False
    """Whether it is called with decoded boxes, (P, 4) XYXY in pixels, and not with deltas."""

    def __init__(self, *, reduction: str = "sum"):
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    @property
    def needs_pos_iou(self) -> bool:
        """Whether the caller has to decode boxes for `pos_iou`: a plain loss needs none."""
        return False

    def terms(self, pred: Tensor, target: Tensor) -> Tensor:
        """The loss before any weight and reduction.

        Args:
            pred: (P, 4) deltas as the detector encodes them, or boxes where `on_boxes` is true.
            target: (P, 4), what they should be.

        Returns:
            (P, C), or (P,) for a loss of whole boxes.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define terms()")

    @checks_values()
    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """A scalar, or the terms for reduction "none"; see `LocalizationLoss.terms`."""
        return reduce_terms(self.terms(pred, target), self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class IoUBalancedLocalization(LocalizationLoss):
    """Mixin before a `LocalizationLoss`: weighs its terms by the IoU (Eq. 5-7).

    `weight="auto"` measures w_loc, the ratio of the plain to the weighted sum of the loss. The
    paper sets it by hand from the first iteration alone: `measure_iterations=1`. The default is
    the median of the ratio over the first ten iterations with positives, so that one batch of badly
    matched boxes does not decide about the whole run. It is close to the paper's, because the boxes
    hardly learn in the warm-up (on the digits 3.43 to 3.50, where the first iteration has 3.45 to
    3.81). The ratio falls as the boxes learn: a later `measure_from` gives a smaller w_loc.

    Until w_loc is measured, each call keeps its own sum (Eq. 7); then it is fixed. A value above
    `max_weight` is not taken but measured again, and after ten such measurements the loss stays
    Eq. 7, with a warning (see `WLocMeasurement`).

    `resume_state_dict` keeps w_loc and an unfinished measurement for a resumed run; they are no
    part of `state_dict`, so that fine-tuning from a checkpoint measures its own. Micro-batches of
    one iteration are measured as one batch (`whole_batch`); until then, each keeps its own sum.

    Args:
        lam, normalize: see `iou_balanced_terms`.
        weight: the paper's w_loc (Eq. 6), or "auto".
        across_processes: take Eq. 7's sums, and those of "auto", over all processes. Every
            process then has to call the module equally often.
        reduction: "sum", "mean" or "none", of the weighted terms.
        measure_from: iterations (calls) before the measurement of "auto" begins.
        measure_iterations: iterations with positives that it takes; 1 from the start on is the
            paper's way.
        max_weight: the largest w_loc that it may give, at least 1; Table 3 has 1.575 to 3.649.

    Raises:
        ValueError: a value is none of these; "auto" together with Eq. 7; or an argument of the
            measurement without "auto".
    """

    def __init__(
        self,
        *,
        lam: float = 1.5,
        weight: float | Literal["auto"] = 1.0,
        normalize: bool = False,
        reduction: str = "sum",
        across_processes: bool = True,
        measure_from: int = 0,
        measure_iterations: int = MEASURE_ITERATIONS,
        max_weight: float = MAX_WEIGHT,
    ):
        super().__init__(reduction=reduction)
        check_exponents(lam=lam)
        check_flags(normalize=normalize, across_processes=across_processes)
        if not isinstance(weight, numbers.Real) and weight != "auto":
            raise ValueError(
                f"Expected argument `weight` to be a number or 'auto', but got {weight!r}"
            )
        if not isinstance(weight, str):
            check_non_negative(weight=weight)
        elif normalize:
            raise ValueError(
                "Expected argument `weight` to be a number with normalize=True (Eq. 7 keeps the "
                "sum in every iteration, so that there is nothing to measure; with "
                "normalize=False there is), but got 'auto'"
            )
        # Of "auto"; made in any case, because it checks its arguments.
        self._measurement = WLocMeasurement(
            lam=lam, start=measure_from, iterations=measure_iterations, max_weight=max_weight
        )
        given = (measure_from, measure_iterations, max_weight)
        if weight != "auto" and given != (0, MEASURE_ITERATIONS, MAX_WEIGHT):
            raise ValueError(
                "Expected argument `weight` to be 'auto' with measure_from, measure_iterations or "
                f"max_weight, which are about its measurement, but got {weight!r}"
            )
        self.lam, self.weight, self.normalize = lam, weight, normalize
        self.across_processes = across_processes
        if lam == 0:
            self._measurement.value = 1.0  # Table 3; there is nothing to look at

    @property
    def needs_pos_iou(self) -> bool:
        """Whether the caller has to decode boxes for `pos_iou`; lam = 0 weighs by w_loc only."""
        return self.lam != 0

    @property
    def w_loc(self) -> float | None:
        """The weight in force; None where "auto" has measured nothing yet, and Eq. 7 is used."""
        return self._measurement.value if isinstance(self.weight, str) else self.weight

    @checks_values()
    def forward(self, pred: Tensor, target: Tensor, pos_iou: Tensor | None = None) -> Tensor:
        """The weighted loss, a scalar, or its terms for reduction "none".

        Args:
            pred: (P, 4); see `LocalizationLoss.terms`.
            target: (P, 4).
            pos_iou: (P,) IoU of each regressed positive with its ground truth; may be left out
                where lam is 0.

        Raises:
            ValueError: `pos_iou` is needed and None, or has another shape.
        """
        if pos_iou is None and self.needs_pos_iou:
            raise ValueError(f"Expected argument `pos_iou` with lam={self.lam}, but got None")
        terms = self.terms(pred, target)
        weight = self.w_loc
        if weight is None:
            iou_power, sums = iou_power_sums(
                _of_boxes(terms),
                check_pos_iou(pos_iou, len(terms), values=False),
                self.lam,
                across_processes=self.across_processes,
            )
            self._measurement.add(sums)
            weight = self.w_loc
            if weight is None:
                terms = _weigh(terms, weights_from_sums(iou_power, sums))  # Eq. 7
                return reduce_terms(terms, self.reduction)
        terms = iou_balanced_terms(
            terms,
            pos_iou,
            lam=self.lam,
            weight=weight,
            normalize=self.normalize,
            across_processes=self.across_processes,
        )
        return reduce_terms(terms, self.reduction)

    @contextlib.contextmanager
    def whole_batch(self) -> Iterator[None]:
        """The calls within are for micro-batches of one iteration, which "auto" measures as one."""
        with contextlib.ExitStack() as stack:
            if self.weight == "auto":
                stack.enter_context(self._measurement.whole_batch())
            yield

    def resume_state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of "auto": w_loc and what was measured for it (None before)."""
        if self.weight != "auto":
            return {}
        return {"measured_weight": self.w_loc, "measurement": self._measurement.state_dict()}

    def load_resume_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the w_loc of the interrupted run, or go on measuring where it broke off.

        Args:
            state: a `resume_state_dict`.
        """
        if self.weight == "auto":
            self._measurement.value = state.get("measured_weight")
            self._measurement.load_state_dict(state.get("measurement"))

    def extra_repr(self) -> str:
        text = (
            f"lam={self.lam}, weight={self.weight!r}, normalize={self.normalize}, "
            f"{super().extra_repr()}, across_processes={self.across_processes}"
        )
        if self.weight != "auto":
            return text
        m = self._measurement
        return (
            f"{text}, measure_from={m.start}, measure_iterations={m.iterations}, "
            f"max_weight={m.max_weight}"
        )
