"""Pickles of arrays and plain containers, made by hand in all protocols, and what is refused."""

import collections
import functools
import importlib
import io
import os
import pickle
import subprocess

import numpy as np
import pytest
import torch

from iou_balanced.formats.safe_pickle import UnsafePickleError, load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN = {
    "text": "Grün",
    "bytes": b"\x00\xff",
    "numbers": [1, -2.5, True, None, 2**80, 1j],
    "tuple": (1, (2, 3)),
    "sets": [{1, 2}, frozenset("ab")],
    "ordered": collections.OrderedDict(b=1, a=2),
    "default": collections.defaultdict(list, a=[1]),
}
ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.ones(2, np.float16),
    "big-endian": np.arange(3, dtype=">i4"),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "empty": np.zeros((0, 4)),
    "text": np.array(["a", "bc"]),
    "structured": np.zeros(2, [("x", "i4"), ("y", "f8")]),
    "scalar": np.float64(0.5),
    "dtype": np.dtype("int64"),
}


def read(data):
    return load_pickle(io.BytesIO(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name, protocol):
    array = ARRAYS[name]
    found = read(pickle.dumps({"a": array}, protocol))["a"]
    np.testing.assert_array_equal(found, array)
    assert type(found) is type(array) and np.shape(found) == np.shape(array)


def test_names_of_either_numpy():
    data = pickle.dumps(ARRAYS["float32"], 2)
    for core in (b"numpy.core", b"numpy._core"):
        other = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
        np.testing.assert_array_equal(read(other), ARRAYS["float32"])


def test_a_file_of_python_2():
    """As Detectron's model zoo has them: text without unicode, and Python 2's module names."""
    data = (
        b"\x80\x02}q\x00U\x05blobsq\x01}q\x02U\x07conv1_wq\x03cnumpy.core.multiarray\n_reconstruct\n"
        b"q\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K"
        b"\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?"
        b"\x00\x00\x00@tbss."
    )
    (weights,) = read(data)["blobs"].values()
    np.testing.assert_array_equal(weights, np.array([1, 2], np.float32))


class Evil:
    """Calls something when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ran = []
EVIL = {
    "os.system": Evil(os.system, "echo ran"),
    "eval": Evil(eval, "1"),
    "exec": Evil(exec, "1"),
    "getattr": Evil(getattr, "a", "upper"),
    "open": Evil(open, os.devnull),
    "subprocess": Evil(subprocess.Popen, ["true"]),
    "partial": functools.partial(print, "ran"),
    "own function": Evil(ran.append, 1),
    "own class": Evil(Evil, print),
    "tensor": torch.zeros(2),
    "import": Evil(importlib.import_module, "os"),
    "within an array": np.array([Evil(ran.append, 1)], dtype=object),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", EVIL)
def test_anything_else_is_refused_and_not_run(name, protocol, capfd):
    data = pickle.dumps({"model": {"a": np.ones(1)}, "x": EVIL[name]}, protocol)
    with pytest.raises(UnsafePickleError, match="which is no array and no plain value") as e:
        read(data)
    assert "." in e.value.name
    assert ran == [] and "ran" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'echo ran'\ntR.",
        b"(S'echo ran'\nios\nsystem\n.",  # the opcode INST
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x08echo ran\x85R.",
        b"\x80\x02c__builtin__\neval\nU\x011\x85R.",  # Python 2's name
        b"\x80\x02cnumpy.core.multiarray\nfromfile\nU\x09/dev/null\x85R.",
        b"\x80\x02cnumpy.testing\nassert_\nK\x01\x85R.",
        b"Pid\n.",  # a persistent id
    ],
)
def test_pickles_written_by_hand(data, capfd):
    with pytest.raises(UnsafePickleError):
        read(data)
    assert "ran" not in capfd.readouterr().out
