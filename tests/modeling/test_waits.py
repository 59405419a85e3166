"""How often the loss part of a step would wait for a GPU, counted on a CPU by a stand-in."""

import traceback
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

import iou_balanced
from iou_balanced.engine import load_config
from iou_balanced.losses import checks, debug
from iou_balanced.losses.fused import eager, positives, rows
from iou_balanced.modeling import dense
from iou_balanced.modeling.ssd import mining

from .detector_mixin import build, make_input, without_boxes

CONFIGS = Path(__file__).resolve().parents[2] / "configs/Digits"
PLAIN, IOU = dict(eta=None, lam=None, beta=None), dict(weight=3.0, beta=None)
WAITING = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"}
WAITING |= {"nonzero", "masked_select", "unique", "argwhere", "equal"}


class Waits(TorchFunctionMode):
    """The calls that read values of tensors, or make tensors whose sizes depend on values."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        by_mask = name in ("__getitem__", "__setitem__", "index_put", "index_put_")
        by_mask = by_mask and any(
            isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in _flat(args[1:2])
        )
        # A number that was made on the CPU, such as a count, is read without a wait.
        on_host = isinstance(args[0], OnHost) if args else False
        if (name in WAITING or by_mask) and not on_host:
            frame = next(f for f in reversed(traceback.extract_stack()[:-1]) if f.name != "item")
            # `Box2BoxTransform.get_deltas` of Detectron2 asserts that no anchor is empty.
            if "detectron2" not in Path(frame.filename).parts:
                self.calls.append(f"{name} in {frame.filename}, line {frame.lineno}")
        return func(*args, **(kwargs or {}))


class OnHost(torch.Tensor):
    pass


def _flat(x):
    return [z for y in x for z in _flat(y)] if isinstance(x, (list, tuple)) else [x]


def waits_of(model, arguments, monkeypatch):
    for module in (checks, eager, mining, positives, rows):
        monkeypatch.setattr(module, "may_look_at", lambda x: False)
    monkeypatch.setattr(
        dense, "count_tensor", lambda n, device: torch.tensor(n).as_subclass(OnHost)
    )
    with Waits() as waits:
        losses = model.losses(*arguments)
        sum(losses.values()).backward()
    return waits.calls


def loss_arguments(model, batch, monkeypatch):
    """What the model calls its `losses` with."""
    kept = []
    real = model.losses
    monkeypatch.setattr(model, "losses", lambda *args: kept.append(args) or real(*args))
    model.train()
    with torch.no_grad():
        model(batch)
    monkeypatch.undo()
    return kept[0]


@pytest.mark.parametrize("name", ["retinanet", "fcos", "foveabox", "centernet", "ssd"])
@pytest.mark.parametrize("change", [PLAIN, IOU], ids=["plain", "iou_balanced"])
def test_at_most_one_wait(name, change, monkeypatch):
    config = load_config(str(CONFIGS / f"{name}_small.py"), []).model
    iou_balanced.balance(config, **change)
    model = build(config)
    batch = [make_input([[8, 12, 50, 60], [60, 30, 90, 62]], [0, 9]), without_boxes()]
    arguments = loss_arguments(model, batch, monkeypatch)
    arguments = torch.utils._pytree.tree_map(
        lambda x: (
            x.detach().requires_grad_(x.is_floating_point()) if isinstance(x, torch.Tensor) else x
        ),
        arguments,
    )
    calls = waits_of(model, arguments, monkeypatch)
    assert len(calls) <= 1, calls


def test_debug_is_a_switch(monkeypatch):
    monkeypatch.delenv(debug.VARIABLE, raising=False)
    on_gpu = torch.empty(1, device="meta")
    assert not debug.may_look_at(on_gpu) and debug.may_look_at(torch.zeros(1))
    monkeypatch.setenv(debug.VARIABLE, "1")
    assert debug.may_look_at(on_gpu)
    debug.set_debug(False)
    assert not debug.is_debug()
    debug.set_debug(None)
    assert debug.is_debug()
