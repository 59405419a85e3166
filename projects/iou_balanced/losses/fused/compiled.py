"""The backend of torch.compile: one compiled function for all levels.

Number of classes, dtype and kinds of weights are compiled in; sizes of images, batches and maps
are not. On a CPU the slope is made along with the value, as by the eager backend; on a GPU, where
memory binds and not arithmetic, the backward pass computes it again.
"""

import os
import shutil
import types
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from . import eager
from .elements import focal_slope, focal_value, focal_value_and_slope
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows

MOST_FUNCTIONS = 16
"""Settings (classes, dtypes, kinds of weights, exponents) that are compiled in one process."""
COMPILER = "inductor"
_functions: dict[tuple[Any, ...], Callable[..., Any]] = {}
_broken: str | None = None


def has_failed() -> bool:
    """Whether a compilation has failed in this process, and a warning has said so."""
    return _broken is not None


def why_not(scores: Rows | HeatMaps, negatives: Negatives) -> str | None:
    """Why these scores cannot be compiled; None where they can."""
    logits = scores.logits
    if _broken is not None:
        return _broken
    if logits[0].device.type not in ("cpu", "cuda"):
        return f"it is for a CPU or a GPU of NVIDIA or AMD, but got {logits[0].device}"
    if logits[0].device.type == "cpu":
        compilers = [x] if (x := os.environ.get("CXX")) else ["g++", "clang++", "cl"]
        if not any(map(shutil.which, compilers)):
            here = f"CXX={x} is none" if x else "there is none"
            return f"torch.compile needs a C++ compiler, and {here}"
    # A size of 0 or 1 would be compiled in.
    if any(size < 2 for x in logits for size in x.shape[1:-1]) or not logits[0].numel():
        return "a level has fewer than two rows"
    return None


def forward(
    scores: Rows | HeatMaps, negatives: Negatives, elementwise: bool, with_grad: bool
) -> tuple[Tensor, list[Tensor], eager.Grads]:
    """See `eager.forward`; "none", which is for looking at terms, is left to that."""
    dtype = torch.promote_types(scores.logits[0].dtype, torch.float32)
    if elementwise:
        return eager.forward(scores, negatives, elementwise, with_grad)
    in_one_pass = with_grad and scores.logits[0].device.type == "cpu"
    in_one_pass = in_one_pass and scores.logits[0].dtype == dtype
    out = _run("sums and slopes" if in_one_pass else "sums", scores, negatives, dtype)
    if out is None:
        return eager.forward(scores, negatives, elementwise, with_grad)
    total, *grads = out
    return scores.own(dtype), [total], eager.Grads(grads if in_one_pass else None, scaled=True)


def backward(
    scores: Rows | HeatMaps,
    negatives: Negatives,
    grad_own: Tensor,
    grad_rest: list[Tensor],
    made: eager.Grads,
) -> list[Tensor]:
    """See `eager.backward`."""
    if made.levels is None and grad_rest[0].dim() == 0:
        grads = _run("gradients", scores, negatives, grad_own.dtype, grad_rest[0])
        if grads is not None:
            scores.put_own(grads, grad_own)
            return grads
    return eager.backward(scores, negatives, grad_own, grad_rest, made)


def _run(
    what: str,
    scores: Rows | HeatMaps,
    negatives: Negatives,
    dtype: torch.dtype,
    grad: Tensor | None = None,
) -> list[Tensor] | None:
    """Call the compiled function; None, and a warning, where that fails.

    Raises:
        OutOfMemoryError: of the device, which no other backend would help.
    """
    global _broken
    from .backends import warn_once

    gamma = negatives.gamma if isinstance(negatives.gamma, Tensor) else None
    key = (what, *_what_is_compiled_in(scores, negatives))
    if key not in _functions:
        if len(_functions) >= MOST_FUNCTIONS:
            warn_once(f"more than {MOST_FUNCTIONS} settings of losses: the others are not compiled")
            return None
        _functions[key] = _compile(what, scores, negatives, dtype)
    try:
        with torch.no_grad(), torch.autocast(scores.logits[0].device.type, enabled=False):
            done: list[Tensor] = _functions[key](_tensors(scores), gamma, grad)
            return done
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler does: a training must not end of it
        lines = (str(error).strip() or type(error).__name__).splitlines()
        # The first line of Dynamo's own error says which backend failed, the second why.
        _broken = f"torch.compile failed ({type(error).__name__}: {' '.join(lines[:2])})"
        warn_once(f"{_broken}; the losses go on without it")
        return None


def _what_is_compiled_in(scores: Rows | HeatMaps, negatives: Negatives) -> tuple[Any, ...]:
    leaves = tree_leaves(scores)
    described = tuple(
        (x.dtype, x.device.type, x.dim(), x.shape[0] == 1, x.is_contiguous())
        if isinstance(x, Tensor)
        else x
        for x in leaves
    )
    gamma = "table" if isinstance(negatives.gamma, Tensor) else negatives.gamma
    return type(scores), scores.num_classes, described, gamma, *negatives[1:]


def _tensors(scores: Rows | HeatMaps) -> list[Tensor | None]:
    """The leaves of `scores`, without numbers, marked where their sizes change."""
    leaves: list[Tensor | None] = []
    for x in tree_leaves(scores.per_level()):
        if not isinstance(x, Tensor):
            leaves.append(None)
            continue
        x = x.detach()  # the marks are not the caller's business
        for dim in scores.dynamic_dims if x.dim() > 1 else (0,):
            if dim < x.dim():
                torch._dynamo.maybe_mark_dynamic(x, dim)
        leaves.append(x)
    return leaves


def _compile(
    what: str, scores: Rows | HeatMaps, negatives: Negatives, dtype: torch.dtype
) -> Callable[..., Any]:
    scale, detached, number = negatives.scale, negatives.detached, negatives.gamma
    leaves, spec = tree_flatten(scores.per_level())
    numbers = [None if isinstance(x, Tensor) else x for x in leaves]

    def function(
        tensors: list[Tensor | None], gamma: Tensor | None, grad: Tensor | None
    ) -> list[Tensor]:
        pairs = zip(tensors, numbers, strict=True)
        parts = tree_unflatten([n if t is None else t for t, n in pairs], spec)
        sums, slopes = [], []
        for part in parts:
            logits, chunk = part.logits[0], part.whole()
            x = logits.to(dtype)
            g = number if gamma is None else part.of_classes(gamma.to(dtype))
            value = slope = None
            if what == "sums":
                value = focal_value(x, g)
            elif what == "gradients":
                slope = focal_slope(x, g, detached)
            else:
                value, slope = focal_value_and_slope(x, g, detached)
            weight = scale if grad is None else grad * scale
            for factor in part.weights(chunk, dtype):
                weight = weight * factor
            left_out = part.left_out(chunk)
            if value is not None:
                sums.append(torch.where(left_out, 0.0, value * weight).sum())
            if slope is not None:
                slopes.append(torch.where(left_out, 0.0, slope * weight).to(logits.dtype))
        return [torch.stack(sums).sum(), *slopes] if sums else slopes

    # Dynamo bounds the compilations of a code object: each setting has one of its own.
    code = function.__code__.replace(co_name=f"function_{len(_functions)}")
    own = types.FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)
    return torch.compile(own, fullgraph=True, backend=COMPILER)
