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

    dynamic_dims = (0, 1)
    """Of logits and labels: those whose size changes from batch to batch."""

    @property
    def num_classes(self) -> int:
        return self.logits[0].shape[-1]

    def sizes(self) -> list[int]:
        """Ri of each level."""
        return [x.shape[1] for x in self.logits]

    def num_rows(self) -> int:
        """Of all levels and images."""
        return self.labels.numel() if self.num_classes else 0

    def chunks(self) -> Iterator[Chunk]:
        first = 0
        for level, x in enumerate(self.logits):
            for images, rows in chunks_of(*x.shape, x.device):
                of_labels = slice(first + rows.start, first + rows.stop)
                yield Chunk(level, (images, rows), (images, of_labels))
            first += x.shape[1]

    def per_level(self) -> list["Rows"]:
        """The same of each level alone."""
        labels = self.labels.split(self.sizes(), dim=1)
        return [Rows((x,), y, self.tables) for x, y in zip(self.logits, labels, strict=True)]

    @staticmethod
    def whole() -> Chunk:
        """All rows of the first level as one chunk."""
        everything = (slice(None), slice(None))
        return Chunk(0, everything, everything)

    def left_out(self, chunk: Chunk) -> Tensor:
        """(n, r, K) bool: own elements of positives, and ignored rows."""
        labels = self.labels[chunk.of_labels].int().unsqueeze(-1)
        columns = torch.arange(self.num_classes, device=labels.device, dtype=labels.dtype)
        return (labels == columns) | (labels < 0)

    def own(self, dtype: torch.dtype) -> Tensor:
        """(N, R) logit of each row's own element; of a row that has none, any number."""
        columns = self.labels.clamp(0, self.num_classes - 1).unsqueeze(-1).split(self.sizes(), 1)
        picked = [x.gather(-1, c) for x, c in zip(self.logits, columns, strict=True)]
        return torch.cat(picked, dim=1).squeeze(-1).to(dtype)

    def put_own(self, grads: list[Tensor], own: Tensor) -> None:
        """Write (N, R) numbers over the own elements of positive rows."""
        sizes = self.sizes()
        columns, is_positive = self._own_columns(self.labels)
        own = own.unsqueeze(-1).to(grads[0].dtype)
        parts = (x.split(sizes, 1) for x in (columns, is_positive, own))
        for grad, column, positive, value in zip(grads, *parts, strict=True):
            grad.scatter_(-1, column, torch.where(positive, value, grad.gather(-1, column)))

    def hide_own(self, values: Tensor, chunk: Chunk) -> None:
        """Make the own elements of a chunk's (n, r, K) `values` 0."""
        column, is_positive = self._own_columns(self.labels[chunk.of_labels])
        values.scatter_(-1, column, values.gather(-1, column).masked_fill_(is_positive, 0))

    def counts(self, chunk: Chunk, dtype: torch.dtype) -> Tensor:
        """(n, r, 1), 0 for ignored rows and 1 for all others."""
        return (self.labels[chunk.of_labels] >= 0).to(dtype).unsqueeze(-1)

    def _own_columns(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        is_positive = (labels >= 0) & (labels < self.num_classes)
        return labels.clamp(0, self.num_classes - 1).unsqueeze(-1), is_positive.unsqueeze(-1)

    def of_classes(self, numbers: Tensor) -> Tensor:
        """(K,) numbers in a shape that broadcasts with a chunk."""
        return numbers

    def weights(self, chunk: Chunk, dtype: torch.dtype) -> list[Tensor]:
        """Factors of a chunk's elements that are no positive's own; they broadcast."""
        tables = self.tables.of_images(chunk.place[0])
        labels = self.labels[chunk.of_labels]
        return rest_weights(labels, tables, self.num_classes, dtype)
