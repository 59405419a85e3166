"""Pickle files of arrays and plain containers, read without running what else is in them."""

import _compat_pickle
import codecs
import collections
import importlib
import pickle
from typing import IO

import numpy as np

__all__ = ["UnsafePickleError", "load_pickle"]


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle that holds more than arrays and plain values.

    Args:
        name: of what it holds, as "os.system".
    """

    def __init__(self, name: str):
        super().__init__(f"it holds {name}, which is no array and no plain value")
        self.name = name


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    return codecs.encode(text, encoding)


# numpy 2 has moved its modules; files have the names of the numpy that wrote them.
_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{("builtins", x.__name__): x for x in (set, frozenset, bytearray, complex, slice, range)},
}
_ARRAYS = {"multiarray": ("_reconstruct", "scalar"), "numeric": ("_frombuffer",)}
_PLAIN_TYPES = {"int", "float", "str", "bytes", "bool", "list", "dict", "tuple"}


class _Unpickler(pickle.Unpickler):
    """Knows nothing but arrays and plain containers."""

    def find_class(self, module: str, name: str):
        # Names of Python 2, which pickle would translate itself.
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == "builtins" and name in _PLAIN_TYPES:
            return getattr(importlib.import_module("builtins"), name)
        package, _, part = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and name in _ARRAYS.get(part, ()):
            core = "numpy._core" if hasattr(np, "_core") else "numpy.core"
            return getattr(importlib.import_module(f"{core}.{part}"), name)
        if module == "numpy.dtypes" and name.endswith("DType"):
            return getattr(importlib.import_module(module), name)
        raise UnsafePickleError(f"{module}.{name}")

    def persistent_load(self, pid):
        raise UnsafePickleError("a reference to something outside the file")


def load_pickle(file: IO[bytes]):
    """What a pickle file holds, where that is arrays, numbers, text and containers of these.

    Args:
        file: open for reading bytes; also one that Python 2 wrote.

    Raises:
        UnsafePickleError: it holds anything else, which is not run.
        pickle.UnpicklingError: it is damaged or no pickle; other errors of `pickle.load` too.
    """
    return _Unpickler(file, encoding="latin1").load()
