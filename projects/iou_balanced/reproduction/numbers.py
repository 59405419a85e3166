"""Numbers that may be undefined, as records and tables have them."""

import math
from collections.abc import Mapping


def rounded(value: float | None, digits: int) -> float | None:
    """To so many decimals; None for NaN, which JSON does not have.

    Args:
        value: None or NaN where it is undefined.
        digits: how many.
    """
    return None if value is None or math.isnan(value) else round(value, digits)


def format_difference(difference: Mapping[str, float | None]) -> str:
    """ "+1.0 [-0.5, +2.5]"; "undefined", or without an interval that is not defined.

    Args:
        difference: value, low and high, in percent, None or NaN where undefined.
    """
    value, low, high = (rounded(difference[key], 3) for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    if low is None or high is None:
        return f"{value:+.1f}"
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
