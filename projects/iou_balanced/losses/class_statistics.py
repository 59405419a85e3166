"""Numbers for each class that a loss keeps over the iterations of a training.

Shapes: S kinds of numbers, K foreground classes.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_counts, check_flags
from .fused.graphs import own_graph
from .iou_weights import all_reduce_sum


class ClassStatistics(nn.Module):
    """Sums for each class over all iterations and processes of a training.

    They move with the model and are no part of its weights: a resumed run goes on with them
    (`resume_state_dict`), and a fine-tuning starts afresh. Within `whole_batch` the calls are for
    parts of one batch: what they add counts when the batch has ended, so that all of its parts are
    weighed alike. A batch whose numbers are not finite does not count.

    Args:
        names: of the S kinds.
        num_classes: K; None: told by `set_num_classes`, as the detectors do.
        across_processes: add up what all processes have. Every process then has to call `add`
            equally often.
        of: the loss whose numbers they are; those of another are not gone on with.

    Raises:
        ValueError: a value is not as above.
    """

    sums: Tensor
    """(S, K) float64."""

    def __init__(
        self,
        *names: str,
        num_classes: int | None = None,
        across_processes: bool = True,
        of: str = "",
    ):
        super().__init__()
        if num_classes is not None:
            check_counts(least=1, num_classes=num_classes)
        check_flags(across_processes=across_processes)
        self.names, self.num_classes, self.across_processes = names, num_classes, across_processes
        if not isinstance(of, str):
            raise ValueError(f"Expected argument `of` to be the name of a loss, but got {of!r}")
        self.of = of
        sums = torch.zeros(len(names), num_classes or 0, dtype=torch.float64)
        self.register_buffer("sums", sums, persistent=False)
        # Within `whole_batch`: whether it is, and what was added.
        self._in_parts = False
        self._parts: Tensor | None = None

    def set_num_classes(self, num_classes: int) -> None:
        """Say what K is; from then on it has to stay.

        Args:
            num_classes: K.

        Raises:
            ValueError: it was another one.
        """
        if self.num_classes is None:
            self.num_classes = num_classes
            self.sums = self.sums.new_zeros(len(self.names), num_classes)
        elif self.num_classes != num_classes:
            raise ValueError(
                f"Expected statistics of {num_classes} classes, as the scores have, but got "
                f"those of {self.num_classes}"
            )

    @own_graph
    @torch.no_grad()
    def add(self, sums: Tensor) -> None:
        """Take in one call of the loss: an iteration, or within `whole_batch` a part of one.

        Args:
            sums: (S, K) of this process.
        """
        self.set_num_classes(sums.shape[1])
        sums = sums.detach().double()
        if not self._in_parts:
            self._take_in(sums)
        else:
            self._parts = sums if self._parts is None else self._parts + sums

    @contextlib.contextmanager
    def whole_batch(self) -> Iterator[None]:
        """The calls within are for parts of one batch."""
        self._in_parts, self._parts = True, None
        try:
            yield
            parts = self._parts
        finally:
            self._in_parts, self._parts = False, None
        if parts is not None:
            self._take_in(parts)

    def _take_in(self, sums: Tensor) -> None:
        if self.across_processes:
            sums = all_reduce_sum(sums)
        # One batch that is not finite, which a trainer may skip, must not spoil all that follow.
        sums = torch.where(sums.isfinite().all(), sums, 0.0)
        self.sums = self.sums.to(sums.device) + sums

    def resume_state_dict(self) -> dict[str, Any]:
        """The K sums of each name, and whose they are ("of"); None before the first batch."""
        begun = bool(self.sums.any())
        rows = {
            name: row.tolist() if begun else None
            for name, row in zip(self.names, self.sums, strict=True)
        }
        return {**rows, "of": self.of if begun else None}

    def load_resume_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the interrupted run's sums.

        Args:
            state: a `resume_state_dict`.

        Raises:
            ValueError: it is of another number of classes, of other names or of another loss.
        """
        other = state.get("of")
        if other and self.of and other != self.of:
            raise ValueError(
                f"The interrupted run has statistics of {other}, and this one keeps those of "
                f"{self.of}: resume with the same loss"
            )
        rows = [state.get(name) for name in self.names]
        if all(row is None for row in rows):
            self.sums = torch.zeros_like(self.sums)
            return
        lengths = {None if row is None else len(row) for row in rows}
        found = lengths.pop() if len(lengths) == 1 else None
        if found is None or self.num_classes not in (None, found):
            names = sorted(set(state) - {"of"})
            raise ValueError(
                f"The interrupted run has statistics {names} of {found} classes, and this "
                f"one keeps {sorted(self.names)} of {self.num_classes}: resume with the same loss "
                "and the same classes"
            )
        self.num_classes = found
        self.sums = torch.tensor(rows, dtype=torch.float64, device=self.sums.device)

    def extra_repr(self) -> str:
        return (
            f"{', '.join(self.names)}, num_classes={self.num_classes}, "
            f"across_processes={self.across_processes}"
        )


def gradient_ratio(statistics: ClassStatistics, initial: float) -> Tensor:
    """(K,) positive over negative gradient of each class so far.

    Args:
        statistics: of "positive" and "negative".
        initial: the ratio of a class that no gradient came to yet.
    """
    positive, negative = statistics.sums
    ratio = positive / negative.clamp(min=1e-10)
    return torch.where(positive + negative > 0, ratio, initial).float()


def count_by_class(gt_labels: Tensor, num_classes: int) -> Tensor:
    """(K,) float64, how often each class is among the labels, without a wait for a GPU.

    Args:
        gt_labels: any shape: -1 ignored, 0..K-1 foreground, K background.
        num_classes: K.
    """
    flat = gt_labels.flatten().long()
    column = torch.where((flat >= 0) & (flat < num_classes), flat, num_classes)
    counts = torch.zeros(num_classes + 1, dtype=torch.float64, device=flat.device)
    return counts.index_add_(0, column, torch.ones_like(column, dtype=torch.float64))[:num_classes]
