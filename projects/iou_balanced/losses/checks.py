"""Checks of arguments and the reductions that all losses share.

Only shapes and dtypes are looked at: a look at values would make a GPU wait.
"""

import numbers

import torch
from torch import Tensor

REDUCTIONS = ("sum", "mean", "none")


def upcast(x: Tensor) -> Tensor:
    """float32 at least: losses are never computed in half precision, whatever the input."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"Expected argument `reduction` to be one of {REDUCTIONS}, but got {reduction!r}"
        )


def check_non_negative(**values: float) -> None:
    for name, value in values.items():
        if not isinstance(value, numbers.Real) or not value >= 0:
            raise ValueError(f"Expected argument `{name}` to be at least 0, but got {value!r}")


def check_labels(pred_logits: Tensor, gt_labels: Tensor) -> None:
    if gt_labels.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            "Expected argument `gt_labels` to hold class indices (int64), never one-hot "
            f"targets, but got dtype {gt_labels.dtype}"
        )
    if gt_labels.shape != pred_logits.shape[:-1]:
        raise ValueError(
            "Expected argument `gt_labels` to have the shape of `pred_logits` without its last "
            f"dimension, {tuple(pred_logits.shape[:-1])}, but got {tuple(gt_labels.shape)}"
        )


def check_pos_iou(pos_iou: Tensor, num_positives: int) -> None:
    got = None if pos_iou is None else tuple(pos_iou.shape)
    if got != (num_positives,):
        raise ValueError(
            "Expected argument `pos_iou` to have one entry for each positive, "
            f"shape ({num_positives},), but got {got}"
        )


def reduce_terms(terms: Tensor, reduction: str, count: Tensor | int | None = None) -> Tensor:
    """Reduce elementwise `terms`; "mean" divides by `count`, by default their number.

    An empty sum or mean is a zero that is attached to the graph of `terms`.
    """
    if reduction == "none":
        return terms
    total = terms.sum()
    if reduction == "sum":
        return total
    if count is None:
        count = terms.numel()
    return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))
