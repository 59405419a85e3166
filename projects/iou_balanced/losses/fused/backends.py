"""Which implementation runs the fused core: eager, torch.compile or Triton.

- "eager": chunk by chunk, on any device; what runs where nothing else is chosen.
- "compile": one function of torch.compile for all levels, on a CPU and on a GPU.
- "triton": one kernel written in Triton, on a GPU. It has run in Triton's interpreter only.

The argument `backend` of a loss forces one, or IOU_BALANCED_BACKEND. Else it is "eager", and on a
CPU "compile" from when the eager one has worked through as many elements as a compilation costs: a
short run never compiles. On a GPU nothing but "eager" is chosen, because neither of the others has
been measured there. What cannot run falls back to "eager" with one warning.
"""

import logging
import os
import warnings
from typing import Any

import torch

from . import compiled, eager, triton_rows
from .heatmaps import HeatMaps
from .negatives import Negatives
from .rows import Rows

VARIABLE = "IOU_BALANCED_BACKEND"
NAMES = ("auto", "eager", "compile", "triton")
ELEMENTS_BEFORE_COMPILING = 4e9
"""How many logits the eager backend works through first. A compilation takes about as long."""

logger = logging.getLogger(__name__)
_elements_done = 0
_told: set[str] = set()


def check_backend(backend: str | None) -> None:
    """Check that it is one of `NAMES`, or None.

    Raises:
        ValueError: it is something else.
    """
    if backend is not None and backend not in NAMES:
        raise ValueError(
            f"Expected argument `backend` to be one of {NAMES}, or None, but got {backend!r}"
        )


def of_environment() -> str:
    """What IOU_BALANCED_BACKEND says, one of `NAMES`; "auto" where it is not set.

    Raises:
        ValueError: it says something else.
    """
    name = os.environ.get(VARIABLE) or "auto"
    if name not in NAMES:
        raise ValueError(
            f"Expected the environment variable {VARIABLE} to be one of {NAMES}, but got {name!r}"
        )
    return name


def choose(scores: Rows | HeatMaps, negatives: Negatives, requested: str | None) -> Any:
    """The module with `forward` and `backward` for these scores.

    Args:
        scores: what the loss is of.
        negatives: the loss of an element.
        requested: one of `NAMES`; None is IOU_BALANCED_BACKEND, or "auto".

    Raises:
        ValueError: `requested`, or the environment variable, is none of these.
    """
    check_backend(requested)
    if requested is None:
        requested = of_environment()
    name = _automatic(scores) if requested == "auto" else requested
    backend = {"eager": eager, "compile": compiled, "triton": triton_rows}[name]
    reason = backend.why_not(scores, negatives)
    if reason is not None:
        said = backend is compiled and compiled.has_failed()
        if requested != "auto" and not said:
            warn_once(f'the losses\' backend "{name}" cannot be used: {reason}')
        name, backend = "eager", eager
    device = scores.logits[0].device.type
    _tell(f'sigmoid losses on {device}: backend "{name}"')
    return backend


def _automatic(scores: Rows | HeatMaps) -> str:
    global _elements_done
    if scores.logits[0].device.type != "cpu":
        return "eager"
    _elements_done += sum(x.numel() for x in scores.logits)
    return "compile" if _elements_done > ELEMENTS_BEFORE_COMPILING else "eager"


def _tell(message: str) -> None:
    if message not in _told and not torch.compiler.is_compiling():
        _told.add(message)
        logger.info(message)


def warn_once(message: str) -> None:
    """A warning, the first time that it is given in this process."""
    if message not in _told:
        _told.add(message)
        warnings.warn(f"iou_balanced: {message}", stacklevel=2)
