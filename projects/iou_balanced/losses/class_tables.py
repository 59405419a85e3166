"""Tables of class weights, one for all elements of a classification loss or apart by their kind.

Shapes: N images, K foreground classes, R rows of an image (anchors, points, heat map cells).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class ClassWeights(NamedTuple):
    """Weights of the elements of dense class scores (N, R, K); None stands for 1.

    The weight of an element is that of its kind, times the one of its row. Where a loss takes
    `class_weight`, a tensor (K,) or (N, K) stands for itself as `own`, `other` and `background`.
    """

    own: Tensor | None = None
    """(K,) or (N, K): each positive's own class column."""
    other: Tensor | None = None
    """(K,) or (N, K): the other columns of a positive row."""
    background: Tensor | None = None
    """(K,) or (N, K): all columns of a background row."""
    row: Tensor | None = None
    """(K + 1,) or (N, K + 1): all columns of a row with this label, background last."""

    @property
    def is_one_table(self) -> bool:
        """Whether all elements of a column have the same weight."""
        return self.own is self.other and self.own is self.background and self.row is None


def expand_tables(
    class_weight: Tensor | ClassWeights | None, num_classes: int, num_images: int | None
) -> ClassWeights:
    """Check the tables' shapes and make each (1, K) or (N, K), without gradient.

    Args:
        class_weight: as a loss takes it: (K,) or (N, K), `ClassWeights`, or None.
        num_classes: K.
        num_images: N, the first dimension of the logits; None where only one table for all
            images makes sense.

    Raises:
        ValueError: a table's shape is none of these.
    """
    if class_weight is None:
        return ClassWeights()
    if isinstance(class_weight, Tensor):
        table = _expand("class_weight", class_weight, num_classes, num_images)
        return ClassWeights(table, table, table)
    if not isinstance(class_weight, ClassWeights):
        raise ValueError(
            "Expected argument `class_weight` to be a tensor, ClassWeights or None, "
            f"but got {type(class_weight)}"
        )
    if class_weight.is_one_table:
        return expand_tables(class_weight.own, num_classes, num_images)
    tables = ClassWeights(
        *(
            None
            if table is None
            else _expand(f"class_weight.{name}", table, num_classes + (name == "row"), num_images)
            for name, table in zip(ClassWeights._fields, class_weight, strict=True)
        )
    )
    if class_weight.other is class_weight.background:  # one table is read once
        return tables._replace(background=tables.other)
    return tables


def multiply_tables(weights: ClassWeights, own: Tensor, rest: Tensor) -> ClassWeights:
    """Tables with the factors of a loss in them, without gradient.

    Args:
        weights: as `expand_tables` returns them.
        own: (K,) factor of each positive's own element.
        rest: (K,) of all others; the same tensor as `own` where all of a column have one factor.
    """

    def times(table: Tensor | None, factor: Tensor) -> Tensor | None:
        return factor.detach() if table is None else _one_or_by_image(table * factor.detach())

    if own is rest and weights.own is weights.other and weights.own is weights.background:
        table = times(weights.own, own)
        return ClassWeights(table, table, table, _one_or_by_image(weights.row))
    background = times(weights.background, rest)
    same = weights.other is weights.background
    other = background if same else times(weights.other, rest)
    return ClassWeights(
        times(weights.own, own), other, background, row=_one_or_by_image(weights.row)
    )


def _one_or_by_image(table: Tensor | None) -> Tensor | None:
    """A table as a loss takes it, from one of `expand_tables`: (K,) or (N, K)."""
    return table[0] if table is not None and len(table) == 1 else table


def _expand(name: str, table: Tensor, columns: int, num_images: int | None) -> Tensor:
    allowed = [(columns,)] + ([] if num_images is None else [(num_images, columns)])
    if tuple(table.shape) not in allowed:
        letters = "(K + 1,) or (N, K + 1)" if name.endswith(".row") else "(K,) or (N, K)"
        raise ValueError(
            f"Expected argument `{name}` to have a shape {letters} in {allowed}, "
            f"but got {tuple(table.shape)}"
        )
    # No gradient flows into a weight.
    return table.detach().reshape(-1, columns)


def join_tables(parts: Sequence[ClassWeights]) -> ClassWeights:
    """The tables of all parts of a batch: (N, K) by image one after the other, (K,) as they are."""

    def join(tables: Sequence[Tensor | None]) -> Tensor | None:
        if tables[0] is None or tables[0].dim() != 2:
            return tables[0]
        return torch.cat([table for table in tables if table is not None])

    if all(x.is_one_table for x in parts):
        return ClassWeights(*[join([x.own for x in parts])] * 3)
    return ClassWeights(*map(join, zip(*parts, strict=True)))
