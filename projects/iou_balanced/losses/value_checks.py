"""Checks of the values that a loss is called with; only where debugging is on (`debug`).

Off, a loss costs one look at a variable more. On, a GPU is waited for at each call.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .debug import is_debug

P = ParamSpec("P")
R = TypeVar("R")

_SHARES = ("pos_iou", "gt_heatmap")
_FINITE = ("pred", "target", "pred_boxes", "gt_boxes", "pred_deltas", "gt_deltas")
_NON_NEGATIVE = ("class_weight",)


def checks_values(*, background_column: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a loss: with debugging on, the values of its arguments are checked by their names.

    `pred_logits` have to be finite, and so have boxes and deltas; `gt_labels` in -1..K; `pos_iou`
    and `gt_heatmap` in [0, 1]; a `class_weight` at least 0. The error names the first row that is
    not so.

    Args:
        background_column: whether the logits have a column for background, K + 1 in all.

    Raises:
        ValueError: in a call with debugging on, a value is not as above.
    """

    def decorate(loss: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(loss)

        @functools.wraps(loss)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            if is_debug():
                arguments = signature.bind(*args, **kwargs).arguments
                _check_all(arguments, background_column)
            return loss(*args, **kwargs)

        return checked

    return decorate


def _check_all(arguments: dict[str, Any], background_column: bool) -> None:
    logits = arguments.get("pred_logits")
    if logits is not None:
        for name, level in _levels("pred_logits", logits):
            _check(name, level, ~torch.isfinite(level), "to be finite")
        labels = arguments.get("gt_labels")
        if isinstance(labels, Tensor):
            columns = _levels("pred_logits", logits)[0][1].shape[-1]
            num_classes = columns - background_column
            bad = (labels < -1) | (labels > num_classes)
            allowed = (
                f"to be in -1..{num_classes} (-1 ignored, 0..{num_classes - 1} foreground, "
                f"{num_classes} background)"
            )
            _check("gt_labels", labels, bad, allowed)
    for names, allowed, is_bad in (
        (_SHARES, "to be in [0, 1]", lambda x: ~((x >= 0) & (x <= 1))),
        (_FINITE, "to be finite", lambda x: ~torch.isfinite(x)),
        (_NON_NEGATIVE, "to be at least 0", lambda x: ~((x >= 0) & torch.isfinite(x))),
    ):
        for name in names:
            value = arguments.get(name)
            for full_name, x in _levels(name, value):
                _check(full_name, x, is_bad(x), allowed)


def _levels(name: str, value: object) -> list[tuple[str, Tensor]]:
    """(name, tensor) of one tensor, of each feature level, or of each table of class weights."""
    if isinstance(value, Tensor):
        return [(name, value)]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return [(f"{name}.{k}", x) for k, x in value._asdict().items() if isinstance(x, Tensor)]
    if isinstance(value, (list, tuple)):
        return [(f"{name}[{i}]", x) for i, x in enumerate(value) if isinstance(x, Tensor)]
    return []


def _check(name: str, values: Tensor, bad: Tensor, allowed: str) -> None:
    """Name the first element that is bad.

    Raises:
        ValueError: there is one.
    """
    indices = bad.nonzero()
    if not len(indices):
        return
    first = tuple(indices[0].tolist())
    place = ", ".join(map(str, first))
    raise ValueError(
        f"Expected argument `{name}` {allowed}, but got {values[first].item():g} at row [{place}], "
        f"and {len(indices)} of {values.numel()} such values in all"
    )
