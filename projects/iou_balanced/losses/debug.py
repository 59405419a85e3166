"""Checks of values that would make the CPU wait for a GPU: off unless asked for.

A value on the CPU is looked at in any case, because that costs no wait.
"""

import os

from torch import Tensor

VARIABLE = "IOU_BALANCED_DEBUG"
_FORCED: bool | None = None


def set_debug(on: bool | None) -> None:
    """Switch the checks on or off, whatever the environment says; None leaves it to that."""
    global _FORCED
    _FORCED = on


def is_debug() -> bool:
    """Whether values are checked on every device: `set_debug`, else IOU_BALANCED_DEBUG."""
    if _FORCED is not None:
        return _FORCED
    return os.environ.get(VARIABLE, "0").lower() not in ("", "0", "false", "no", "off")


def may_look_at(x: Tensor) -> bool:
    """Whether a value of `x` may be read: it is on the CPU, or debugging is on."""
    return x.device.type == "cpu" or is_debug()
