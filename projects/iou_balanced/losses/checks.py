"""Checks of arguments and the reductions that all losses share.

Only shapes and dtypes of tensors are checked, and the values of labels that are on the CPU:
reading a value from a GPU would make the CPU wait for it (see `debug`).
"""

import math
import numbers

import torch
from torch import Tensor

from .debug import may_look_at

REDUCTIONS = ("sum", "mean", "none")
LARGEST_EXPONENT = 100.0
"""The largest exponent of a probability or an IoU. 0.9^100 is 3e-5: beyond, no loss is left."""


def upcast(x: Tensor) -> Tensor:
    """float32 at least: losses are never computed in half precision, whatever the input."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check_reduction(reduction: str) -> None:
    """Check that it is "sum", "mean" or "none".

    Raises:
        ValueError: it is something else.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"Expected argument `reduction` to be one of {REDUCTIONS}, but got {reduction!r}"
        )


def check_non_negative(**values: float) -> None:
    """Check arguments, given by name, that have to be finite numbers of at least 0.

    Raises:
        ValueError: one of them is something else.
    """
    for name, value in values.items():
        if not is_number(value) or not value >= 0:
            raise ValueError(f"Expected argument `{name}` to be at least 0, but got {value!r}")
        if math.isinf(value):
            raise ValueError(f"Expected argument `{name}` to be finite, but got {value!r}")


def check_exponents(**values: float) -> None:
    """Check arguments, given by name, that are exponents of an IoU or a probability.

    Raises:
        ValueError: one of them is no number in [0, 100].
    """
    check_non_negative(**values)
    for name, value in values.items():
        if value > LARGEST_EXPONENT:
            raise ValueError(
                f"Expected argument `{name}` to be at most {LARGEST_EXPONENT:g}, because the "
                f"power of an IoU or a score is 0 beyond, but got {value!r}"
            )


def check_fraction(**values: float) -> None:
    """Check arguments, given by name, that have to be numbers in [0, 1].

    Raises:
        ValueError: one of them is something else.
    """
    for name, value in values.items():
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"Expected argument `{name}` to be in [0, 1], but got {value!r}")


def check_focal_alpha(alpha: float) -> None:
    """Check the alpha of a focal loss: in [0, 1], or below 0 for no weighting.

    Raises:
        ValueError: it is something else.
    """
    if not is_number(alpha) or not -math.inf < alpha <= 1:
        raise ValueError(
            "Expected argument `alpha` to be in [0, 1], or below 0 for no weighting, "
            f"but got {alpha!r}"
        )


def check_counts(*, least: int, **values: int) -> None:
    """Check arguments, given by name, that have to be whole numbers of at least `least`.

    Raises:
        ValueError: one of them is something else.
    """
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(
                f"Expected argument `{name}` to be a whole number from {least} on, "
                f"but got {value!r}"
            )


def check_flags(**values: bool) -> None:
    """Check arguments, given by name, that have to be True or False: "no" would count as True.

    Raises:
        ValueError: one of them is something else.
    """
    for name, value in values.items():
        if not isinstance(value, (bool, int)) or value not in (0, 1):
            raise ValueError(f"Expected argument `{name}` to be True or False, but got {value!r}")


def is_number(value: object) -> bool:
    """Whether it is a real number, and not True or False."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_labels(pred_logits: Tensor, gt_labels: Tensor, num_classes: int) -> None:
    """Check the labels (...,) of logits (..., columns) with `num_classes` foreground classes.

    Raises:
        ValueError: the dtype or the shape is another one; or, of labels on the CPU, a value.
    """
    if gt_labels.dtype not in (torch.int64, torch.int32):
        if gt_labels.is_floating_point() or gt_labels.is_complex() or gt_labels.dtype == torch.bool:
            raise ValueError(
                "Expected argument `gt_labels` to hold class indices (int64), never one-hot "
                f"targets, but got dtype {gt_labels.dtype}"
            )
        raise ValueError(
            "Expected argument `gt_labels` to hold class indices of dtype int64 or int32, but got "
            f"dtype {gt_labels.dtype}: give gt_labels.long()"
        )
    if gt_labels.shape != pred_logits.shape[:-1]:
        raise ValueError(
            "Expected argument `gt_labels` to have the shape of `pred_logits` without its last "
            f"dimension, {tuple(pred_logits.shape[:-1])}, but got {tuple(gt_labels.shape)}"
        )
    if may_look_at(gt_labels):
        check_label_values(gt_labels, num_classes)


def check_label_values(gt_labels: Tensor, num_classes: int) -> None:
    """Check labels of any shape, on any device; a GPU is waited for.

    The losses call it for labels on the CPU, where it costs nothing.

    Raises:
        ValueError: a label is not in -1..num_classes.
    """
    if not gt_labels.numel():
        return
    for value in torch.stack(gt_labels.aminmax()).tolist():
        if not -1 <= value <= num_classes:
            raise ValueError(
                f"Expected argument `gt_labels` to be in -1..{num_classes} (-1 ignored, "
                f"0..{num_classes - 1} foreground, {num_classes} background), but got {value}: "
                "other words for these have to be mapped, such as the 255 that is ignored in "
                "other frameworks to -1"
            )


def check_pos_iou(pos_iou: Tensor | None, num_positives: int, *, values: bool = True) -> Tensor:
    """Return `pos_iou`, whose shape has to be (num_positives,).

    With `values` also what `check_iou_values` asks for.

    Raises:
        ValueError: it is None, of another shape, or holds something else than IoUs.
    """
    if pos_iou is None or tuple(pos_iou.shape) != (num_positives,):
        got = None if pos_iou is None else tuple(pos_iou.shape)
        raise ValueError(
            "Expected argument `pos_iou` to have one entry for each positive, "
            f"shape ({num_positives},), but got {got}"
        )
    if values:
        check_iou_values(pos_iou)
    return pos_iou


def check_iou_values(pos_iou: Tensor) -> None:
    """Check that each IoU is in [0, 1], with room for rounding.

    On a GPU only where debugging is on, because it would be waited for. A NaN passes: it stays
    visible in the loss, where a training stops at it.

    Raises:
        ValueError: names the first IoU outside.
    """
    if not may_look_at(pos_iou):
        return
    outside = (pos_iou < -1e-3) | (pos_iou > 1 + 1e-3)
    if outside.any():
        index = int(outside.nonzero()[0])
        raise ValueError(
            "Expected argument `pos_iou` to hold IoUs in [0, 1], "
            f"but got {pos_iou[index].item():g} for positive {index}"
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
