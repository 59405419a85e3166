"""The backend without a compiler: chunk by chunk, so that temporaries stay in a CPU's cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .elements import focal_value, focal_value_and_slope
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows


class Grads:
    """The gradient of each level's logits for a loss of scale 1, made along with the value.

    The first backward pass scales it in place, so that there is never a second one; a later one
    over a retained graph computes it again.
    """

    def __init__(self, levels: list[Tensor]):
        self.levels: list[Tensor] | None = levels

    def take(self) -> list[Tensor] | None:
        """The gradients, once."""
        levels, self.levels = self.levels, None
        return levels


def forward(
    scores: Rows | HeatMaps, negatives: Negatives, elementwise: bool, with_grad: bool
) -> tuple[Tensor, list[Tensor], Grads | None]:
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
    own = scores.new_own(dtype)
    if elementwise:
        out = [torch.empty_like(x, dtype=dtype) for x in logits]
        for chunk, value, _ in _chunks(scores, negatives, own, with_slope=False):
            out[chunk.level][chunk.place] = value
        return own, out, None
    # In half precision, a gradient would underflow without the scale of the loss.
    in_one_pass = with_grad and logits[0].dtype == dtype
    grads = [torch.empty_like(x) for x in logits] if in_one_pass else []
    sums = [own.new_zeros(())]
    for chunk, value, slope in _chunks(scores, negatives, own, with_slope=in_one_pass):
        sums.append(value.sum())
        if slope is not None:
            grads[chunk.level][chunk.place] = slope
    return own, [torch.stack(sums).sum()], Grads(grads) if in_one_pass else None


def backward(
    scores: Rows | HeatMaps,
    negatives: Negatives,
    grad_own: Tensor,
    grad_rest: list[Tensor],
    made: Grads | None,
) -> list[Tensor]:
    """The gradient of each level's logits, from those of what `forward` returned.

    Args:
        scores: see `forward`.
        negatives: see `forward`.
        grad_own: of the own elements.
        grad_rest: of the sum, or of each level's elements.
        made: the last of what `forward` returned.
    """
    grads = None if made is None else made.take()
    if grads is not None:
        for chunk in scores.chunks():
            grad = grads[chunk.level][chunk.place].mul_(grad_rest[0])
            scores.put_own(grad, chunk, grad_own)
    else:
        grads = [torch.empty_like(x) for x in scores.logits]
        for chunk, _, slope in _chunks(scores, negatives, None, with_slope=True):
            elementwise = grad_rest[0].dim() > 0
            scale = grad_rest[chunk.level][chunk.place] if elementwise else grad_rest[0]
            slope.mul_(scale)  # before it is rounded to half precision
            scores.put_own(slope, chunk, grad_own)
            grads[chunk.level][chunk.place] = slope
    scores.put_own_at_the_end(grads, grad_own)
    return grads


def _chunks(
    scores: Rows | HeatMaps, negatives: Negatives, own: Tensor | None, with_slope: bool
) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
    """Each chunk with its elements' weighted values and, where asked for, slopes."""
    dtype = torch.promote_types(scores.logits[0].dtype, torch.float32)
    gamma = negatives.gamma
    if isinstance(gamma, Tensor):
        gamma = scores.of_classes(gamma.to(dtype))
    for chunk in scores.chunks():
        x = scores.countable(chunk, own, dtype)
        if with_slope:
            values = focal_value_and_slope(x, gamma, negatives.detached)
        else:
            values = (focal_value(x, gamma),)
        for factor in [negatives.scale, *scores.weights(chunk, dtype)]:
            for value in values:
                value.mul_(factor)
        yield chunk, values[0], values[1] if with_slope else None
