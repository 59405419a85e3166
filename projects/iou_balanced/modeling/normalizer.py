"""The number that a dense detector divides its losses by."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
from detectron2.utils import comm
from torch import Tensor, nn

from iou_balanced.losses import ClassBalance, ClassStatistics, IoUBalancedLocalization
from iou_balanced.losses.checks import check_flags, is_number
from iou_balanced.losses.iou_weights import all_reduce_sum


class LossNormalizer(nn.Module):
    """Moving average of the number of positives, as Detectron2's RetinaNet has it.

    Detectron2 keeps it in a plain attribute for each process. Here it is taken over the whole
    batch, whatever the number of processes, and survives a resume (`resume_state_dict`; it is no
    part of `state_dict`, so that fine-tuning from a checkpoint starts afresh).

    Each call takes in one batch; see `whole_batch` for one that comes in parts.

    Args:
        momentum: weight of the old value in [0, 1); 0 is no moving average.
        initial: value before the first batch, counted over the whole batch. Detectron2's 100 by
            default; None starts at the first batch's number.
        across_processes: False counts each process by itself, as Detectron2 does.

    Raises:
        ValueError: a value is not as above.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        initial: float | None = 100.0,
        across_processes: bool = True,
    ):
        super().__init__()
        if not is_number(momentum) or not 0 <= momentum < 1:
            raise ValueError(f"Expected argument `momentum` to be in [0, 1), but got {momentum!r}")
        if initial is not None and not (is_number(initial) and 0 < initial < math.inf):
            raise ValueError(
                "Expected argument `initial` to be a number greater than 0, or None, "
                f"but got {initial!r}"
            )
        check_flags(across_processes=across_processes)
        self.momentum, self.initial = momentum, initial
        self.across_processes = across_processes
        self.average: float | None = None
        # Within `whole_batch`: of all parts.
        self._batch_positives: Tensor | None = None
        self._batch_divisor: float | None = None

    def forward(self, num_positives: Tensor) -> float:
        """Take in one batch, and return the divisor for this process's sums.

        Args:
            num_positives: scalar, the positives of this process's images; ignored within
                `whole_batch`, which was told those of all parts.

        Returns:
            The average divided by the number of processes, because data-parallel training
            averages their gradients: together they give the gradient of the whole batch.
        """
        if self._batch_positives is None:
            return self._take_in(num_positives)
        if self._batch_divisor is None:
            self._batch_divisor = self._take_in(self._batch_positives)
        return self._batch_divisor

    @contextlib.contextmanager
    def whole_batch(self, num_positives: Tensor) -> Iterator[None]:
        """The calls within are for parts of one batch, and all return the divisor of the whole.

        The average takes the batch in once, in the first of these calls.

        Args:
            num_positives: scalar, the positives of this process's images in all parts.
        """
        self._batch_positives = num_positives
        try:
            yield
        finally:
            self._batch_positives = self._batch_divisor = None

    @torch.no_grad()
    def _take_in(self, num_positives: Tensor) -> float:
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
        """Go on from the interrupted run's average.

        Args:
            state: a `resume_state_dict`.
        """
        self.average = state.get("average")

    def extra_repr(self) -> str:
        return (
            f"momentum={self.momentum}, initial={self.initial}, "
            f"across_processes={self.across_processes}"
        )


@contextlib.contextmanager
def whole_batch(model: nn.Module, micro_batches: Sequence[list[dict]]) -> Iterator[float]:
    """Forward passes of a batch in parts, whose gradients add up to that of the whole batch.

    The divisor of a dense detector is known only after the last part, when the gradients of the
    others have been taken; and the losses may have several. So the positives, which do not depend
    on the weights, are counted first, and so are the objects of each class where a class weight
    depends on several images. A w_loc of "auto" is measured over all parts, and what a loss keeps
    of the classes (`ClassStatistics`) takes in the batch at its end.

    Args:
        model: the detector, wrapped for several processes or not. With `count_positives` (see
            `InjectedLosses`), all parts are divided by the numbers of the whole batch.
        micro_batches: the parts, of equally many images, as the model takes them.

    Yields:
        What to multiply the losses of each part by: 1 with `count_positives`. Else their number's
        inverse, because losses of another model are taken for means over its images.

    Raises:
        ValueError: a normaliser knows only batches that come in one; or class weights count what
            the model does not know before the forward pass.
    """
    model = getattr(model, "module", model)
    counts = {}
    if hasattr(model, "count_positives"):
        of_parts = [model.count_positives(x) for x in micro_batches]
        counts = {name: torch.stack([x[name] for x in of_parts]).sum(dim=0) for name in of_parts[0]}
    modules = {name: getattr(model, name) for name in counts}
    for name, module in model.named_modules():
        if isinstance(module, ClassBalance) and name not in modules:
            gt_classes = [x["instances"].gt_classes for x in chain(*micro_batches)]
            modules[name], counts[name] = module, module.batch_statistics(gt_classes, None)
    measuring = (IoUBalancedLocalization, ClassStatistics)
    with contextlib.ExitStack() as stack:
        for module in [x for x in model.modules() if isinstance(x, measuring)]:
            stack.enter_context(module.whole_batch())
        for name, module in modules.items():
            if not hasattr(module, "whole_batch"):
                raise ValueError(
                    f"Expected `{name}` of the model to have `whole_batch`, as LossNormalizer "
                    "has, because the batch comes in several parts, but got "
                    f"{type(module).__name__}"
                )
            stack.enter_context(module.whole_batch(counts[name]))
        yield 1.0 if hasattr(model, "count_positives") else 1 / len(micro_batches)
