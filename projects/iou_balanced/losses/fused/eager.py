"""The backend without a compiler: chunk by chunk, so that temporaries stay in a CPU's cache."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .elements import focal_slope, focal_value, focal_value_and_slope
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows


def why_not(scores: Rows | HeatMaps, negatives: Negatives) -> None:
    """None: it works everywhere."""


class Grads:
    """The gradient of each level's logits for a loss of scale 1, made along with the value.

    The first backward pass scales it in place, so that there is never a second one; a later one
    over a retained graph computes it again.
    """

    def __init__(self, levels: list[Tensor] | None, *, scaled: bool = False):
        self.levels = levels
        self.scaled = scaled  # whether the negatives' scale is in it

    def take(self) -> list[Tensor] | None:
        """The gradients, once; None where there are none."""
        levels, self.levels = self.levels, None
        return levels


def forward(
    scores: Rows | HeatMaps, negatives: Negatives, elementwise: bool, with_grad: bool
) -> tuple[Tensor, list[Tensor], Grads]:
    """The logits of own elements, and what all other elements cost.

    Args:
        scores: the logits, and which elements count.
        negatives: the loss of an element.
        elementwise: see Returns.
        with_grad: whether `backward` will be called.

    Returns:
        (N, R) for `Rows`, (P,) for `HeatMaps`; the sum, or one tensor of the logits' shape a
        level, 0 for own and ignored elements; and what `backward` wants to know.
    """
    logits = scores.logits
    dtype = torch.promote_types(logits[0].dtype, torch.float32)
    own = scores.own(dtype)
    if elementwise:
        out = [torch.empty_like(x, dtype=dtype) for x in logits]
        for chunk, counts, value in _chunks(scores, negatives, dtype, focal_value):
            scores.hide_own(value, chunk)
            torch.mul(value, counts * negatives.scale, out=out[chunk.level][chunk.place])
        return own, out, Grads(None)
    sums, grads = [own.new_zeros(())], None
    function: Callable[..., Any] = focal_value
    # In half precision, a gradient would underflow without the scale of the loss.
    if with_grad and logits[0].dtype == dtype:
        grads = [torch.empty_like(x) for x in logits]
        function = functools.partial(focal_value_and_slope, detached=negatives.detached)
    for chunk, counts, value, *slope in _chunks(scores, negatives, dtype, function):
        scores.hide_own(value, chunk)
        # Row by row, because there are few rows that can be ignored.
        sums.append((value.sum(-1, keepdim=True) * counts).sum())
        if grads is not None:
            torch.mul(slope[0], counts, out=grads[chunk.level][chunk.place])
    return own, [torch.stack(sums).sum() * negatives.scale], Grads(grads)


def backward(
    scores: Rows | HeatMaps,
    negatives: Negatives,
    grad_own: Tensor,
    grad_rest: list[Tensor],
    made: Grads,
) -> list[Tensor]:
    """The gradient of each level's logits, from those of what `forward` returned.

    Args:
        scores: see `forward`.
        negatives: see `forward`.
        grad_own: of the own elements.
        grad_rest: of the sum, or of each level's elements.
        made: the last of what `forward` returned.
    """
    grads = made.take()
    if grads is not None:
        scale = grad_rest[0] if made.scaled else grad_rest[0] * negatives.scale
        for grad in grads:
            grad.mul_(scale)
    else:
        grads = [torch.empty_like(x) for x in scores.logits]
        scales = [grad * negatives.scale for grad in grad_rest]
        function = functools.partial(focal_slope, detached=negatives.detached)
        for chunk, counts, slope in _chunks(scores, negatives, grad_own.dtype, function):
            scale = scales[0] if scales[0].dim() == 0 else scales[chunk.level][chunk.place]
            # Rounded to half precision with the scale of the loss in it.
            torch.mul(slope, counts * scale, out=grads[chunk.level][chunk.place])
    scores.put_own(grads, grad_own)
    return grads


def _chunks(
    scores: Rows | HeatMaps,
    negatives: Negatives,
    dtype: torch.dtype,
    function: Callable[..., Tensor | tuple[Tensor, ...]],
) -> Iterator[tuple[Any, ...]]:
    """Each chunk, which of its rows count, and its elements' values of `function`, weighted."""
    gamma, one = negatives.gamma, scores.logits[0].new_ones((), dtype=dtype)
    if isinstance(gamma, Tensor):
        gamma = scores.of_classes(gamma.to(dtype))
    chunks: Iterator[Any] = scores.chunks()
    for chunk in chunks:
        values = function(scores.logits[chunk.level][chunk.place].to(dtype), gamma)
        values = values if isinstance(values, tuple) else (values,)
        for factor in scores.weights(chunk, dtype):
            for value in values:
                value.mul_(factor)
        counts = scores.counts(chunk, dtype)
        yield chunk, one if counts is None else counts, *values
