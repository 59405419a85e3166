"""What the calls of a LazyConfig call, and which arguments that takes."""

import difflib
import importlib
import inspect
from collections.abc import Callable

from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.utils.registry import locate
from torch.utils.data import DataLoader

__all__ = ["accepts", "locate_target", "nearest_target", "requires"]

# What hands on arguments that it does not know, as Detectron2's main branch does, and to what.
_HANDS_ON = ((build_detection_train_loader, DataLoader), (build_detection_test_loader, DataLoader))


def locate_target(target) -> Callable | None:
    """The callable of a `_target_`; None where there is none of that name.

    Args:
        target: its dotted name, or itself.
    """
    if not isinstance(target, str):
        return target
    try:
        found = locate(target)
    except Exception:
        return None
    return found if callable(found) else None  # a module is none


def accepts(target, name: str) -> bool:
    """Whether it takes a keyword argument of this name.

    Args:
        target: see `locate_target`.
        name: of the argument.
    """
    target = locate_target(target)
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return True  # a builtin without a signature
    if any(p.name == name for p in parameters):
        return True
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return False
    receivers = [receiver for giver, receiver in _HANDS_ON if giver is target]
    return all(accepts(receiver, name) for receiver in receivers)


def requires(target, name: str) -> bool:
    """Whether it has an argument of this name, without a default.

    Args:
        target: see `locate_target`.
        name: of the argument.
    """
    try:
        parameter = inspect.signature(locate_target(target)).parameters.get(name)
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return parameter is not None and parameter.default is parameter.empty


def nearest_target(target: str) -> str:
    """What else could be meant by a name that there is none of, for the end of an error.

    Args:
        target: a dotted name.

    Returns:
        "" where nothing is near.
    """
    where, _, name = str(target).rpartition(".")
    try:
        module = importlib.import_module(where)
    except Exception:  # no such module, or one that fails
        return ""
    names = [x for x in dir(module) if callable(getattr(module, x))]
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {where}.{near[0]}?" if near else ""
