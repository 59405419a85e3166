"""Dense predictions as a list of feature levels, so that their logits need not be concatenated.

Shapes: N images, Ri anchors of level i, R of all levels, K foreground classes, P positives.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_labels
from .positive_rows import RowIndex, index_levels, index_rows


class Part(NamedTuple):
    """One level, or everything where the logits came as one tensor."""

    logits: Tensor
    """(N, Ri, K), or (..., K)."""
    labels: Tensor
    """(N, Ri), or (...,)."""
    positives: RowIndex
    """Where this part's positives are, in the flattened labels of the part."""
    order: Tensor | slice
    """Where they stand among all P positives, in the order of `gt_labels[pos_mask]`."""


def split_levels(pred_logits: Tensor | Sequence[Tensor], gt_labels: Tensor) -> list[Part]:
    """Pair each level's logits with its labels and positives.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a level.
        gt_labels: (...,), or (N, R) with the levels one after the other.

    Raises:
        ValueError: the shapes do not fit, or a label on the CPU is not in -1..K.
    """
    if isinstance(pred_logits, Tensor):
        check_labels(pred_logits, gt_labels, pred_logits.shape[-1])
        positives = index_rows(gt_labels, pred_logits.shape[-1])
        return [Part(pred_logits, gt_labels, positives, slice(None))]
    shapes = [tuple(x.shape) for x in pred_logits]
    if not shapes or any(
        len(s) != 3 or (s[0], s[2]) != (shapes[0][0], shapes[0][2]) for s in shapes
    ):
        raise ValueError(
            "Expected argument `pred_logits` to be a tensor (..., K), or to hold one (N, Ri, K) a "
            f"level, but got {shapes}"
        )
    num_images, num_anchors, num_classes = shapes[0][0], sum(s[1] for s in shapes), shapes[0][2]
    # A tensor of the whole shape without memory, for the same check and message.
    whole = pred_logits[0].new_empty(1).expand(num_images, num_anchors, num_classes)
    check_labels(whole, gt_labels, num_classes)
    sizes = [shape[1] for shape in shapes]
    levels, places = index_levels(gt_labels, sizes, num_classes)
    labels = gt_labels.split(sizes, dim=1)
    return [Part(*part) for part in zip(pred_logits, labels, levels, places, strict=True)]


def in_order_of_labels(terms: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """(P,) numbers of the positives of each part -> (P,) of all, as `gt_labels[pos_mask]` is."""
    order = [part.order for part in parts if isinstance(part.order, Tensor)]
    return torch.cat(list(terms))[torch.cat(order).argsort()] if order else terms[0]


def count_positives(parts: Sequence[Part]) -> int:
    """P, over all parts."""
    return sum(part.positives.rows.numel() for part in parts)
