"""What a call takes from the one that the command line puts it in the place of."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig


def taken_over(
    node: DictConfig, old: Callable | None, new: Callable | None, kept: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of the new call, where its class says what it takes over.

    With a class attribute `takes_over`, only these: the others mean something else, as alpha does
    from one loss to the next. From a loss of heat maps (`of_heatmaps`) to one of labels, and back,
    no exponent stays. With `wraps`, the whole old call becomes that argument.

    Args:
        node: the old call, or what stood there.
        old: what it calls; None for nothing.
        new: what is called in its place.
        kept: the old arguments that `new` accepts.
    """
    if old is new:
        return kept
    allowed = getattr(new, "takes_over", None)
    if allowed is None and _is_of_heatmaps(old) != _is_of_heatmaps(new):
        allowed = ("reduction", "across_processes")
    if allowed is not None:
        kept = {name: value for name, value in kept.items() if name in allowed}
    wraps = getattr(new, "wraps", None)
    if wraps is not None and old is not None:
        kept[wraps] = node
    return kept


def _is_of_heatmaps(call: Callable | None) -> bool:
    return getattr(call, "of_heatmaps", False)
