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
