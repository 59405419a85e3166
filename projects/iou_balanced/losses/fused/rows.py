"""Dense class scores with integer labels, as the fused core takes them.

Shapes: N images, Ri anchors or points of level i, R of all levels, K foreground classes. A row is
what has one label; the own element of a positive row is that of its label's column.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .chunks import Place, chunks_of
from .tables import Tables, rest_weights

INF = float("inf")


class Chunk(NamedTuple):
    """Rows that are worked on together."""

    level: int
    place: Place
    """In the level's logits."""
    of_labels: Place
    """In the labels."""


class Rows(NamedTuple):
    """Logits and labels of all levels; tensors only, so that autograd can save them."""

    logits: tuple[Tensor, ...]
    """One (N, Ri, K) a level."""
    labels: Tensor
    """(N, R) int64: -1 ignored, 0..K-1 foreground, K background; the levels in a row."""
    tables: Tables

    def chunks(self) -> Iterator[Chunk]:
        first = 0
        for level, x in enumerate(self.logits):
            for images, rows in chunks_of(*x.shape, x.device):
                of_labels = slice(first + rows.start, first + rows.stop)
                yield Chunk(level, (images, rows), (images, of_labels))
            first += x.shape[1]

    def new_own(self, dtype: torch.dtype) -> Tensor:
        """(N, R) zeros, for a number of each row's own element."""
        return torch.zeros_like(self.labels, dtype=dtype)

    def countable(self, chunk: Chunk, own: Tensor | None, dtype: torch.dtype) -> Tensor:
        """(n, r, K) logits of a chunk, -inf where an element does not count here.

        Args:
            chunk: of `chunks`.
            own: (N, R), which gets the logits of the rows' own elements, or None.
            dtype: of the result.
        """
        labels = self.labels[chunk.of_labels]
        # minimum() rather than where(), whose broadcast condition is six times as slow on a CPU.
        bound = torch.where(labels < 0, -INF, INF).to(dtype).unsqueeze(-1)
        x = torch.minimum(self.logits[chunk.level][chunk.place].to(dtype), bound)
        column, is_positive = self._own_column(labels)
        at = x.gather(-1, column)
        if own is not None:
            own[chunk.of_labels] = at.squeeze(-1)
        return x.scatter_(-1, column, at.masked_fill_(is_positive, -INF))

    def put_own(self, values: Tensor, chunk: Chunk, own: Tensor) -> None:
        """Put the (N, R) numbers `own` into the own elements of a chunk's `values`, now 0."""
        column, is_positive = self._own_column(self.labels[chunk.of_labels])
        own = own[chunk.of_labels].unsqueeze(-1).to(values.dtype)
        values.scatter_add_(-1, column, own.masked_fill(~is_positive, 0))

    def put_own_at_the_end(self, grads: list[Tensor], own: Tensor) -> None:
        """Nothing is left to do: see `put_own`."""

    def _own_column(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        num_classes = self.logits[0].shape[-1]
        is_positive = (labels >= 0) & (labels < num_classes)
        return labels.clamp(0, num_classes - 1).unsqueeze(-1), is_positive.unsqueeze(-1)

    def of_classes(self, numbers: Tensor) -> Tensor:
        """(K,) numbers in a shape that broadcasts with a chunk."""
        return numbers

    def weights(self, chunk: Chunk, dtype: torch.dtype) -> list[Tensor]:
        """Factors of a chunk's elements that are no positive's own; they broadcast."""
        tables = self.tables.of_images(chunk.place[0])
        labels = self.labels[chunk.of_labels]
        return rest_weights(labels, tables, self.logits[0].shape[-1], dtype)
