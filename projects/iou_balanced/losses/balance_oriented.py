"""The class weights of balance-oriented focal loss for a detector in training.

Shapes: N images, R rows of an image (anchors, points), G objects of an image, K foreground
classes.
"""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .checks import check_fraction
from .class_balance import ClassBalance
from .iou_weights import all_reduce_sum
from .reweighting import HATS, balance_oriented_weights, inverse_frequency_weights
from .schedules import Schedule

COUNT_OVER = ("image", "process", "batch")
COUNTED = ("instances", "locations")


class BalanceOriented(ClassBalance):
    """The weights of balance-oriented focal loss, Eq. 5, 7 and 8: one (N, K) table for all.

    `eta=1` is the weighting factor alone (WF in Table 1), `intensity=0` is batch-wise balancing
    alone (BB), and no schedule leaves out LS.

    Where the paper says little, it is read so: a class's weight multiplies its whole column,
    background included (Eq. 6 and 9); n counts objects after augmentation, as Section 5.6 has it
    ("number of objects"), and is 0 for an absent class; crowd boxes do not count; the focal loss
    keeps its own alpha, and the detector its normaliser.

    Args:
        num_classes: K.
        eta: in [0, 1]; 0.8 for the paper's CenterNet, 0.999 for its FCOS.
        schedule: the paper's is `LinearSchedule`, by default over CenterNet's 140 epochs; None: the
            full weights throughout.
        intensity: factor on alpha - 1, and on nothing else; 0.05 on COCO-LT (Table 12).
        count_over: what n of Eq. 8 counts over: "image" (CenterNet), "process", the images of a
            GPU's mini-batch (FCOS), or "batch", those of all processes.
        counted: "instances", after augmentation, or "locations": the positives of the detector's
            assignment.
        hat: reading of the hat on eta; see `balance_oriented_weights`.
        floor: instances that a rarer class counts as having; see `inverse_frequency_weights`.
        class_counts: (K,) instances of each class in the training set. None: given later.
        allow_other_counts: see `ClassBalance`.

    Raises:
        ValueError: a value is not as above.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        schedule: Schedule | None,
        eta: float = 0.8,
        intensity: float = 1.0,
        count_over: str = "image",
        counted: str = "instances",
        hat: str = "base",
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
        check_fraction(eta=eta)
        inverse_frequency_weights([1], floor=floor)
        for name, value, allowed in (
            ("count_over", count_over, COUNT_OVER),
            ("counted", counted, COUNTED),
            ("hat", hat, HATS),
        ):
            if value not in allowed:
                raise ValueError(
                    f"Expected argument `{name}` to be one of {allowed}, but got {value!r}"
                )
        self.eta, self.hat, self.floor = eta, hat, floor
        self.count_over, self.counted = count_over, counted
        if class_counts is not None:
            self.set_class_counts(class_counts)

    def count_weights(
        self, class_counts: Sequence[int] | None, image_counts: Sequence[int] | None
    ) -> Tensor:
        """(K,) alpha of Eq. 5.

        Raises:
            ValueError: the counts are None or make no sense; see `ClassBalance.count_weights`.
        """
        if class_counts is None:
            raise ValueError("Expected argument `class_counts`, instances by class, but got None")
        return inverse_frequency_weights(class_counts, floor=self.floor)

    def weights(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> Tensor:
        """(N, K) w-hat of Eq. 8."""
        counts = torch.zeros(len(gt_labels), self.num_classes, device=self.alpha.device)
        if self.eta != 1:  # 1^n does not depend on n
            counts = self.batch_counts(gt_classes, gt_labels)
        return balance_oriented_weights(
            self.alpha,
            counts,
            eta=self.eta,
            progress=self.progress,
            intensity=self.intensity,
            hat=self.hat,
        )

    def batch_counts(
        self, gt_classes: Sequence[Tensor] | None, gt_labels: Tensor | Sequence[Tensor]
    ) -> Tensor:
        """(N, K) n of Eq. 8, the same in each row unless it counts by image.

        See `ClassBalance.forward` for the arguments.

        Raises:
            ValueError: instances are to be counted, and `gt_classes` is None.
        """
        if self.count_over == "image":
            return self._count(gt_classes, gt_labels)
        total = self._batch_statistics
        if total is None:
            total = self._reduce(self._count(gt_classes, gt_labels).sum(dim=0))
        return total.expand(len(gt_labels), -1)

    def batch_statistics(
        self,
        gt_classes: Sequence[Tensor] | None,
        gt_labels: Tensor | Sequence[Tensor] | None,
    ) -> Tensor | None:
        """(K,) n of Eq. 8 in these images of the batch; None where n is an image's own."""
        if self.count_over == "image" or self.eta == 1:
            return None
        return self._count(gt_classes, gt_labels).sum(dim=0)

    @contextlib.contextmanager
    def whole_batch(self, statistics: Tensor | None) -> Iterator[None]:
        """See `ClassBalance.whole_batch`."""
        with super().whole_batch(None if statistics is None else self._reduce(statistics)):
            yield

    def _reduce(self, total: Tensor) -> Tensor:
        return all_reduce_sum(total) if self.count_over == "batch" else total

    def _count(
        self,
        gt_classes: Sequence[Tensor] | None,
        gt_labels: Tensor | Sequence[Tensor] | None,
    ) -> Tensor:
        """(N, K) how often each class is in each image.

        Raises:
            ValueError: what is to be counted is None.
        """
        labels = gt_labels if self.counted == "locations" else gt_classes
        if labels is None and self.counted == "instances":
            raise ValueError(
                "Expected argument `gt_classes`, the classes of each image's objects, but got "
                "None: with counted='locations' the detector's positives are counted instead"
            )
        if labels is None:
            raise ValueError(
                "Expected counted='instances' or count_over='image', but got counted='locations' "
                f"and count_over={self.count_over!r}: the batch comes in micro-batches, and this "
                "model knows its locations only as it goes through them"
            )
        return count_labels(labels, self.num_classes).to(self.alpha.device, non_blocking=True)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, eta={self.eta}, "
            f"count_over={self.count_over!r}, counted={self.counted!r}, hat={self.hat!r}, "
            f"floor={self.floor}"
        )


def count_labels(labels: Tensor | Sequence[Tensor], num_classes: int) -> Tensor:
    """(N, K) how often each class is among the labels of each image.

    Args:
        labels: one tensor of integers an image; those outside 0..K-1 do not count.
        num_classes: K.
    """
    if not len(labels):
        return torch.zeros(0, num_classes)
    sizes = torch.tensor([x.numel() for x in labels])
    flat = torch.cat([x.flatten() for x in labels]).long()
    image = torch.arange(len(labels)).repeat_interleave(sizes).to(flat.device)
    # Labels that do not count go into a column of their own. To drop them instead, a GPU would be
    # waited for: the size of what is left is not known.
    column = torch.where((flat >= 0) & (flat < num_classes), flat, num_classes)
    counts = torch.zeros(len(labels) * (num_classes + 1), device=flat.device)
    counts.index_add_(0, image * (num_classes + 1) + column, torch.ones_like(column).float())
    return counts.view(len(labels), num_classes + 1)[:, :num_classes]
