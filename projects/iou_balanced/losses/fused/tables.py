"""The tables of class weights as the fused core wants them.

Shapes: N images, K foreground classes, n images and r rows of a chunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..class_tables import ClassWeights


class Tables(NamedTuple):
    """Weights of elements by their kind, each (1, K) or (N, K); None stands for 1.

    An element's weight is the product of those that are about it. Where kinds weigh the same, one
    table for both is read once.
    """

    every: Tensor | None = None
    """All elements of a column."""
    own: Tensor | None = None
    """A positive's own column."""
    rest: Tensor | None = None
    """All elements that are no positive's own."""
    other: Tensor | None = None
    """The other columns of positive rows."""
    background: Tensor | None = None
    """All columns of background rows."""
    row: Tensor | None = None
    """(1, K + 1) or (N, K + 1): all columns of a row with this label, background last."""

    @classmethod
    def of(cls, weights: ClassWeights) -> "Tables":
        """Those of `weights`, as `expand_tables` returns them."""
        if weights.is_one_table:
            return cls(every=weights.own)
        if weights.other is weights.background:
            return cls(own=weights.own, rest=weights.other, row=weights.row)
        return cls(**dict(zip(weights._fields, weights, strict=True)))

    def of_images(self, images: slice | Tensor) -> "Tables":
        """The tables of some of the images."""
        return Tables(*(t if t is None or len(t) == 1 else t[images] for t in self))


def own_weights(
    tables: Tables, images: Tensor, classes: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """(P,) weights of the positives' own elements; None stands for 1.

    Args:
        tables: of all images.
        images: (P,) the image of each positive.
        classes: (P,) its class.
        dtype: of the result.
    """
    weights = None
    for table in (tables.every, tables.own, tables.row):
        if table is not None:
            factor = table.to(dtype)[images if len(table) != 1 else 0, classes]
            weights = factor if weights is None else weights * factor
    return weights


def rest_weights(
    labels: Tensor, tables: Tables, num_classes: int, dtype: torch.dtype
) -> list[Tensor]:
    """Factors, to broadcast with (n, r, K), of the elements that are no positive's own.

    Args:
        labels: (n, r).
        tables: of these images.
        num_classes: K.
        dtype: of the factors.
    """
    factors = [t.to(dtype).unsqueeze(1) for t in (tables.every, tables.rest) if t is not None]
    if tables.other is not None or tables.background is not None:
        one = torch.ones(1, 1, 1, dtype=dtype, device=labels.device)
        other, background = (
            one if t is None else t.to(dtype).unsqueeze(1)
            for t in (tables.other, tables.background)
        )
        is_background = (labels == num_classes).to(dtype).unsqueeze(-1)
        # Products with 0 and 1: exact, and quicker than where() on a CPU.
        factors.append(is_background * background + (1 - is_background) * other)
    if tables.row is not None:
        row = tables.row.to(dtype).expand(len(labels), -1)
        factors.append(row.gather(1, labels.clamp(min=0)).unsqueeze(-1))
    return factors
