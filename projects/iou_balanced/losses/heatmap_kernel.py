"""Value and gradient of the penalty-reduced focal loss in one pass over the heat maps.

With p = sigmoid(x), softplus(x) = -log(1 - p) and f(x) = p^alpha softplus(x):
    ground truth below 1: (1 - gt)^beta f(x), derivative (1 - gt)^beta f'(x);
    centres, where it is 1: (1 - p)^alpha -log(p) = f(-x), derivative -f'(-x).

Shapes: N images, K foreground classes, H x W cells, P centres.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import positive_rows
from .checks import upcast
from .class_tables import ClassWeights
from .focal_kernel import _focal


def _chunks(shape: torch.Size, device: torch.device) -> Iterator[tuple[slice, slice, slice]]:
    """Whole images, or rows of cells of one image, always with all classes of a cell."""
    if not shape.numel():
        return
    num_images, num_classes, height, width = shape
    size = positive_rows._CHUNK.get(device.type, 1 << 24)
    images = max(size // (num_classes * height * width), 1)
    rows = min(max(size // (num_classes * width), 1), height)
    for image in range(0, num_images, images):
        for row in range(0, height, rows):
            yield slice(image, image + images), slice(None), slice(row, row + rows)


def _element_weights(
    gt_heatmap: Tensor,
    tables: ClassWeights,
    num_images: int,
    images: slice | Tensor,
    dtype: torch.dtype,
) -> Tensor | None:
    """Class weights of the elements of (n, K, h, w) ground truth, in a shape that broadcasts.

    Args:
        gt_heatmap: (n, K, h, w), a part of the ground truth.
        tables: of all images, as `expand_tables` returns them.
        num_images: N.
        images: which n of them the ground truth belongs to.
        dtype: of the result.
    """

    def of_images(table: Tensor | None) -> Tensor:
        if table is None:
            return gt_heatmap.new_ones((), dtype=dtype)
        return table.expand(num_images, -1)[images].to(dtype)[:, :, None, None]

    if tables.is_one_table:
        return None if tables.own is None else of_images(tables.own)
    if tables.row is None:
        peak, label = gt_heatmap.amax(dim=1, keepdim=True), None
    else:
        peak, label = gt_heatmap.max(dim=1, keepdim=True)  # the first of equals
    foreground, weight = peak > 0, None
    if any(table is not None for table in tables[:3]):
        weight = torch.where(foreground, of_images(tables.other), of_images(tables.background))
        weight = torch.where(gt_heatmap > 0, of_images(tables.own), weight)
    if label is None:
        return weight
    label = label.masked_fill(~foreground, gt_heatmap.shape[1])
    row = of_images(tables.row).flatten(1).gather(1, label.flatten(1)).view_as(label)
    return row if weight is None else weight.mul_(row)


@torch.no_grad()
def center_terms(
    pred_logits: Tensor,
    gt_heatmap: Tensor,
    centers: tuple[Tensor, ...],
    tables: ClassWeights,
    alpha: float,
) -> Tensor:
    """(P,) loss of each centre, class-weighted, without gradient.

    Args:
        pred_logits: (N, K, H, W).
        gt_heatmap: (N, K, H, W).
        tables: as `expand_tables` returns them.
        alpha: exponent of the score.
        centers: the four (P,) indices of the elements whose ground truth is 1.
    """
    images, classes, y, x = centers
    terms = _focal(-upcast(pred_logits[centers]), alpha, with_grad=False)[0]
    cells = gt_heatmap[images, :, y, x][:, :, None, None]
    weight = _element_weights(cells, tables, len(gt_heatmap), images, terms.dtype)
    if weight is None:
        return terms
    return terms.mul_(weight.expand_as(cells).flatten(1).gather(1, classes[:, None]).squeeze(1))


class Balance(NamedTuple):
    """Eq. 4 on the centres of heat maps."""

    centers: tuple[Tensor, ...]
    """The four (P,) indices of the elements whose ground truth is 1."""
    terms: Tensor
    """(P,) loss of each, class-weighted."""
    factors: Tensor
    """(P,) weight of each."""


class HeatmapFocalTerms(torch.autograd.Function):
    """Penalty-reduced focal loss: (N, K, H, W) float for reduction "none", else the sum.

    As `focal_kernel.FocalTerms`: the gradient is made together with the value, chunk by chunk,
    and one float32 tensor of the logits' size is all that is kept for the backward pass. Centres
    are told apart by comparing, not by index, so that a GPU is not waited for.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pred_logits: Tensor,
        gt_heatmap: Tensor,
        balance: Balance | None,
        tables: ClassWeights,
        alpha: float,
        beta: float,
        reduction: str,
    ) -> Tensor:
        with_grad = ctx.needs_input_grad[0]
        dtype = torch.promote_types(pred_logits.dtype, torch.float32)
        terms = torch.empty_like(pred_logits, dtype=dtype) if reduction == "none" else None
        grad = torch.empty_like(pred_logits, dtype=dtype) if with_grad else None

        sums = [pred_logits.new_zeros((), dtype=dtype)]
        for chunk in _chunks(pred_logits.shape, pred_logits.device):
            gt = gt_heatmap[chunk]
            is_center = gt == 1
            sign = torch.where(is_center, -1.0, 1.0).to(dtype)
            # In the dtype of `sign`: never in half precision.
            value, *slope = _focal(pred_logits[chunk] * sign, alpha, with_grad)
            # The square of the root, because a power of 2 is a product, and one of 4 is slow.
            weight = (1 - gt.to(dtype)).pow_(beta / 2).square_().masked_fill_(is_center, 1)
            class_weight = _element_weights(gt, tables, len(gt_heatmap), chunk[0], dtype)
            if class_weight is not None:
                weight.mul_(class_weight)
            value.mul_(weight)
            if grad is not None:
                torch.mul(slope[0], weight.mul_(sign), out=grad[chunk])
            if terms is not None:
                terms[chunk] = value
            else:
                sums.append((value if balance is None else value.masked_fill(is_center, 0)).sum())

        if balance is not None:
            centers, unbalanced, factors = balance
            balanced = unbalanced * factors
            sums.append(balanced.sum())
            if terms is not None:
                terms[centers] = balanced
            if grad is not None:
                grad[centers] = grad[centers] * factors

        ctx.save_for_backward(grad)
        ctx.dtype = pred_logits.dtype
        return torch.stack(sums).sum() if terms is None else terms

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "penalty-reduced focal loss here has no second derivative (create_graph=True)"
            )
        (grad,) = ctx.saved_tensors
        return (grad * grad_output).to(ctx.dtype), None, None, None, None, None, None
