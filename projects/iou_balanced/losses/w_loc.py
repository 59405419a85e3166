"""Measures w_loc of Eq. 6 (arXiv 1908.05641) while a training runs, for `weight="auto"`."""

import contextlib
import logging
import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .checks import check_counts, check_non_negative

logger = logging.getLogger(__name__)

FAILED_WINDOWS = 10
"""After so many windows without a usable value there will be no w_loc."""


class WLocMeasurement:
    """The median over a window of iterations of sum(terms) / sum(iou^lam * terms).

    The median, because one batch of tiny or badly matched boxes has a ratio of any size, and may
    have most of the loss in a sum over several. With `iterations=1` and `start=0` it is what
    the paper sets by hand: the ratio at the first iteration.

    A median above `max_weight` is not taken: the boxes hardly overlap their objects, and the
    weight would be far too large once they do. The next window is measured then. After
    `FAILED_WINDOWS` of them `value` stays None for good.

    Args:
        lam: lambda of Eq. 6, for the messages.
        start: iterations that pass before the first window.
        iterations: of a window. An iteration without positives, or whose loss is not finite, does
            not count.
        max_weight: the largest w_loc.

    Raises:
        ValueError: a value is not as above.
    """

    def __init__(self, *, lam: float, start: int, iterations: int, max_weight: float):
        check_counts(least=0, measure_from=start)
        check_counts(least=1, measure_iterations=iterations)
        check_non_negative(max_weight=max_weight)
        if max_weight < 1:
            raise ValueError(
                "Expected argument `max_weight` to be at least 1, because w_loc is never less, "
                f"but got {max_weight!r}"
            )
        self.lam, self.start, self.iterations = lam, start, iterations
        self.max_weight = max_weight
        self.value: float | None = None
        self._passed = 0
        self._ratios: list[float] = []
        self._failed = 0
        # Sums of the parts of a batch that has not ended.
        self._parts: list[tuple[float, float]] | None = None

    def add(self, sums: Tensor) -> None:
        """Take in one call of the loss: an iteration, or within `whole_batch` a part of one.

        A GPU is waited for while a window is open, and neither before nor after.

        Args:
            sums: (2,) of the terms and of iou^lam times the terms, over all processes.
        """
        if self.value is not None or self._failed >= FAILED_WINDOWS:
            return
        total, weighted = sums.tolist() if self._passed >= self.start else (0.0, 0.0)
        if self._parts is None:
            self._end_iteration(total, weighted)
        else:
            self._parts.append((total, weighted))

    @contextlib.contextmanager
    def whole_batch(self) -> Iterator[None]:
        """The calls within are for parts of one batch: their sums are added up."""
        self._parts = []
        try:
            yield
            parts = self._parts
        finally:
            self._parts = None
        if parts:
            self._end_iteration(*map(sum, zip(*parts, strict=True)))

    def _end_iteration(self, total: float, weighted: float) -> None:
        if self._passed < self.start:
            self._passed += 1
            return
        if not (0 < total < math.inf and weighted < math.inf):
            return
        self._ratios.append(total / weighted if weighted > 0 else math.inf)
        if len(self._ratios) >= self.iterations:
            self._end_window()

    def _end_window(self) -> None:
        ratios, self._ratios = self._ratios, []
        median = statistics.median(ratios)
        if median <= self.max_weight:
            self.value = median
            over = "at this iteration"
            if len(ratios) > 1:
                over = (
                    f"in the median of {len(ratios)} iterations, which had {min(ratios):.4g} to "
                    f"{max(ratios):.4g}"
                )
            # A warning, because half of the users' trainers show nothing less of this package.
            logger.warning(
                "w_loc = %.4f keeps the sum of the localization loss %s (lam = %g); it stays "
                "fixed from here on",
                *(median, over, self.lam),
            )
            return
        self._failed += 1
        remedy = (
            "Give w_loc as a number (weight; the paper's are 1.6 to 3.6), measure it later "
            "(measure_from), or take Eq. 7 for good (normalize=True with weight=1)"
        )
        if self._failed == 1:
            logger.warning(
                "w_loc = %.4f would keep the sum of the localization loss, but is far too large "
                "(above max_weight = %g): the boxes hardly overlap their objects yet. It is "
                "measured again over the next %d iterations with positives, up to %d times; till "
                "then every iteration keeps its own sum (Eq. 7). %s",
                *(median, self.max_weight, self.iterations, FAILED_WINDOWS - 1, remedy),
            )
        elif self._failed == FAILED_WINDOWS:
            logger.warning(
                "No w_loc was found in %d measurements of %d iterations each; the last was %.4f, "
                "above max_weight = %g. THE REST OF THE TRAINING IS BY EQ. 7: every iteration "
                "keeps its own sum of the localization loss. %s",
                *(self._failed, self.iterations, median, self.max_weight, remedy),
            )

    def state_dict(self) -> dict[str, Any] | None:
        """What the measurement has come to, of plain numbers; None before it has begun."""
        if not (self._passed or self._ratios or self._failed):
            return None
        return {"passed": self._passed, "ratios": [*self._ratios], "failed": self._failed}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on with a `state_dict`; None is a new beginning."""
        state = state or {}
        self._passed, self._failed = state.get("passed", 0), state.get("failed", 0)
        self._ratios = [*state.get("ratios", [])]
