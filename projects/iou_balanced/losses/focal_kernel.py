"""Value and gradient of sigmoid focal loss in one pass over the logits, without one-hot targets.

With p = sigmoid(x), softplus(x) = -log(1 - p) and the focusing exponent g:
    background: (1 - alpha) p^g softplus(x),
        derivative (1 - alpha) p^g [g (1 - p) softplus(x) + p];
    foreground: alpha (1 - p)^g softplus(-x): the same at -x, with alpha for 1 - alpha.
With a target y in [0, 1] for a foreground element (quality focal loss), s = p - y and the binary
cross entropy b = softplus(x) - x y:
    |s|^g b, derivative g |s|^(g - 1) sign(s) p (1 - p) b + |s|^g s.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import upcast
from .class_tables import ClassWeights, image_of_rows
from .positive_rows import Chunk, RowIndex


def _focal(x: Tensor, gamma: float, with_grad: bool) -> tuple[Tensor, ...]:
    """p^g softplus(x), and its derivative where asked for, both new tensors."""
    softplus, p = F.softplus(x), torch.sigmoid(x)
    modulation = p**gamma
    if not with_grad:
        return (softplus.mul_(modulation),)
    grad = (1 - p).mul_(softplus).mul_(gamma).add_(p).mul_(modulation)
    return softplus.mul_(modulation), grad


def _alphas(alpha: float) -> tuple[float, float]:
    return (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)


def _quality(x: Tensor, y: Tensor, gamma: float, with_grad: bool) -> tuple[Tensor, ...]:
    """|p - y|^g times the binary cross entropy with y, and its derivative by x if asked for."""
    p = torch.sigmoid(x)
    cross_entropy, distance = F.softplus(x) - x * y, p - y
    modulation = distance.abs() ** gamma
    if not with_grad:
        return (modulation * cross_entropy,)
    grad = modulation * distance
    if gamma:
        slope = gamma * distance.abs() ** (gamma - 1) * distance.sign() * p * (1 - p)
        # Where p = y it would be 0 * 0^(gamma - 1), a NaN for gamma below 1.
        grad = grad + torch.where(distance == 0, 0.0, slope) * cross_entropy
    return modulation * cross_entropy, grad


def _positive_terms(
    flat: Tensor,
    positives: RowIndex,
    target: Tensor | None,
    tables: ClassWeights,
    num_rows: int,
    alpha: float,
    gamma: float,
    with_grad: bool,
) -> tuple[Tensor, ...]:
    """(P,) loss of each positive's own element, class-weighted, and its derivative if asked for."""
    x = upcast(flat[positives.rows, positives.classes])
    if target is None:
        terms, *slope = _focal(-x, gamma, with_grad)
        values = (terms, *(-s for s in slope))
    else:
        values = _quality(x, target.to(x.dtype), gamma, with_grad)
    scale: Tensor | float = _alphas(alpha)[0]
    for table in (tables.own, tables.row):
        if table is not None:
            images = image_of_rows(positives.rows, num_rows, table)
            scale = scale * table[images, positives.classes].to(x.dtype)
    return tuple(v * scale for v in values)


@torch.no_grad()
def positive_terms(
    pred_logits: Tensor,
    gt_labels: Tensor,
    positives: RowIndex,
    tables: ClassWeights,
    alpha: float,
    gamma: float,
) -> Tensor:
    """(P,) loss of each positive's own class column, class-weighted, without gradient."""
    flat = pred_logits.reshape(-1, pred_logits.shape[-1])
    return _positive_terms(
        flat, positives, None, tables, gt_labels.numel(), alpha, gamma, with_grad=False
    )[0]


class _ChunkScale:
    """Weights of the elements of a chunk that are no positive's own."""

    def __init__(self, tables: ClassWeights, positives: RowIndex, num_rows: int, alpha: float):
        self.tables, self.positives, self.num_rows = tables, positives, num_rows
        self.scale = _alphas(alpha)[1]
        # Rows apart: those of positives have weights of their own.
        self.positive_rows_differ = tables.other is not tables.background or tables.row is not None

    def __call__(self, chunk: Chunk, *values: Tensor) -> None:
        """Scale (rows, K) values in place; each positive's own element gets what comes later."""
        tables, rows, dtype = self.tables, chunk.rows, values[0].dtype
        factors: list[Tensor | float] = [self.scale]
        if tables.background is not None:
            factors = [self._of_rows(tables.background, rows).to(dtype) * self.scale]
        if tables.row is not None:
            factors.append(self._of_rows(tables.row[:, -1:], rows).to(dtype))
        positive_rows = self.positives.rows[chunk.positives]
        local = positive_rows - rows.start
        for value in values:
            kept = value[local] if self.positive_rows_differ else None
            for factor in factors:
                value.mul_(factor)
            if kept is not None:
                value[local] = kept * self._of_positive_rows(chunk, positive_rows, dtype)

    def _of_rows(self, table: Tensor, rows: slice) -> Tensor:
        """Each row's entry of a table (1 or N, ...); a single one where the rows are an image's."""
        size = max(self.num_rows // max(len(table), 1), 1)
        first, last = rows.start // size, (rows.stop - 1) // size
        if first == last:
            return table[first : first + 1]
        index = torch.arange(rows.start, rows.stop, device=table.device)
        return table[image_of_rows(index, self.num_rows, table)]

    def _of_positive_rows(self, chunk: Chunk, rows: Tensor, dtype: torch.dtype) -> Tensor | float:
        scale: Tensor | float = self.scale
        if self.tables.other is not None:
            images = image_of_rows(rows, self.num_rows, self.tables.other)
            scale = scale * self.tables.other.to(dtype)[images]
        if self.tables.row is not None:
            images = image_of_rows(rows, self.num_rows, self.tables.row)
            classes = self.positives.classes[chunk.positives]
            scale = scale * self.tables.row.to(dtype)[images, classes, None]
        return scale


class FocalTerms(torch.autograd.Function):
    """Focal loss terms: (..., K) float for reduction "none", else their sum.

    The gradient is made together with the value, so that one float32 tensor of the logits' size
    is kept for the backward pass, and nothing else of that size outlives a chunk. It is float32
    for half precision too: a float16 slope would underflow before the loss scale reaches it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred_logits: Tensor,
        gt_labels: Tensor,
        positives: RowIndex,
        pos_weight: Tensor | None,
        pos_target: Tensor | None,
        tables: ClassWeights,
        alpha: float,
        gamma: float,
        reduction: str,
    ) -> Tensor:
        num_classes, with_grad = pred_logits.shape[-1], ctx.needs_input_grad[0]
        flat, labels = pred_logits.reshape(-1, num_classes), gt_labels.reshape(-1)
        dtype = torch.promote_types(pred_logits.dtype, torch.float32)
        elementwise = flat.new_empty(flat.shape, dtype=dtype) if reduction == "none" else None
        grad = torch.empty_like(flat, dtype=dtype) if with_grad else None

        # Value and, with the gradient, slope: of the positives here, of a chunk's elements below.
        pos_values = _positive_terms(
            flat, positives, pos_target, tables, labels.numel(), alpha, gamma, with_grad
        )
        if pos_weight is not None:
            pos_values = tuple(v * pos_weight for v in pos_values)

        sums = [flat.new_zeros((), dtype=dtype)]
        scale = _ChunkScale(tables, positives, labels.numel(), alpha)
        for chunk in positives.chunks:
            rows, pos, ignored = chunk
            values = _focal(upcast(flat[rows]), gamma, with_grad)
            scale(chunk, *values)
            own = (positives.rows[pos] - rows.start, positives.classes[pos])
            for value, pos_value in zip(values, pos_values, strict=True):
                value[own] = pos_value[pos]
                value[ignored] = 0
            if grad is not None:
                grad[rows] = values[1]
            if elementwise is None:
                sums.append(values[0].sum())
            else:
                elementwise[rows] = values[0]

        ctx.save_for_backward(grad)
        ctx.shape, ctx.dtype = pred_logits.shape, pred_logits.dtype
        if elementwise is None:
            return torch.stack(sums).sum()
        return elementwise.reshape(pred_logits.shape)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("focal loss here has no second derivative (create_graph=True)")
        (grad,) = ctx.saved_tensors
        if grad_output.dim():
            grad_output = grad_output.reshape(grad.shape)
        grad = (grad * grad_output).to(ctx.dtype)
        return (grad.reshape(ctx.shape), *[None] * 8)
