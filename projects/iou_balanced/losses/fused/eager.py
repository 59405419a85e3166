"""The backend without a compiler: chunk by chunk, so that temporaries stay in a CPU's cache."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..debug import may_look_at
from .elements import focal_factors, focal_value, softplus_and_sigmoid
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows

Summed = tuple[Tensor, list[Tensor] | None]
"""A sum, and the gradient of each level's logits where it is made along with it."""


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
        for chunk, value in _values(scores, negatives, dtype):
            torch.mul(value, negatives.scale, out=out[chunk.level][chunk.place])
        return own, out, Grads(None)
    # In half precision, a gradient would underflow without the scale of the loss.
    if with_grad and logits[0].dtype == dtype:
        total, grads = _if_finite(partial(_sum_and_gradients, scores, negatives, dtype))
        return own, [total * negatives.scale], Grads(grads)
    total, _ = _if_finite(partial(_sum_alone, scores, negatives, dtype))
    return own, [total * negatives.scale], Grads(None)


def _if_finite(compute: Callable[..., Summed]) -> Summed:
    """What it computes; a second time, with ignored rows masked, where the sum is not finite.

    A logit of an ignored row may be whatever it is, and 0 times infinity is no number.
    """
    found = compute(masked=False)
    return found if not may_look_at(found[0]) or found[0].isfinite() else compute(masked=True)


def _sum_alone(
    scores: Rows | HeatMaps, negatives: Negatives, dtype: torch.dtype, *, masked: bool
) -> Summed:
    """The sum without the negatives' scale."""
    gamma = _gamma(scores, negatives, dtype)
    sums = [scores.logits[0].new_zeros((), dtype=dtype)]
    for chunk in _chunks(scores):
        softplus, p = softplus_and_sigmoid(scores.read(chunk, dtype, masked=masked))
        sums.append(_sum(scores, chunk, p.pow_(gamma), softplus))
    return torch.stack(sums).sum(), None


def _values(
    scores: Rows | HeatMaps, negatives: Negatives, dtype: torch.dtype
) -> Iterator[tuple[Any, Tensor]]:
    """Each chunk with the weighted values of its elements; own ones are 0."""
    gamma = _gamma(scores, negatives, dtype)
    for chunk in _chunks(scores):
        value = focal_value(scores.read(chunk, dtype), gamma)
        _weigh(value, scores, chunk)
        scores.hide_ignored(value, chunk)
        scores.hide_own(value, chunk)
        yield chunk, value


def _sum_and_gradients(
    scores: Rows | HeatMaps, negatives: Negatives, dtype: torch.dtype, *, masked: bool
) -> Summed:
    """Both without the negatives' scale; as few passes over a chunk as there can be."""
    gamma = _gamma(scores, negatives, dtype)
    grads = [torch.empty_like(x) for x in scores.logits]
    sums = [grads[0].new_zeros(())]
    for chunk in _chunks(scores):
        x, grad = scores.read(chunk, dtype, masked=masked), grads[chunk.level][chunk.place]
        modulation, softplus, _ = focal_factors(x, gamma, negatives.detached, out=grad)
        sums.append(_sum(scores, chunk, modulation, softplus))
        grad.mul_(modulation)
    return torch.stack(sums).sum(), grads


def _sum(scores: Any, chunk: Any, modulation: Tensor, softplus: Tensor) -> Tensor:
    """What a chunk's elements cost; their weights are put to `modulation`, which slopes share."""
    _weigh(modulation, scores, chunk)
    scores.hide_ignored(modulation, chunk)
    scores.hide_own(softplus, chunk)
    return torch.dot(softplus.flatten(), modulation.flatten())


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
        dtype = grad_own.dtype
        gamma = _gamma(scores, negatives, dtype)
        for chunk in _chunks(scores):
            x = scores.read(chunk, dtype)
            modulation, _, slope = focal_factors(x, gamma, negatives.detached)
            _weigh(modulation, scores, chunk)
            # As in the forward pass, to the last bit.
            slope.mul_(modulation)
            scores.hide_ignored(slope, chunk)
            scale = scales[0] if scales[0].dim() == 0 else scales[chunk.level][chunk.place]
            # Rounded to half precision with the scale of the loss in it.
            torch.mul(slope, scale, out=grads[chunk.level][chunk.place])
    scores.put_own(grads, grad_own)
    return grads


def _gamma(scores: Rows | HeatMaps, negatives: Negatives, dtype: torch.dtype) -> float | Tensor:
    gamma = negatives.gamma
    return scores.of_classes(gamma.to(dtype)) if isinstance(gamma, Tensor) else gamma


def _chunks(scores: Rows | HeatMaps) -> Iterator[Any]:
    return scores.chunks()


def _weigh(values: Tensor, scores: Any, chunk: Any) -> None:
    """Multiply a chunk's elements by their weights, in place."""
    for factor in scores.weights(chunk, values.dtype):
        values.mul_(factor)
