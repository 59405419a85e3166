"""Values of annotation files, each parsed once: what is returned here is what is used.

Exporters write numbers as text, flags as null or true, whole numbers as floats, and refer to the
id 0 by "0". What can mean one thing only is read; for the rest there is None.
"""

import math
import sys
from collections.abc import Hashable, Iterable

__all__ = ["IdIndex", "in_order", "is_id", "parse_flag", "parse_number"]

_LARGEST = sys.float_info.max


def parse_number(value) -> int | float | None:
    """A finite number, or text that is one, with a point and without separators; else None.

    Args:
        value: anything of an annotation file.
    """
    kind = type(value)
    if kind is int:  # of Python, which may be too large for any other number
        return value if -_LARGEST <= value <= _LARGEST else None
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is str and "_" not in value:  # Python would read 1_000 as a thousand
        try:
            return parse_number(int(value))
        except ValueError:
            pass
        try:
            return parse_number(float(value))
        except ValueError:
            return None
    return None


_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}


def parse_flag(value) -> int | None:
    """0 or 1 from 0, 1, 0.0, 1.0, true, false, their text, "yes" or "no"; else None.

    Args:
        value: anything of an annotation file.
    """
    if isinstance(value, str):
        text = value.strip().lower()
        value = _FLAGS.get(text, parse_number(text))
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return int(value)
    return None


def is_id(value) -> bool:
    """Whether it can be an id: a whole number (1.0 is one) or text that is not empty.

    Args:
        value: anything of an annotation file.
    """
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) or (isinstance(value, str) and value.strip() != "")


class IdIndex:
    """Finds what an id refers to, also where the reference is of another type: "7" for 7.

    Args:
        ids: distinct; see `is_id`. 1 and 1.0 are the same id, 1 and "1" are not.
    """

    def __init__(self, ids: Iterable[Hashable]):
        self._ids = list(ids)
        self._exact = {value: i for i, value in enumerate(self._ids)}
        self._canonical: dict[Hashable, list[int]] | None = None
        self.num_other_type = 0
        """References so far that were of another type than the id."""

    def find(self, reference) -> int | None:
        """The place of the id that `reference` means; None where there is none, or several.

        Args:
            reference: an id, or one of another type: "7" for 7.
        """
        kind = type(reference)
        if kind is int or kind is str or (kind is float and reference.is_integer()):
            place = self._exact.get(reference)
            return self._find_other(reference) if place is None else place
        return None

    def _find_other(self, reference) -> int | None:
        if self._canonical is None:
            self._canonical = {}
            for i, value in enumerate(self._ids):
                self._canonical.setdefault(_canonical(value), []).append(i)
        places = self._canonical.get(_canonical(reference), ())
        if len(places) != 1:
            return None
        self.num_other_type += 1
        return places[0]


def _canonical(value):
    """The number of an id that is one or reads as one; other text without blanks around it."""
    if isinstance(value, str):
        number = parse_number(value)
        return value.strip() if number is None else _canonical(number)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def in_order(ids: Iterable[Hashable]) -> list[int]:
    """The order of ids: by value where all are numbers or all text, else as they stand.

    Args:
        ids: see `is_id`.

    Returns:
        the places of the ids in that order.
    """
    ids = list(ids)
    kinds = {isinstance(value, str) for value in ids}
    if len(kinds) > 1:
        return list(range(len(ids)))
    return sorted(range(len(ids)), key=ids.__getitem__)
