"""The number that a dense detector divides its losses by."""

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from iou_balanced.losses.iou_weights import all_reduce_sum


class LossNormalizer(nn.Module):
    """Moving average of the number of positives, as Detectron2's RetinaNet has it.

    Detectron2 keeps it in a plain attribute for each process. Here it is taken over the whole
    batch, whatever the number of processes, and survives a resume (`resume_state_dict`; it is no
    part of `state_dict`, so that fine-tuning from a checkpoint starts afresh).

    Args:
        momentum: weight of the old value in [0, 1); 0 is no moving average.
        initial: value before the first batch, counted over the whole batch. Detectron2's 100 by
            default; None starts at the first batch's number.
        across_processes: False counts each process by itself, as Detectron2 does.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        initial: float | None = 100.0,
        across_processes: bool = True,
    ):
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"Expected argument `momentum` to be in [0, 1), but got {momentum}")
        self.momentum, self.initial = momentum, initial
        self.across_processes = across_processes
        self.average: float | None = None

    @torch.no_grad()
    def forward(self, num_positives: Tensor) -> float:
        """Take in one batch, and return the divisor for this process's sums.

        Args:
            num_positives: scalar, the positives of this process's images.

        Returns:
            The average divided by the number of processes, because data-parallel training
            averages their gradients: together they give the gradient of the whole batch.
        """
        world_size = comm.get_world_size() if self.across_processes else 1
        if world_size > 1:
            num_positives = all_reduce_sum(num_positives)
        # One empty process must not count as a positive of a batch that has others.
        count = max(num_positives.item(), 1)
        old = self.initial if self.average is None else self.average
        self.average = count if old is None else self.momentum * old + (1 - self.momentum) * count
        return self.average / world_size

    def resume_state_dict(self) -> dict:
        """What a resumed run needs: the moving average (None before the first batch)."""
        return {"average": self.average} if self.momentum else {}

    def load_resume_state_dict(self, state: dict) -> None:
        """Go on from the interrupted run's average."""
        self.average = state.get("average")

    def extra_repr(self) -> str:
        return (
            f"momentum={self.momentum}, initial={self.initial}, "
            f"across_processes={self.across_processes}"
        )
