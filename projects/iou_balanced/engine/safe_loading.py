"""Weight files are read as data: nothing that is in them is run, unless the user says so."""

import inspect
import logging
import os
import pickle
import re
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer

from iou_balanced.formats.safe_pickle import UnsafePickleError, load_pickle

from .errors import UserError

__all__ = ["UNSAFE_VARIABLE", "SafeLoading", "load_tensors"]

logger = logging.getLogger(__name__)

UNSAFE_VARIABLE = "IOU_BALANCED_UNSAFE_LOAD"
"""The environment variable whose value 1 lets files run code, in every tool."""
_HAS_WEIGHTS_ONLY = "weights_only" in inspect.signature(torch.load).parameters


def load_tensors(file: str, *, unsafe: bool = False) -> Any:
    """`torch.load` on the CPU, of tensors and plain values only.

    Args:
        file: a local path.
        unsafe: also of anything else, which may run any code.

    Raises:
        UserError: it holds something else.
    """  # noqa: DOC501
    kwargs = {"weights_only": not unsafe} if _HAS_WEIGHTS_ONLY else {}
    if not kwargs and not unsafe:
        raise UserError(
            f"{file}: torch {torch.__version__} cannot load a file without running what is in it; "
            + _way_out()
        )
    try:
        return torch.load(file, map_location=torch.device("cpu"), **kwargs)
    except pickle.UnpicklingError as e:
        name = re.search(r"(?:GLOBAL|function|class|instruction) ([\w.]*\w\.\w+)", str(e))
        if "weights_only" not in str(e) and "Weights only" not in str(e):
            raise
        raise _refusal(file, name[1] if name else "more than tensors and plain values") from e


def _refusal(file: str, name: str) -> UserError:
    return UserError(
        f"{file} holds {name}, which loading would run: weights are tensors, arrays and plain "
        f"values. Nothing of it was run. {_way_out()}"
    )


def _way_out() -> str:
    return (
        "If you trust who made it: train.unsafe_load=True in tools/train_net.py, or "
        f"{UNSAFE_VARIABLE}=1 in the environment of any tool"
    )


class _SafeTorch(Checkpointer):
    """fvcore's, which reads tensors and plain values; stands behind Detectron2's in the order."""

    unsafe = False

    def _load_file(self, f: str) -> dict[str, Any]:
        return load_tensors(f, unsafe=self.unsafe)


class SafeLoading(DetectionCheckpointer, _SafeTorch):
    """Detectron2's, which runs nothing that is in a file.

    .pkl files, as those of the model zoo, may hold arrays and plain containers, all others what
    `torch.load(weights_only=True)` takes.

    Attributes:
        unsafe: whether anything else is loaded too; the environment's
            `IOU_BALANCED_UNSAFE_LOAD=1` says so as well.

    Raises:
        UserError: by `load`: a file holds anything else. Names the file and what it is.
    """

    def _load_file(self, filename: str) -> dict[str, Any]:
        self.unsafe = self.unsafe or os.environ.get(UNSAFE_VARIABLE) == "1"
        if self.unsafe:
            logger.warning("%s is loaded with whatever is in it, as you asked for", filename)
            return super()._load_file(filename)
        if filename.endswith(".pkl"):
            return _weights_of(self._load_pickle(filename))
        if filename.endswith(".pyth"):  # of pycls, which Detectron2 v0.6 gives to torch.load itself
            return _weights_of_pycls(load_tensors(filename), filename)
        return super()._load_file(filename)

    def _load_pickle(self, filename: str) -> dict:
        try:
            with PathManager.open(filename, "rb") as f:
                content = load_pickle(f)
        except UnsafePickleError as e:
            raise _refusal(filename, e.name) from e
        if not isinstance(content, dict):
            raise UserError(
                f"{filename} holds a {type(content).__name__}: weights are a dict of arrays by name"
            )
        return content


def _weights_of(content: dict) -> dict[str, Any]:
    """As Detectron2 reads its own .pkl files, and those of Caffe2."""
    if "model" in content and "__author__" in content:
        logger.info("Reading a file from %r", content["__author__"])
        return content
    content = content.get("blobs", content)
    model = {k: v for k, v in content.items() if not k.endswith("_momentum")}
    return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def _weights_of_pycls(content: dict, filename: str) -> dict[str, Any]:
    if not isinstance(content, dict) or "model_state" not in content:
        raise UserError(f"{filename} has no 'model_state', which the .pyth files of pycls have")
    state = content["model_state"]
    model = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    return {"model": model, "__author__": "pycls", "matching_heuristics": True}
