#!/usr/bin/env bash
# torch 2.11.0 (2.14.1 too), torch.onnx.export(dynamo=False): `movedim` from the last dimension,
# given as -1, becomes a Transpose with a -1 in its `perm`, which ONNX does not allow. The export
# ends without an error or a warning; onnx.checker with full_check and ONNX Runtime refuse the
# file. `movedim(3, 1)`, the same of four dimensions, and `movedim(1, -1)`, to the last one, are
# right. So a head that brings its classes to the front by `movedim(-1, 1)` exports, and cannot be
# opened; `permute` and counted dimensions are safe.
#
# torch.nn.Module.forward is x.movedim(source, destination) of a tensor (1, 6, 4, 5):
#
# Output seen:
#   movedim(3, 1):  perm [0, 3, 1, 2], ONNX Runtime 1.32.0 gives what torch gives: True
#   movedim(1, -1): perm [0, 2, 3, 1], ONNX Runtime 1.32.0 gives what torch gives: True
#   movedim(-1, 1): perm [0, -1, 1, 2], refused by onnx.checker: True, by ONNX Runtime: True
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.11.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn


class Moved(nn.Module):
    def __init__(self, source, destination):
        super().__init__()
        self.source, self.destination = source, destination

    def forward(self, x):
        return x.movedim(self.source, self.destination)


def perm_of(graph):
    (node,) = graph.node
    (attribute,) = node.attribute
    return list(attribute.ints)


def is_refused(open_it, *args, **kwargs):
    try:
        open_it(*args, **kwargs)
    except Exception:
        return True
    return False


x = torch.arange(120.0).reshape(1, 6, 4, 5)
found = []
for source, destination in ((3, 1), (1, -1), (-1, 1)):
    model = Moved(source, destination)
    torch.onnx.export(model, (x,), "m.onnx", dynamo=False, input_names=["x"], output_names=["y"])
    graph = onnx.load("m.onnx")
    perm = perm_of(graph.graph)
    name = f"movedim({source}, {destination}):"
    refused = (
        is_refused(onnx.checker.check_model, graph, full_check=True),
        is_refused(onnxruntime.InferenceSession, "m.onnx"),
    )
    if any(refused):
        text = f"refused by onnx.checker: {refused[0]}, by ONNX Runtime: {refused[1]}"
    else:
        session = onnxruntime.InferenceSession("m.onnx")
        (y,) = session.run(None, {"x": x.numpy()})
        equal = np.array_equal(y, model(x).numpy())
        text = f"ONNX Runtime {onnxruntime.__version__} gives what torch gives: {equal}"
    found.append(f"{name:<15} perm {perm}, {text}")
print("\n".join(found))
expected = [
    "movedim(3, 1):  perm [0, 3, 1, 2], ONNX Runtime 1.32.0 gives what torch gives: True",
    "movedim(1, -1): perm [0, 2, 3, 1], ONNX Runtime 1.32.0 gives what torch gives: True",
    "movedim(-1, 1): perm [0, -1, 1, 2], refused by onnx.checker: True, by ONNX Runtime: True",
]
sys.exit(found != expected)
PYTHON
