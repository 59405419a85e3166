"""The backend of Triton, for `Rows` on a GPU: one kernel each for value and gradient.

It has never run on a GPU; in Triton's interpreter, on a CPU, it is equal to the reference. So it is
the default nowhere.
"""

import os

import torch
from torch import Tensor

from . import eager
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows

try:
    from . import triton_kernels as kernels
except ImportError:
    kernels = None  # type: ignore[assignment]

BLOCK = 1024


def why_not(scores: Rows | HeatMaps, negatives: Negatives) -> str | None:
    """Why these scores cannot be done here; None where they can."""
    if kernels is None:
        return "Triton is not installed"
    x = scores.logits[0]
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"it is for a GPU, but got logits on {x.device}"
    if not isinstance(scores, Rows):
        return "it is for labels, but got a heat map"
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it is for float32, float16 and bfloat16, but got {x.dtype}"
    return None


def forward(
    scores: Rows, negatives: Negatives, elementwise: bool, with_grad: bool
) -> tuple[Tensor, list[Tensor], eager.Grads]:
    """See `eager.forward`; "none", which is for looking at terms, is left to that."""
    if elementwise:
        return eager.forward(scores, negatives, elementwise, with_grad)
    sums = [
        _launch(part, negatives, None, None).sum() for part in scores.per_level() if part.num_rows()
    ]
    own = scores.own(torch.float32)
    total = torch.stack(sums).sum() if sums else own.new_zeros(())
    return own, [total * negatives.scale], eager.Grads(None)


def backward(
    scores: Rows,
    negatives: Negatives,
    grad_own: Tensor,
    grad_rest: list[Tensor],
    made: eager.Grads,
) -> list[Tensor]:
    """See `eager.backward`."""
    if grad_rest[0].dim():
        return eager.backward(scores, negatives, grad_own, grad_rest, made)
    owns = grad_own.split(scores.sizes(), dim=1)
    scale = grad_rest[0] * negatives.scale
    return [
        _launch(part, negatives, scale, own)
        if part.num_rows()
        else torch.zeros_like(part.logits[0])
        for part, own in zip(scores.per_level(), owns, strict=True)
    ]


def _launch(part: Rows, negatives: Negatives, scale: Tensor | None, own: Tensor | None) -> Tensor:
    """Partial sums without `scale`; the gradient of the one level with it."""
    logits = part.logits[0].contiguous()
    num_images, num_rows, num_classes = logits.shape
    labels = part.labels.int().contiguous()
    tables, dtype = part.tables, torch.float32
    # A weight for each row, 0 where it is ignored; and of columns, for positive and other rows.
    of_rows = (labels >= 0).to(dtype)
    if tables.row is not None:
        row = tables.row.to(dtype).expand(num_images, -1)
        of_rows = of_rows * row.gather(1, part.labels.clamp(min=0))
    columns = [
        _product(num_images, num_classes, x, tables.every, tables.rest)
        for x in (tables.other, tables.background)
    ]
    has_tables = any(x is not None for x in tables[:5])
    one = torch.ones(num_images, num_classes, device=logits.device) if has_tables else of_rows
    other, background = (one if x is None else x for x in columns)
    gamma = negatives.gamma
    gammas = gamma.to(dtype).contiguous() if isinstance(gamma, Tensor) else of_rows
    numel = logits.numel()
    grid = (-(-numel // BLOCK),)
    out = torch.empty_like(logits) if scale is not None else logits.new_empty(grid, dtype=dtype)
    kernels.rows_kernel[grid](
        logits,
        labels,
        of_rows,
        other,
        background,
        gammas,
        out if scale is None else scale.to(dtype),
        of_rows if own is None else own.contiguous(),
        out,
        numel,
        num_rows * num_classes,
        0.0 if isinstance(gamma, Tensor) else float(gamma),
        NUM_CLASSES=num_classes,
        HAS_TABLES=has_tables,
        GAMMA_TABLE=isinstance(gamma, Tensor),
        DETACHED=negatives.detached,
        GRADIENT=scale is not None,
        BLOCK=BLOCK,
    )
    return out


def _product(num_images: int, num_classes: int, *tables: Tensor | None) -> Tensor | None:
    given = [t.float() for t in tables if t is not None]
    if not given:
        return None
    product = given[0]
    for table in given[1:]:
        product = product * table
    return product.expand(num_images, num_classes).contiguous()
