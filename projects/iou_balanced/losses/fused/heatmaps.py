"""Heat maps with a dense target, as the fused core takes them.

Shapes: N images, K foreground classes, H x W cells, P centres. A centre is an element whose ground
truth is 1; it is what the own element of a positive is to `Rows`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .chunks import chunks_of
from .tables import Tables


class Chunk(NamedTuple):
    """Lines of some images that are worked on together, with all classes of their cells."""

    level: int
    place: tuple[slice, slice, slice]


class HeatMaps(NamedTuple):
    """Logits and ground truth; tensors and numbers only, so that autograd can save them."""

    logits: tuple[Tensor, ...]
    """One of (N, K, H, W)."""
    gt_heatmap: Tensor
    """(N, K, H, W) in [0, 1]."""
    centers: tuple[Tensor, ...]
    """The four (P,) indices of the centres."""
    tables: Tables
    beta: float
    """Exponent of 1 - ground truth, the weight of what is no centre."""

    @property
    def dynamic_dims(self) -> tuple[int, ...]:
        """Of logits and ground truth: those whose size changes from batch to batch."""
        return (0, 2, 3)

    @property
    def num_classes(self) -> int:
        return self.logits[0].shape[1]

    def chunks(self) -> Iterator[Chunk]:
        num_images, num_classes, height, width = self.logits[0].shape
        for images, rows in chunks_of(
            num_images, height, num_classes * width, self.logits[0].device
        ):
            yield Chunk(0, (images, slice(None), rows))

    def per_level(self) -> list["HeatMaps"]:
        """There is one."""
        return [self]

    @staticmethod
    def whole() -> Chunk:
        """All of it as one chunk."""
        return Chunk(0, (slice(None), slice(None), slice(None)))

    def left_out(self, chunk: Chunk) -> Tensor:
        """(n, K, h, W) bool: the centres."""
        return self.gt_heatmap[chunk.place] == 1

    def own(self, dtype: torch.dtype) -> Tensor:
        """(P,) logits of the centres."""
        return self.logits[0][self.centers].to(dtype)

    def put_own(self, grads: list[Tensor], own: Tensor) -> None:
        """Put (P,) numbers into the centres."""
        grads[0][self.centers] = own.to(grads[0].dtype)

    def hide_own(self, values: Tensor, chunk: Chunk) -> None:
        """Make the centres of a chunk's `values` 0."""
        values.masked_fill_(self.gt_heatmap[chunk.place] == 1, 0)

    def read(self, chunk: Chunk, dtype: torch.dtype, *, masked: bool = False) -> Tensor:
        """(n, K, h, W) logits of a chunk; there is nothing to mask."""
        return self.logits[0][chunk.place].to(dtype)

    def hide_ignored(self, values: Tensor, chunk: Chunk) -> None:
        """Nothing is ignored."""

    def of_classes(self, numbers: Tensor) -> Tensor:
        """(K,) numbers in a shape that broadcasts with a chunk."""
        return numbers[:, None, None]

    def weights(self, chunk: Chunk, dtype: torch.dtype) -> list[Tensor]:
        """Factors of a chunk's elements that are no centres; they broadcast."""
        gt = self.gt_heatmap[chunk.place]
        factors = [penalty(gt, self.beta, dtype)] if self.beta else []
        class_weight = element_weights(gt, self.tables.of_images(chunk.place[0]), dtype)
        return factors if class_weight is None else [*factors, class_weight]


def penalty(gt_heatmap: Tensor, beta: float, dtype: torch.dtype) -> Tensor:
    """(1 - ground truth)^beta."""
    # The square of the root, because a power of 2 is a product, and one of 4 is slow.
    return (1 - gt_heatmap.to(dtype)).pow_(beta / 2).square_()


def element_weights(gt_heatmap: Tensor, tables: Tables, dtype: torch.dtype) -> Tensor | None:
    """Class weights of all elements of (n, K, h, w) ground truth; None stands for 1.

    What is foreground and what a cell's label is: see `losses.heatmap_focal`.

    Args:
        gt_heatmap: (n, K, h, w), a part of the ground truth.
        tables: of these images.
        dtype: of the result, which broadcasts.
    """
    one = torch.ones(1, 1, 1, 1, dtype=dtype, device=gt_heatmap.device)

    def of_images(table: Tensor | None) -> Tensor:
        return one if table is None else table.to(dtype)[:, :, None, None]

    weight = None if tables.every is None else of_images(tables.every)
    if all(table is None for table in tables[1:]):
        return weight
    if tables.row is None:
        peak, label = gt_heatmap.amax(dim=1, keepdim=True), None
    else:
        peak, label = gt_heatmap.max(dim=1, keepdim=True)  # the first of equals
    foreground = peak > 0
    if any(table is not None for table in tables[1:5]):
        other, background = (
            of_images(tables.rest if tables.rest is not None else table)
            for table in (tables.other, tables.background)
        )
        kind = torch.where(foreground, other, background)
        kind = torch.where(gt_heatmap > 0, of_images(tables.own), kind)
        weight = kind if weight is None else weight * kind
    if label is None:
        return weight
    label = label.masked_fill(~foreground, gt_heatmap.shape[1])
    assert tables.row is not None
    row = tables.row.to(dtype).expand(len(label), -1)
    row = row.gather(1, label.flatten(1)).view_as(label)
    return row if weight is None else weight * row
