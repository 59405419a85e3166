"""The curves of the figures that need no training: computed from the losses and the records."""

import inspect
import math
from collections.abc import Mapping

import torch
from torch import Tensor

import iou_balanced.losses as losses

from .records import find_table

PAPER_BETA = 0.111  # delta of Eq. 13 and 14
WEIGHTS = (2.0, 1.5, 1.0, 0.5, 0.0)
"""Weights of a class in Figure 1 of BOFL."""


def gradient_norms(d: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Figure 2 of arXiv 1908.05641: one curve for each lambda and w_loc of Table 3.

    Args:
        d: (D,) regression errors, in the R-CNN encoding.

    Returns:
        {label: ((D,) bound of the gradient's norm in d^cx or d^cy, (D,) in d^w or d^h)}; Eq. 13
        and 14. lambda 0 is plain smooth L1.
    """
    curves = {}
    for row in find_table("iou/3").rows:
        if not row.short_id.startswith("lambda"):
            continue
        box_loss = row.losses["box_loss"]
        values = {
            "lam": box_loss.get("lam", 0.0),
            "weight": box_loss.get("weight", 1.0),
            "beta": PAPER_BETA,
        }
        curves[row.name] = (
            losses.smooth_l1_gradient_bound_center(d, **values).abs(),
            losses.smooth_l1_gradient_bound_size(d, **values).abs(),
        )
    return curves


def weighted_learning_rates(epochs: int = 140) -> dict[float, tuple[list[float], list[float]]]:
    """Figure 1 of BOFL: the learning rate times a class's weight, by epoch.

    The rate is half a cosine from 1 to 0.

    Returns:
        {weight: (with linear scheduling, without)}, lists of `epochs` numbers.
    """
    rates = [0.5 * (1 + math.cos(math.pi * e / (epochs - 1))) for e in range(epochs)]
    progress = [losses.linear_schedule(e, epochs) for e in range(epochs)]
    return {
        weight: (
            # Eq. 7
            [rate * (1 + p * (weight - 1)) for rate, p in zip(rates, progress, strict=True)],
            [rate * weight for rate in rates],
        )
        for weight in WEIGHTS
    }


def schedules(weight: float = 2.0, epochs: int = 140) -> dict[str, list[float]]:
    """Figure 2 of BOFL: a class's weight by epoch, for the schedules of Table 5.

    Returns:
        {row of Table 5: `epochs` numbers}.
    """
    curves = {}
    for row in find_table("bofl/5").rows:
        schedule = make_schedule(row.losses["class_balance"]["schedule"])
        progress = [
            1.0 if schedule is None else schedule.progress(e, epochs) for e in range(epochs)
        ]
        curves[row.name] = [1 + p * (weight - 1) for p in progress]
    return curves


def make_schedule(node: Mapping | None) -> torch.nn.Module | None:
    """The schedule that a record names."""
    if node is None:
        return None
    cls = getattr(losses, node["type"])
    accepted = inspect.signature(cls).parameters
    return cls(**{key: value for key, value in node.items() if key in accepted})
