"""The class weightings that balance-oriented focal loss is compared with (Section 5.7).

Shapes: N images, K foreground classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_exponents, check_flags, check_fraction
from .class_balance import ClassBalance
from .class_tables import ClassWeights
from .reweighting import (
    effective_number_weights,
    inverse_frequency_weights,
    power_frequency_weights,
    schedule_weights,
    tail_classes,
)
from .schedules import Schedule


class ClassBalanced(ClassBalance):
    """The weights of class-balanced loss (arXiv 1901.05555; Eq. 1-2, 5-6 of the BOFL paper).

    The four steps of Table 10: CBL is `ClassBalanced(beta=...)`; "+linear" adds
    `schedule=LinearSchedule(...)`; "+approx." then `beta=None`; "+class-wise" `per_sample=False`.

    Args:
        num_classes: K.
        beta: of the effective number, Eq. 2, in [0, 1). None: its limit, the inverse frequency
            of Eq. 5.
        normalize: scale the weights of Eq. 2 to the sum K, as the authors of CBL do. Eq. 5 has a
            scale of its own, weight 1 for an instance on average, so that "+approx." also changes
            the scale.
        power: in the place of `beta`, which then does not count: (1 / n)^power with the mean 1; see
            `power_frequency_weights`. With per_sample=False it is Ultralytics' `cls_pw`.
        per_sample: Eq. 1: a positive's weight multiplies its whole row of class scores, and
            background rows have weight 1. False is Eq. 6: each class's weight multiplies its
            column, background included.
        schedule: None: the full weights throughout.
        intensity, floor, class_counts, allow_other_counts: see `BalanceOriented`.

    Raises:
        ValueError: a value is not as above.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        beta: float | None = 0.9999,
        normalize: bool = True,
        power: float | None = None,
        per_sample: bool = True,
        schedule: Schedule | None = None,
        intensity: float = 1.0,
        floor: float | None = None,
        class_counts: Sequence[int] | None = None,
        allow_other_counts: bool = False,
    ):
        super().__init__(
            num_classes=num_classes,
            schedule=schedule,
            intensity=intensity,
            allow_other_counts=allow_other_counts,
        )
        check_flags(normalize=normalize, per_sample=per_sample)
        inverse_frequency_weights([1], floor=floor)
        if beta is not None:
            effective_number_weights([1], beta)
        if power is not None:
            check_exponents(power=power)
        self.beta, self.normalize, self.per_sample = beta, normalize, per_sample
        self.power = power
        self.floor = floor
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def count_weights(
        self, class_counts: Sequence[int] | None, image_counts: Sequence[int] | None
    ) -> Tensor:
        """(K,) alpha of Eq. 2 or 5, or by `power`.

        Raises:
            ValueError: the counts are None or make no sense; see `ClassBalance.count_weights`.
        """
        if class_counts is None:
            raise ValueError("Expected argument `class_counts`, instances by class, but got None")
        if self.power is not None:
            return power_frequency_weights(class_counts, self.power, floor=self.floor)
        if self.beta is None:
            return inverse_frequency_weights(class_counts, floor=self.floor)
        return effective_number_weights(
            class_counts, self.beta, normalize=self.normalize, floor=self.floor
        )

    def weights(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> Tensor | ClassWeights:
        """(K,) for all elements of a column, or (K + 1,) for the rows, background 1."""
        alpha = self.scheduled(self.progress)
        if self.per_sample:
            return ClassWeights(row=torch.cat([alpha, alpha.new_ones(1)]))
        return alpha

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, beta={self.beta}, normalize={self.normalize}, "
            f"power={self.power}, per_sample={self.per_sample}, floor={self.floor}"
        )


class Equalization(ClassBalance):
    """The weights of equalization loss (arXiv 2003.05176, Eq. 2-3): tail classes are not pushed.

    The weight of class j in a row is 1 - E (1 - y_j) for the tail and 1 for the other classes,
    with y_j = 1 in a positive's own column: positives of other classes do not lower a tail
    class's score. E is 1 in positive rows and 0 in background rows.

    Args:
        num_classes: K.
        tail_ratio: share of the tail in the images of all classes; see `tail_classes`.
        background_weight: of the tail's columns in background rows; 1 in the original, 0.5 in
            "EQL (bg. 50%)" of the BOFL paper, Table 12.
        schedule: None, the original: the weights throughout.
        image_counts: (K,) training images that show each class. None: given later.
        allow_other_counts: see `ClassBalance`.

    Raises:
        ValueError: a value is not as above.
    """

    needs_sigmoid = True

    def __init__(
        self,
        *,
        num_classes: int,
        tail_ratio: float = 0.0867,
        background_weight: float = 1.0,
        schedule: Schedule | None = None,
        image_counts: Sequence[int] | None = None,
        allow_other_counts: bool = False,
    ):
        super().__init__(
            num_classes=num_classes, schedule=schedule, allow_other_counts=allow_other_counts
        )
        check_fraction(tail_ratio=tail_ratio, background_weight=background_weight)
        self.tail_ratio, self.background_weight = tail_ratio, background_weight
        if image_counts is not None:
            self.set_class_counts(None, image_counts)

    def count_weights(
        self, class_counts: Sequence[int] | None, image_counts: Sequence[int] | None
    ) -> Tensor:
        """(K,) 0 for the tail and 1 for the other classes.

        Raises:
            ValueError: the counts are None or make no sense; see `ClassBalance.count_weights`.
        """
        if image_counts is None:
            raise ValueError("Expected argument `image_counts`, images by class, but got None")
        return (~tail_classes(image_counts, self.tail_ratio)).double()

    def weights(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> ClassWeights:
        """Tables (K,) for the other columns of positive rows, and for background rows."""
        progress = self.progress
        return ClassWeights(
            other=self.scheduled(progress),
            background=schedule_weights(self.alpha, progress, 1 - self.background_weight),
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, tail_ratio={self.tail_ratio}, "
            f"background_weight={self.background_weight}"
        )
