"""IoU of box pairs."""

import torch
from torch import Tensor

from .checks import upcast


def elementwise_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of the i-th box of one list with the i-th box of the other.

    Args:
        boxes1: (P, 4), XYXY, any float dtype.
        boxes2: (P, 4), XYXY in the same unit.

    Returns:
        (P,) in [0, 1], float32 (float64 for float64 input). A pair whose union is empty has
        IoU 0; a box with x2 < x1 or y2 < y1 counts as empty.

    Raises:
        ValueError: the shapes are not both (P, 4).
    """
    if boxes1.shape != boxes2.shape or boxes1.dim() != 2 or boxes1.shape[1] != 4:
        raise ValueError(
            "Expected arguments `boxes1` and `boxes2` of the same shape (P, 4), "
            f"but got {tuple(boxes1.shape)} and {tuple(boxes2.shape)}"
        )
    boxes1, boxes2 = upcast(boxes1), upcast(boxes2)
    area1 = (boxes1[:, 2:] - boxes1[:, :2]).clamp(min=0).prod(dim=1)
    area2 = (boxes2[:, 2:] - boxes2[:, :2]).clamp(min=0).prod(dim=1)
    corner_min = torch.maximum(boxes1[:, :2], boxes2[:, :2])
    corner_max = torch.minimum(boxes1[:, 2:], boxes2[:, 2:])
    intersection = (corner_max - corner_min).clamp(min=0).prod(dim=1)
    union = area1 + area2 - intersection
    # The divisor is replaced, not only the result, so that the gradient stays finite too.
    empty = union <= 0
    return torch.where(empty, 0.0, intersection / torch.where(empty, 1.0, union))
