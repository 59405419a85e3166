"""Export of a trained detector to ONNX, which is checked before there is a file.

By PyTorch's older exporter, which records the operators: sizes that they compute with, of anchors
and of padding, stay free. The newer one, of torch.export, needs proofs about these.
"""

import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from iou_balanced import __version__
from iou_balanced.backbones import DeformableConv2d
from iou_balanced.engine import UserError
from iou_balanced.inference.predictor import Predictor
from iou_balanced.modeling import SSD

from .check import Comparison, compare, made_images
from .graph import graph_of
from .metadata import describe_augmentations, fixed_size, pack
from .operators import (
    DEFORMABLE_OPSET,
    OPSET,
    deformable_convolution,
    runs_deformable_convolution,
)

OUTPUTS = {"boxes": ["batch", "detections", 4]}
OUTPUTS |= {name: ["batch", "detections"] for name in ("scores", "labels")}
_TRACED = (256, 320)
"""(height, width) of the images that the graph is recorded with, where it takes any."""


class Exported(NamedTuple):
    """What `export_onnx` wrote."""

    path: Path
    input_shape: list[int | str]
    """Texts are sizes that are free."""
    opset: int
    comparison: Comparison


def export_onnx(
    config,
    weights: str | os.PathLike,
    output: str | os.PathLike,
    *,
    overrides: Sequence[str] = (),
    images: Sequence[str | os.PathLike] = (),
    overwrite: bool = False,
) -> Exported:
    """Write a detector with normalisation, decoding and NMS as one ONNX file.

    Before the file is put in its place, ONNX Runtime runs it on images, and its detections are
    compared with PyTorch's.

    Args:
        config: see `iou_balanced.Predictor`.
        weights: see `iou_balanced.Predictor`.
        output: ends in .onnx.
        overrides: see `iou_balanced.Predictor`.
        images: files to compare on; by default 20 made ones, in which a trained detector may find
            nothing.
        overwrite: replaces a file that is there.

    Raises:
        UserError: a package is missing, the detector cannot be exported, the file is there already,
            or the detections are not PyTorch's; says which and why.
    """
    output = Path(output)
    if output.suffix != ".onnx":
        raise UserError(f"--output {output} has to end in .onnx")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output} is there already: give another, or --overwrite")
    _check_packages()
    predictor = Predictor(config, weights, device="cpu", overrides=overrides)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        file = Path(folder) / output.name
        shape, opset = write_graph(predictor, file)
        found = Predictor(config, file, device="cpu")
        try:
            comparison = compare(predictor, found, list(images) or made_images())
        except UserError as e:
            raise UserError(f"the exported graph is not the detector, nothing written: {e}") from e
        os.replace(file, output)
    return Exported(output, shape, opset, comparison)


def _check_packages() -> None:
    for name in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as e:
            raise UserError(
                f"the export needs {name}: pip install -e '.[export]' or pip install onnx "
                "onnxruntime"
            ) from e


def _opset(model: nn.Module) -> int:
    """The version of ONNX's operators that the model needs.

    Raises:
        UserError: neither ONNX nor the installed ONNX Runtime has an operator that it needs.
    """
    kinds = {type(module) for module in model.modules()}
    if any(kind.__name__ in ("DeformConv", "ModulatedDeformConv") for kind in kinds):
        raise UserError(
            f"{type(model).__name__} has Detectron2's deformable convolution, a compiled operator "
            "that ONNX does not have"
        )
    if DeformableConv2d not in kinds:
        return OPSET
    if not runs_deformable_convolution():
        raise UserError(
            f"{type(model).__name__} has deformable convolutions, and the ONNX Runtime that is "
            "installed has no operator for them (DeformConv, from ONNX's operators 19 on): install "
            "a newer one, or train with a neck without them (deformable=False)"
        )
    return DEFORMABLE_OPSET


def write_graph(predictor: Predictor, file: Path) -> tuple[list[int | str], int]:
    """Export without a check.

    Returns:
        The input's shape, in which texts are sizes that are free, and the version of ONNX's
        operators.

    Raises:
        UserError: the detector cannot be exported.
    """
    import onnx

    model = predictor.model
    graph = graph_of(model).eval()
    opset = _opset(model)
    size = fixed_size(predictor.images.augmentations)
    # SSD's default boxes are made for one size of image.
    sides = list(size) if size and isinstance(model, SSD) else ["height", "width"]
    shape = ["batch" if graph.any_batch else 1, 3, *sides]
    free = {"images": shape, **OUTPUTS}
    if not graph.any_batch:
        free |= {name: [1, *others] for name, (_, *others) in OUTPUTS.items()}
    traced = [{"batch": 2, "height": _TRACED[0], "width": _TRACED[1]}.get(x, x) for x in shape]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), deformable_convolution():
        # Of tracing: that shapes are Python's numbers, and that it is the older exporter.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.rand(traced) * 255,),
            str(file),
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamic_axes={
                name: {i: side for i, side in enumerate(sides) if isinstance(side, str)}
                for name, sides in free.items()
            },
            opset_version=opset,
            dynamo=False,  # see the module's docstring
        )
    content = onnx.load(str(file))
    onnx.helper.set_model_props(content, pack(_describe(predictor, shape)))
    onnx.checker.check_model(content)
    onnx.save(content, str(file))
    return shape, opset


def _describe(predictor: Predictor, shape: list[int | str]) -> dict:
    """The metadata of the file."""
    model, images = predictor.model, predictor.images
    return {
        "version": __version__,
        "detector": type(model).__name__,
        "class_names": list(predictor.class_names) if predictor.has_names else None,
        "input": {
            "name": "images",
            "shape": shape,
            "type": "float32",
            "range": [0, 255],
            "channels": images.image_format or getattr(model, "input_format", None),
            "normalization": "in the graph",
        },
        "outputs": {**OUTPUTS, "coordinates": "x0, y0, x1, y1 in pixels of the input"},
        "test_augmentations": describe_augmentations(images.augmentations),
        "stride": int(model.backbone.size_divisibility),
    }
