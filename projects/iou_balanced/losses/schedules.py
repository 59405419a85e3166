"""When class weights take effect (Section 4.2 and 5.3, Fig. 2 of Balance-oriented focal loss).

Letters: e epoch, counted from 0; T epochs of the training; D deferred epochs; lambda, the
normalised epoch in [0, 1]: 0 is unweighted, 1 has the full weights.
"""

from typing import Protocol

from torch import nn

from .checks import check_non_negative

LAMBDAS = ("last", "total", "next")
UPDATES = ("epoch", "iteration")


def linear_schedule(
    epoch: float, total_epochs: float, deferred_epochs: float = 0, *, reading: str = "last"
) -> float:
    """lambda of Eq. 7, the "normalized epoch in [0, 1]".

    The paper gives no formula. Read here: epochs count from 0, lambda is 0 through the deferred
    epochs, then (e - D) / (T - 1 - D), so that the last epoch has the full weights.

    Args:
        epoch: e in [0, T).
        total_epochs: T.
        deferred_epochs: D in [0, T - 1).
        reading: "last" as above; "total": (e - D) / (T - D), which never reaches 1; "next":
            (e + 1 - D) / (T - D), which counts epochs from 1.

    Raises:
        ValueError: T - 1 <= D, or a value is not as above.
    """
    check_epochs(total_epochs, deferred_epochs)
    if reading not in LAMBDAS:
        raise ValueError(f"Expected argument `reading` to be one of {LAMBDAS}, but got {reading!r}")
    if not epoch >= 0:
        raise ValueError(f"Expected argument `epoch` to be at least 0, but got {epoch!r}")
    if epoch < deferred_epochs:
        return 0.0
    passed, whole = epoch - deferred_epochs, total_epochs - deferred_epochs
    if reading == "last":
        whole -= 1
    elif reading == "next":
        passed += 1
    return min(passed / whole, 1.0)


def check_epochs(total_epochs: float, deferred_epochs: float) -> None:
    """Check T and D.

    Raises:
        ValueError: T - 1 <= D, or one of them is no finite number of at least 0.
    """
    check_non_negative(deferred_epochs=deferred_epochs, total_epochs=total_epochs)
    if not total_epochs - 1 > deferred_epochs:
        raise ValueError(
            "Expected argument `total_epochs` to be greater than `deferred_epochs` + 1, because "
            "the schedule has to end with the last epoch, "
            f"but got {total_epochs!r} and {deferred_epochs!r}"
        )


class Schedule(Protocol):
    """What a `ClassBalance` asks of its schedule."""

    def progress(self, iteration: int, max_iter: int) -> float:
        """lambda of Eq. 7 in [0, 1], for an iteration in [0, max_iter)."""


class _Schedule(nn.Module):
    """Turns an iteration into lambda; holds no state, so that a resumed run continues it.

    Args:
        total_epochs, deferred_epochs, update: see `LinearSchedule`.

    Raises:
        ValueError: T - 1 <= D, or a value is not as there.
    """

    def __init__(self, *, total_epochs: int = 140, deferred_epochs: int = 5, update: str = "epoch"):
        super().__init__()
        check_epochs(total_epochs, deferred_epochs)
        if update not in UPDATES:
            raise ValueError(
                f"Expected argument `update` to be one of {UPDATES}, but got {update!r}"
            )
        self.total_epochs, self.deferred_epochs = total_epochs, deferred_epochs
        self.update = update

    def epoch(self, iteration: int, max_iter: int) -> int:
        """The epoch of an iteration, both from 0; `max_iter` iterations are `total_epochs`.

        Args:
            iteration: in [0, max_iter).
            max_iter: iterations of the training.
        """
        return min(iteration * self.total_epochs // max_iter, self.total_epochs - 1)

    def extra_repr(self) -> str:
        return (
            f"total_epochs={self.total_epochs}, deferred_epochs={self.deferred_epochs}, "
            f"update={self.update!r}"
        )


class LinearSchedule(_Schedule):
    """Weights that grow linearly, after a deferral or (deferred_epochs=0) from the start on.

    An epoch is the `total_epochs`-th part of the training: where the linear scaling rule changes
    its length in iterations, the epochs' length follows.

    Args:
        total_epochs: T; 140 for the paper's CenterNet, 12 for its FCOS.
        deferred_epochs: D; 5 for the paper's CenterNet, 3 for its FCOS.
        update: "epoch", or "iteration" (the worse one in Table 7): lambda is 0 through the
            iterations of the deferred epochs, and 1 in the last iteration.
        reading: of lambda; see `linear_schedule`.

    Raises:
        ValueError: T - 1 <= D, or a value is not as above.
    """

    def __init__(
        self,
        *,
        total_epochs: int = 140,
        deferred_epochs: int = 5,
        update: str = "epoch",
        reading: str = "last",
    ):
        super().__init__(total_epochs=total_epochs, deferred_epochs=deferred_epochs, update=update)
        linear_schedule(0, total_epochs, deferred_epochs, reading=reading)
        self.reading = reading

    def progress(self, iteration: int, max_iter: int) -> float:
        """lambda of Eq. 7.

        Args:
            iteration: in [0, max_iter).
            max_iter: iterations of the training.

        Returns:
            A number in [0, 1].
        """
        if self.update == "epoch":
            return linear_schedule(
                self.epoch(iteration, max_iter),
                self.total_epochs,
                self.deferred_epochs,
                reading=self.reading,
            )
        deferred = self.deferred_epochs * max_iter / self.total_epochs
        if not max_iter - 1 > deferred:  # a run of few iterations, shorter than its epochs
            return 0.0
        return linear_schedule(iteration, max_iter, deferred, reading=self.reading)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reading={self.reading!r}"


class ConstantSchedule(_Schedule):
    """The full weights at once: from the start on, or after a deferral (DRW, arXiv 1906.07413).

    Args:
        total_epochs, deferred_epochs, update: see `LinearSchedule`; by default without deferral.

    Raises:
        ValueError: T - 1 <= D, or a value is not as there.
    """

    def __init__(self, *, total_epochs: int = 140, deferred_epochs: int = 0, update: str = "epoch"):
        super().__init__(total_epochs=total_epochs, deferred_epochs=deferred_epochs, update=update)

    def progress(self, iteration: int, max_iter: int) -> float:
        """0.0 through the deferred epochs, then 1.0; see `LinearSchedule.progress`."""
        if self.update == "epoch":
            return float(self.epoch(iteration, max_iter) >= self.deferred_epochs)
        return float(iteration * self.total_epochs >= self.deferred_epochs * max_iter)
