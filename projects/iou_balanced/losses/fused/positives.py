"""Where the positives are, without a wait for the device where their number is known.

Shapes: P positives.
"""

import torch
from torch import Tensor

from ..debug import may_look_at


def find(mask: Tensor, num_positives: int | None) -> Tensor:
    """(P,) indices of the true entries of `mask`, flattened, ascending.

    Args:
        mask: bool, of any shape.
        num_positives: P where the caller knows it; on a CPU, and with debugging on, P is counted
            nevertheless. None: a GPU is waited for.
    """
    mask = mask.flatten()
    if num_positives is None or may_look_at(mask):
        return mask.nonzero().squeeze(1)
    # More places than positives would be -1: the last entry, a wrong number but no invalid memory.
    return torch.nonzero_static(mask, size=num_positives).squeeze(1)


def own_places(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Image, row and column of each positive's own element; None where to look would wait.

    Args:
        labels: (n, r), part of the labels of `Rows`.
        num_classes: K.
    """
    if not may_look_at(labels):
        return None
    images, rows = _places((labels >= 0) & (labels < num_classes))
    return images, rows, labels[images, rows]


def ignored_places(labels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Image and row of each row that is ignored; None where to look would wait."""
    return _places(labels < 0) if may_look_at(labels) else None


def _places(mask: Tensor) -> tuple[Tensor, Tensor]:
    places = mask.flatten().nonzero().squeeze(1)
    images = torch.div(places, max(mask.shape[1], 1), rounding_mode="floor")
    return images, places - images * mask.shape[1]
