"""Value and slope of one element: the formulas, once, for every backend.

With p = sigmoid(x), softplus(x) = -log(1 - p), and an exponent g:
    a negative: p^g softplus(x),
        slope p^g [g (1 - p) softplus(x) + p]; with p^g as a constant ("detached") p^g p;
    a positive's own element, its target 1: (1 - p)^g softplus(-x), the negative's at -x;
    with a target y in [0, 1] (quality focal loss), s = p - y, cross entropy b = softplus(x) - x y:
        |s|^g b, slope g |s|^(g - 1) sign(s) p (1 - p) b + |s|^g s.

An element that does not count has x = -inf: value and slope are then exactly 0.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def softplus_and_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + e^x) and 1 / (1 + e^-x), exact to rounding for every x; -inf gives 0 and 0."""
    if torch.compiler.is_compiling():  # one exponential for both
        e = torch.exp(-x.abs())
        larger = 1 / (1 + e)
        return torch.log1p(e) + x.clamp(min=0), torch.where(x >= 0, larger, e * larger)
    # From 40 on, x itself: e^-40 is below the rounding of float64 too.
    return F.softplus(x, threshold=40.0), torch.sigmoid(x)


def focal_value(x: Tensor, gamma: float | Tensor) -> Tensor:
    """p^g softplus(x).

    Args:
        x: any shape, float32 or float64.
        gamma: g; a tensor has to broadcast with `x`.
    """
    softplus, p = softplus_and_sigmoid(x)
    return softplus.mul_(p.pow_(gamma))


def focal_slope(x: Tensor, gamma: float | Tensor, detached: bool = False) -> Tensor:
    """The derivative of `focal_value` by x.

    Args:
        x: see `focal_value`.
        gamma: see `focal_value`.
        detached: whether p^g is a constant.
    """
    return focal_value_and_slope(x, gamma, detached)[1]


def focal_value_and_slope(
    x: Tensor, gamma: float | Tensor, detached: bool = False
) -> tuple[Tensor, Tensor]:
    """Both of them for the price of one; see `focal_slope`."""
    modulation, softplus, bracket = focal_factors(x, gamma, detached)
    return softplus.mul_(modulation), bracket.mul_(modulation)


def focal_factors(
    x: Tensor, gamma: float | Tensor, detached: bool = False, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """p^g, and what it multiplies in the value, softplus(x), and in the slope, the bracket.

    Args:
        x: see `focal_value`.
        gamma: see `focal_value`.
        detached: see `focal_slope`.
        out: where the bracket is written.
    """
    softplus, p = softplus_and_sigmoid(x)
    if detached:
        bracket = p.clone() if out is None else out.copy_(p)
    elif isinstance(gamma, Tensor):
        bracket = torch.addcmul(p, (1 - p).mul_(gamma), softplus, out=out)
    else:
        bracket = torch.addcmul(p, 1 - p, softplus, value=gamma, out=out)
    return p.pow_(gamma), softplus, bracket


def quality_value(x: Tensor, target: Tensor, gamma: float) -> Tensor:
    """|p - y|^g times the binary cross entropy with the target y.

    Args:
        x: (P,) float32 or float64.
        target: (P,) y.
        gamma: g.
    """
    softplus, p = softplus_and_sigmoid(x)
    return (p - target).abs() ** gamma * (softplus - x * target)


def quality_slope(x: Tensor, target: Tensor, gamma: float) -> Tensor:
    """The derivative of `quality_value` by x; y is a constant."""
    softplus, p = softplus_and_sigmoid(x)
    distance = p - target
    slope = distance.abs() ** gamma * distance
    if gamma == 0:
        return slope
    focusing = gamma * distance.abs() ** (gamma - 1) * distance.sign() * p * (1 - p)
    # Where p = y it would be 0 * 0^(gamma - 1), a NaN for gamma below 1.
    return slope + torch.where(distance == 0, 0.0, focusing) * (softplus - x * target)


class _Element(torch.autograd.Function):
    """An element function with its slope as the derivative by its first argument."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Callable[..., Tensor], slope: Callable[..., Tensor], *args: Any
    ) -> Tensor:
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(slope(x, *args))
        ctx.num_args = len(args)
        return value(x, *args)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (grad_output * slope, *[None] * (2 + ctx.num_args))


def own_focal(own_logits: Tensor, gamma: float | Tensor) -> Tensor:
    """(P,) (1 - p)^g softplus(-x) of the positives' own elements, with gradient."""
    terms: Tensor = _Element.apply(  # type: ignore[no-untyped-call]
        -own_logits, focal_value, focal_slope, gamma
    )
    return terms


def own_quality(own_logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """(P,) |p - y|^g BCE(p, y) of the positives' own elements, with gradient."""
    terms: Tensor = _Element.apply(  # type: ignore[no-untyped-call]
        own_logits, quality_value, quality_slope, target, gamma
    )
    return terms
