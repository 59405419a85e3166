"""timm's models as Detectron2 backbones, without a network: all weights are random ones."""

import sys

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from omegaconf import OmegaConf
from torch import nn

from iou_balanced.backbones import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    TimmBackbone,
    timm_pixel_stats,
)

# Name -> channels of the maps of stride 4, 8, 16 and 32.
CHANNELS = {
    "mobilenetv2_100": [24, 32, 96, 320],
    "mobilenetv3_large_100": [24, 40, 112, 960],
    "resnet18": [64, 128, 256, 512],
    "resnet101": [256, 512, 1024, 2048],
    "dla34": [64, 128, 256, 512],
    "convnext_tiny": [96, 192, 384, 768],
}
SWIN = "swin_tiny_patch4_window7_224"  # its own maps are (N, H, W, C)
LEVELS = ["c2", "c3", "c4", "c5"]


def test_swin_is_permuted():
    model = TimmBackbone(name=SWIN, model_args={"strict_img_size": False}).eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, own = model(x), model.timm(x)
    assert list(maps) == LEVELS
    for (name, m), theirs in zip(maps.items(), own, strict=True):
        shape = model.output_shape()[name]
        assert m.shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
        assert torch.equal(m, theirs.permute(0, 3, 1, 2)) and m.is_contiguous()


@pytest.mark.parametrize("name", CHANNELS)
def test_maps_and_gradients(name):
    model = TimmBackbone(name=name, out_features=LEVELS)
    maps = model(torch.randn(2, 3, 64, 96))
    assert model.size_divisibility == 32
    for i, (level, channels) in enumerate(zip(LEVELS, CHANNELS[name], strict=True)):
        shape, stride = model.output_shape()[level], 4 * 2**i
        assert (shape.channels, shape.stride) == (channels, stride)
        assert maps[level].shape == (2, channels, 64 // stride, 96 // stride)
    sum(m.square().mean() for m in maps.values()).backward()
    assert [k for k, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv3_large_100", "resnet18", "dla34"])
def test_stages_that_no_map_needs_are_left_out(name):
    torch.manual_seed(1)
    whole = TimmBackbone(name=name).eval()
    part = TimmBackbone(name=name, out_features=["c2", "c4"]).eval()
    assert part.size_divisibility == 16
    assert set(part.state_dict()) < set(whole.state_dict())
    part.load_state_dict(whole.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    ours, theirs = part(x), whole(x)
    assert list(ours) == ["c2", "c4"]
    assert all(torch.equal(m, theirs[k]) for k, m in ours.items())
    sum(m.square().mean() for m in ours.values()).backward()
    assert [k for k, p in part.named_parameters() if p.grad is None] == []


def randomise_norms(model):
    """Fresh ones are all alike, so that a mistaken one would not show."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.0)
            nn.init.normal_(m.bias, std=0.3)
            nn.init.normal_(m.running_mean, std=0.1)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return model.eval()


# timm's BatchNorm of a MobileNet and of a GENet has the activation in it.
@pytest.mark.parametrize("name", ["mobilenetv2_100", "mobilenetv3_large_100", "dla34", "gernet_s"])
def test_frozen_batch_norm_computes_the_same(name):
    plain = randomise_norms(TimmBackbone(name=name, norm="BN"))
    frozen = TimmBackbone(name=name, norm="FrozenBN").train()
    loaded = frozen.load_state_dict(plain.state_dict(), strict=False)
    assert not loaded.missing_keys
    assert all(k.endswith("num_batches_tracked") for k in loaded.unexpected_keys)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules()) == sum(
        isinstance(m, nn.BatchNorm2d) for m in plain.modules()
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for m, theirs in zip(frozen(x).values(), plain(x).values(), strict=True):
            torch.testing.assert_close(m, theirs, rtol=1e-4, atol=1e-4)
    # Weights of the convolutions are trained.
    assert all(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize(
    ("name", "freeze_at", "frozen", "trained"),
    [
        ("resnet18", 1, "timm.conv1.weight", "timm.layer1.0.conv1.weight"),
        ("resnet18", 2, "timm.layer1.1.conv2.weight", "timm.layer2.0.conv1.weight"),
        ("mobilenetv2_100", 3, "timm.blocks.2.2.conv_pwl.weight", "timm.blocks.3.0.conv_pw.weight"),
        ("dla34", 2, "timm.level2.root.conv.weight", "timm.level3.tree1.tree1.conv1.weight"),
    ],
)
def test_freeze_at(name, freeze_at, frozen, trained):
    model = TimmBackbone(name=name, freeze_at=freeze_at, out_features=["c3", "c4"])
    parameters = dict(model.named_parameters())
    names = list(parameters)
    last = names.index(frozen)
    # All that comes before, and no BatchNorm is among what is left of it.
    assert not any(parameters[k].requires_grad for k in names[: last + 1])
    assert all(parameters[k].requires_grad for k in names[last + 1 :])
    assert trained in names[last + 1 :]
    modules = list(model.named_modules())
    first_trained = next(k for k, m in modules if isinstance(m, nn.BatchNorm2d))
    order = [k for k, _ in modules]
    assert order.index(first_trained) > order.index(frozen.removesuffix(".weight"))
    assert any(isinstance(m, FrozenBatchNorm2d) for m in model.modules())


def test_synchronised_batch_norm():
    model = TimmBackbone(name="mobilenetv2_100", norm="SyncBN")
    plain = TimmBackbone(name="mobilenetv2_100")
    kinds = [type(m) for m in model.modules()]
    count = sum(issubclass(k, nn.SyncBatchNorm) for k in kinds)
    assert count == sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules())


def config(**kwargs):
    return L(FPN)(
        bottom_up=L(TimmBackbone)(out_features=LEVELS[1:], **kwargs),
        in_features=LEVELS[1:],
        out_channels=16,
        top_block=L(LastLevelP6P7)(in_channels=16, out_channels=16, in_feature="p5"),
    )


# The backbones of the configs, a ConvNeXt and a transformer.
@pytest.mark.parametrize(
    "kwargs",
    [
        {"name": "mobilenetv2_100.ra_in1k", "norm": "BN"},
        {"name": "mobilenetv3_large_100.ra_in1k", "norm": "BN"},
        {"name": "resnet18.tv_in1k", "norm": "BN"},
        {"name": "resnet101.tv_in1k", "norm": "FrozenBN", "freeze_at": 2},
        {"name": "dla34.in1k", "norm": "FrozenBN", "freeze_at": 2},
        {"name": "convnext_tiny.fb_in1k"},
        {"name": SWIN, "model_args": {"strict_img_size": False, "drop_path_rate": 0.1}},
    ],
    ids=lambda kwargs: kwargs["name"],
)
def test_a_config_with_an_fpn_on_top(kwargs, tmp_path):
    cfg = OmegaConf.create({"backbone": config(**kwargs)}, flags={"allow_objects": True})
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    torch.manual_seed(0)
    model = instantiate(cfg.backbone)
    torch.manual_seed(0)
    other = instantiate(again.backbone)
    assert repr(other) == repr(model) and kwargs["name"] in repr(model)
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 128)
    model.eval(), other.eval()
    with torch.no_grad():
        maps, theirs = model(x), other(x)
    assert {k: m.shape for k, m in maps.items()} == {
        f"p{i}": (1, 16, max(64 >> i, 1), 128 >> i) for i in range(3, 8)
    }
    assert all(torch.equal(m, theirs[k]) for k, m in maps.items())


def test_half_precision_in_amp():
    model = TimmBackbone(name="mobilenetv2_100", norm="FrozenBN", out_features=["c3"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.randn(1, 3, 32, 32))["c3"].isfinite().all()


@pytest.mark.parametrize("name", list(CHANNELS))
def test_pixel_stats(name):
    assert timm_pixel_stats(name) == (IMAGENET_RGB_MEAN, IMAGENET_RGB_STD)


def test_pixel_stats_are_those_of_the_tag():
    mean, std = timm_pixel_stats("mobilenetv3_large_100.miil_in21k_ft_in1k")
    assert (mean, std) == ([0.0] * 3, [255.0] * 3)
    assert timm_pixel_stats("xception41") == ([127.5] * 3, [127.5] * 3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "mobilenet_v2_100"}, r"no model 'mobilenet_v2_100'; did you mean mobilenetv2_10"),
        (
            {"name": "resnet18.a1_in2k"},
            r"no weights 'resnet18.a1_in2k'; did you mean resnet18.a1_in",
        ),
        ({"name": "zzzzzzzz"}, r"timm \S+ has no model 'zzzzzzzz'$"),
        ({"name": "vit_tiny_patch16_224"}, r"strides 2\^i, but got .* strides \[16, 16, 16\]"),
        ({"name": "resnet18", "out_features": ["res3"]}, r"'c5'\] of resnet18, but got \['res3'\]"),
        ({"name": "resnet18", "out_features": []}, r"of resnet18, but got \[\]"),
        ({"name": "resnet18", "out_features": ["c4", "c3"]}, r"finest first, but got \['c4', 'c3'"),
        ({"name": "resnet18", "norm": "GN"}, r"Expected argument `norm` in .* but got 'GN'"),
        ({"name": "convnext_tiny", "norm": "BN"}, r"convnext_tiny has no BatchNorm, but got 'BN'"),
        ({"name": "resnet18", "freeze_at": 6}, r"`freeze_at` to be 0 or i .* but got 6"),
        ({"name": "resnet18", "model_args": {"pretrained": True}}, r"without \['pretrained'\]"),
    ],
)
def test_what_cannot_be_had_is_said(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**kwargs)


@pytest.mark.parametrize("call", [lambda n: TimmBackbone(name=n), timm_pixel_stats])
def test_without_timm_the_error_names_the_extra(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ImportError, match=r"resnet18 needs timm: pip install timm, .* extra `timm`"
    ):
        call("resnet18")
