"""Registering a data set by name, as often as one likes.

A LazyConfig instantiates `names=L(register_voc_dir)(...)` anew for each loader and evaluator, but
Detectron2's catalogs refuse a second registration of a name. Here the same call again is silent,
and only a call that means something else by the same name is an error.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from iou_balanced.data.image_reading import install_reader

__all__ = ["already_registered", "as_class_names", "dataset_root", "register"]

# name -> the arguments that it was registered with, in this process
_ARGUMENTS: dict[str, dict[str, Any]] = {}


def already_registered(name: str, arguments: dict[str, Any]) -> bool:
    """Whether a data set is registered with exactly these arguments.

    Args:
        name: of the data set.
        arguments: of the register function by name; plain values, paths absolute.

    Raises:
        ValueError: the name is registered with other arguments, or by somebody else.
    """
    if name not in DatasetCatalog:
        return False
    if name not in _ARGUMENTS:
        raise ValueError(
            f"data set {name!r} is registered already, by Detectron2 itself or by other code; "
            "give this one another name="
        )
    known = _ARGUMENTS[name]
    if known == arguments:
        return True
    keys = [k for k in {**known, **arguments} if known.get(k) != arguments.get(k)]
    was = ", ".join(f"{k}={known.get(k)!r}" for k in keys)
    now = ", ".join(f"{k}={arguments.get(k)!r}" for k in keys)
    raise ValueError(
        f"data set {name!r} is registered already with {was}; this call has {now}. "
        "Give one of the two another name="
    )


def register(
    name: str,
    arguments: dict[str, Any],
    load: Callable[[], list[dict]],
    metadata: dict[str, Any],
) -> str:
    """Register `load` and `metadata` under `name`; return the name.

    Call `already_registered` first, so that the files that metadata comes from are read only once.

    Args:
        name: of the data set.
        arguments: see `already_registered`.
        load: returns the dicts in Detectron2's format.
        metadata: of the data set, by key.

    Raises:
        ValueError: as `already_registered`.
    """
    if already_registered(name, arguments):
        return name
    if name in _ARGUMENTS and name in MetadataCatalog:
        # Somebody removed our data set but not its metadata, which would refuse other values.
        MetadataCatalog.remove(name)
    install_reader()
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
    _ARGUMENTS[name] = arguments
    return name


def as_class_names(class_names: Iterable | None) -> list[str] | None:
    """Class names from a config as a list of str.

    Args:
        class_names: a list, a ListConfig or a tuple; numbers become text. None stays None.

    Raises:
        ValueError: a bare string, an empty list, or a name that occurs twice.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise ValueError(f"class_names must be a list of names, but got the text {class_names!r}")
    names = [str(c) for c in class_names]
    if not names:
        raise ValueError("class_names must name at least one class, or be None, but got []")
    twice = sorted({c for c in names if names.count(c) > 1})
    if twice:
        raise ValueError(f"class_names must not repeat a name, but got {twice} more than once")
    return names


def dataset_root() -> str:
    """The folder of built-in data sets: $DETECTRON2_DATASETS, else "datasets", as in Detectron2."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))
