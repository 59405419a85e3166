"""How CenterNet's predictions stand for boxes. Shapes: P objects of the batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


class CenterBoxTransform:
    """Boxes as CenterNet predicts them: the centre's offset in its cell, and the size, in cells.

    Args:
        weights: of offset x, y, width and height, which multiply predictions and targets alike.
            The default is the published one: 1 and 0.1, each over the two coordinates of offset
            and size (the authors' loss is the mean over both).

    Raises:
        ValueError: `weights` are not four positive numbers.
    """

    def __init__(self, *, weights: Sequence[float] = (0.5, 0.5, 0.05, 0.05)):
        self.weights = tuple(float(w) for w in weights)
        if len(self.weights) != 4 or not all(w > 0 for w in self.weights):
            raise ValueError(
                f"Expected argument `weights` to be four positive numbers, but got {weights}"
            )

    def get_deltas(self, cells: Tensor, boxes: Tensor) -> Tensor:
        """(P, 4) weighted offset and size of boxes (P, 4) with their centre in cells (P, 4).

        Args:
            cells: XYXY in pixels, squares of the output's stride.
            boxes: XYXY in pixels.
        """
        stride = cells[:, 2:] - cells[:, :2]
        offset = ((boxes[:, :2] + boxes[:, 2:]) / 2 - cells[:, :2]) / stride
        size = (boxes[:, 2:] - boxes[:, :2]) / stride
        return torch.cat([offset, size], dim=1) * weights_like(self.weights, boxes)

    def apply_deltas(self, deltas: Tensor, cells: Tensor) -> Tensor:
        """(P, 4) boxes XYXY in pixels; the inverse of `get_deltas`.

        Args:
            deltas: (P, 4) weighted offset and size, in cells.
            cells: (P, 4) XYXY in pixels, squares of the output's stride.
        """
        stride = cells[:, 2:] - cells[:, :2]
        offset, size = (deltas / weights_like(self.weights, deltas)).split(2, dim=1)
        center, half = cells[:, :2] + offset * stride, size * stride / 2
        return torch.cat([center - half, center + half], dim=1)

    def __repr__(self) -> str:
        return f"CenterBoxTransform(weights={self.weights})"


def weights_like(weights: Sequence[float], x: Tensor) -> Tensor:
    """The weights as one tensor of the dtype and on the device of `x`.

    Filled there, because a GPU is waited for at each copy from the host.
    """
    return torch.cat([x.new_full((1,), weight) for weight in weights])
