"""One pass forward, one pass backward over class scores, for every sigmoid loss.

The elements of dense class scores are of two kinds. Nearly all are no positive's own: their loss
(`Negatives`) is summed and differentiated here, without a tensor of the logits' size beside the
logits and the gradient. A positive's own element, one a positive, is picked out: it is an output
whose gradient comes back, so that a loss computes with it what it likes, by autograd.

Forward reads the logits. Backward reads them again and writes the gradient, in which the scale of
the loss is before it is rounded to half precision. So a float16 gradient does not underflow.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from .backends import choose
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows


class _SplitScores(torch.autograd.Function):
    """See `split_scores`."""

    @staticmethod
    def forward(
        ctx: Any,
        negatives: Negatives,
        elementwise: bool,
        backend: Any,
        name: str,
        spec: Any,
        *leaves: Any,
    ) -> tuple[Tensor, ...]:
        scores = tree_unflatten(leaves, spec)
        with_grad = any(ctx.needs_input_grad)
        own, rest, made = backend.forward(scores, negatives, elementwise, with_grad)
        if with_grad:
            ctx.save_for_backward(*[x if isinstance(x, Tensor) else None for x in leaves])
        ctx.rest = [None if isinstance(x, Tensor) else x for x in leaves]
        ctx.call = (negatives, backend, name, spec, made)
        return (own, *rest)

    @staticmethod
    def backward(ctx: Any, grad_own: Tensor, *grad_rest: Tensor) -> tuple[Tensor | None, ...]:
        negatives, backend, name, spec, made = ctx.call
        if torch.is_grad_enabled():
            raise RuntimeError(f"{name} here has no second derivative (create_graph=True)")
        pairs = zip(ctx.saved_tensors, ctx.rest, strict=True)
        leaves = [other if x is None else x for x, other in pairs]
        scores = tree_unflatten(leaves, spec)
        grads = backend.backward(scores, negatives, grad_own, list(grad_rest), made)
        return (*[None] * 5, *grads, *[None] * (len(leaves) - len(grads)))


def split_scores(
    scores: Rows | HeatMaps,
    negatives: Negatives,
    *,
    elementwise: bool = False,
    backend: str | None = None,
    name: str = "focal loss",
) -> tuple[Tensor, list[Tensor]]:
    """The logits of own elements, and the loss of all others; both with gradient.

    Args:
        scores: what the logits are, and which elements count.
        negatives: the loss of an element that is no positive's own.
        elementwise: whether the loss is wanted of each element, and not as a sum.
        backend: "eager", "compile" or "triton"; None chooses, see `backends.choose`.
        name: of the loss, for errors.

    Returns:
        Own elements, float32 (float64 for float64): (N, R) for `Rows`, of which only those of
        positive rows mean something, (P,) for `HeatMaps`. And the sum of the others; or with
        `elementwise` one tensor a level, of its logits' shape, 0 for own and ignored elements.

    Raises:
        ValueError: there is no such backend.
        RuntimeError: in the backward pass, with create_graph=True.
    """
    leaves, spec = tree_flatten(scores)
    own, *rest = _SplitScores.apply(  # type: ignore[no-untyped-call]
        negatives, elementwise, choose(scores, negatives, backend), name, spec, *leaves
    )
    return own, rest


def concatenate(levels: Sequence[Tensor]) -> Tensor:
    """(N, Ri, K) of each level -> (N, R, K), no copy for one level."""
    return levels[0] if len(levels) == 1 else torch.cat(list(levels), dim=1)
