"""Whether a checkpoint is of the model, the optimizer and the length of the run that goes on."""

import contextlib
import logging
from collections.abc import Collection, Iterator

import torch

from .errors import UserError, is_from

__all__ = ["check_iterations", "check_weights", "same_optimizer"]

logger = logging.getLogger(__name__)

_NOT_OF_THE_CONFIG = ("params", "param_names", "lr", "initial_lr")


def check_weights(unmatched: Collection[str], weights: Collection[str], way_out: str) -> None:
    """Refuse to go on with a part of a model, whose rest would be random.

    Args:
        unmatched: names that the checkpoint lacks, or has in another shape.
        weights: names of what the model computes with.
        way_out: the words for the file, and for how a new run starts from it.

    Raises:
        UserError: it lacks some; names the first.
    """
    missing = sorted(set(unmatched) & set(weights))
    if missing:
        raise UserError(
            f"{_refusal(way_out)} It lacks {len(missing)} of the model's {len(weights)} parameters "
            f"(or has them in another shape), first {missing[0]}"
        )


@contextlib.contextmanager
def same_optimizer(optimizer: torch.optim.Optimizer, way_out: str) -> Iterator[None]:
    """Watch the block load an optimizer's state: it keeps what the run began with, and says so.

    Args:
        optimizer: as the config has it.
        way_out: see `check_weights`.

    Raises:
        UserError: the state is one of another optimizer, or of other parameters.
    """
    given = [_values(group) for group in optimizer.param_groups]
    try:
        yield
    except Exception as e:
        if isinstance(e, UserError) or not is_from("torch.optim", e):
            raise
        text = " ".join(str(e).split())
        raise UserError(
            f"{_refusal(way_out)} torch says of its optimizer: {type(e).__name__}: {text}"
        ) from e
    kept = [_values(group) for group in optimizer.param_groups]
    lacking = sorted({name for a, b in zip(given, kept, strict=True) for name in a.keys() - b})
    if lacking:
        kind = type(optimizer).__name__
        raise UserError(
            f"{_refusal(way_out)} Its optimizer has no {', '.join(lacking)}, as {kind} needs"
        )
    differing = {
        f"{name} is {b[name]}, and not {a[name]}": None
        for a, b in zip(given, kept, strict=True)
        for name in a
        if a[name] != b[name]
    }
    if differing:
        logger.warning(
            "The resumed run keeps the optimizer's values that it began with: %s",
            "; ".join(differing),
        )


def check_iterations(done: int, max_iter: int, key: str) -> None:
    """Refuse a run that has more iterations than it should get.

    Args:
        done: iterations of the checkpoint.
        max_iter: of the config.
        key: of `max_iter` in the config.

    Raises:
        UserError: it has.
    """
    if done > max_iter:
        raise UserError(
            f"{key}={max_iter}: the run that is resumed has {done} iterations already: give "
            f"{done} or more"
        )


def _refusal(way_out: str) -> str:
    return f"{way_out}; a resumed run needs the model and the optimizer that it began with."


def _values(group: dict) -> dict:
    """What the config says of a group; the rate without its schedule."""
    values = {name: value for name, value in group.items() if name not in _NOT_OF_THE_CONFIG}
    return {"lr": group.get("initial_lr", group["lr"]), **values}
