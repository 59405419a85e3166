"""Numbers as text: signs, intervals and p values."""

import math
from collections.abc import Mapping

from iou_balanced.analysis.verdict import is_told_apart

__all__ = ["direction", "interval", "is_defined", "number", "p_value", "signed"]

UNDEFINED = "\u2013"


def is_defined(value) -> bool:
    """Whether it is a finite number; the JSON file has null in the place of NaN."""
    return value is not None and math.isfinite(value)


def number(value, digits: int = 1) -> str:
    """With a true minus sign; a dash where undefined."""
    if not is_defined(value):
        return UNDEFINED
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if not float(text) else text).replace("-", "\u2212")


def signed(value, digits: int = 1) -> str:
    """With plus or minus; no sign where it rounds to nothing."""
    text = number(value, digits)
    return text if not is_defined(value) or value < 0 or not float(text) else f"+{text}"


def interval(estimate: Mapping, digits: int = 1, *, sign: bool = False) -> str:
    """For example "[1.2, 3.4]"; empty where there is none."""
    low, high = estimate.get("low"), estimate.get("high")
    if not is_defined(low) or not is_defined(high):
        return ""
    form = signed if sign else number
    return f"[{form(low, digits)}, {form(high, digits)}]"


def p_value(p) -> str:
    """Three decimals; a dash where there is none."""
    if not is_defined(p):
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def direction(estimate: Mapping, confidence: float, *, lower_is_better: bool = False) -> str:
    """ "better" or "worse" for a difference that is more than noise, else ""."""
    defined = all(is_defined(estimate.get(key)) for key in ("value", "low", "high"))
    if not defined or not is_told_apart(estimate, confidence):
        return ""
    return "better" if (estimate["value"] < 0) == lower_is_better else "worse"
