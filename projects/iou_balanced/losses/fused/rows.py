"""Dense class scores with integer labels, as the fused core takes them.

Shapes: N images, Ri anchors or points of level i, R of all levels, K foreground classes. A row is
what has one label; the own element of a positive row is that of its label's column.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..debug import may_look_at
from .chunks import Place, chunks_of
from .positives import ignored_places, own_places
from .tables import Tables, rest_weights

ROWS_AT_ONCE = 1 << 18


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

    @property
    def dynamic_dims(self) -> tuple[int, ...]:
        """Of logits and labels: those whose size changes from batch to batch."""
        return (0, 1)

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
            num_images, num_rows, num_classes = x.shape
            for images, rows in chunks_of(num_images, num_rows, num_classes, x.device):
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
        own = torch.zeros_like(self.labels, dtype=dtype)
        for chunk in self._blocks():
            logits, labels = self.logits[chunk.level][chunk.place], self.labels[chunk.of_labels]
            if (places := own_places(labels, self.num_classes)) is not None:
                own[chunk.of_labels][places[:2]] = logits[places].to(dtype)
                continue
            column, _ = self._own_columns(labels)
            own[chunk.of_labels] = logits.gather(-1, column)[..., 0]
        return own

    def put_own(self, grads: list[Tensor], own: Tensor) -> None:
        """Write (N, R) numbers over the own elements of positive rows."""
        for chunk in self._blocks():
            grad, labels = grads[chunk.level][chunk.place], self.labels[chunk.of_labels]
            if (places := own_places(labels, self.num_classes)) is not None:
                grad[places] = own[chunk.of_labels][places[:2]].to(grad.dtype)
                continue
            value = own[chunk.of_labels].unsqueeze(-1)
            column, is_positive = self._own_columns(labels)
            value = torch.where(is_positive, value.to(grad.dtype), grad.gather(-1, column))
            grad.scatter_(-1, column, value)

    def _blocks(self) -> Iterator[Chunk]:
        """Rows of all images, so many that what has one entry a row is small."""
        first = 0
        for level, x in enumerate(self.logits):
            step = max(ROWS_AT_ONCE // max(len(x), 1), 1)
            for start in range(0, x.shape[1], step):
                rows = slice(start, min(start + step, x.shape[1]))
                of_labels = slice(first + rows.start, first + rows.stop)
                yield Chunk(level, (slice(None), rows), (slice(None), of_labels))
            first += x.shape[1]

    def hide_own(self, values: Tensor, chunk: Chunk) -> None:
        """Make the own elements of a chunk's (n, r, K) `values` 0."""
        labels = self.labels[chunk.of_labels]
        if (places := own_places(labels, self.num_classes)) is not None:
            values[places] = 0
            return
        column, is_positive = self._own_columns(labels)
        values.scatter_(-1, column, values.gather(-1, column).masked_fill_(is_positive, 0))

    def read(self, chunk: Chunk, dtype: torch.dtype, *, masked: bool = False) -> Tensor:
        """(n, r, K) logits of a chunk; those of ignored rows are -inf if `masked`, or on a GPU."""
        x, labels = self.logits[chunk.level][chunk.place].to(dtype), self.labels[chunk.of_labels]
        if masked or not may_look_at(labels):
            return x.masked_fill((labels < 0).unsqueeze(-1), -torch.inf)
        return x  # a copy would cost more than `hide_ignored`

    def hide_ignored(self, values: Tensor, chunk: Chunk) -> None:
        """Make the ignored rows of a chunk's (n, r, K) `values` 0, where `read` did not."""
        if (places := ignored_places(self.labels[chunk.of_labels])) is not None:
            values[places] = 0

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
