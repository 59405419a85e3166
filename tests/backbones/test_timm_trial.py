"""What a `TimmBackbone` finds out by trying: sizes of images, remedies, parameters without use."""

import logging

import pytest
import timm
import torch
from detectron2.modeling import FPN
from detectron2.structures import ImageList
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from iou_balanced.backbones import TimmBackbone, UpConvNeck
from iou_balanced.backbones.timm_trial import OffStrideError

LEVITS = {"img_size": (128, 192)}
SWIN = "swin_tiny_patch4_window7_224"


def state_of(model):
    """Weights, statistics, modes, and what modules keep beside their buffers, as LeViT's biases."""
    caches = {
        f"{name}.{key}": len(value)
        for name, m in model.named_modules()
        for key, value in vars(m).items()
        if isinstance(value, dict) and not key.startswith("_")
    }
    modes = {name: m.training for name, m in model.named_modules()}
    return {k: v.clone() for k, v in model.state_dict().items()}, modes, caches


# One of each kind of trial: it works, it needs 64, it runs on one size (by shapes), it is frozen in
# part; and the models are built by themselves to compare with.
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mobilenetv2_100", {}),
        ("mobilevitv2_050", {}),
        ("levit_128s", LEVITS),
        ("hrnet_w18_small", {}),
        (SWIN, {"strict_img_size": False, "drop_path_rate": 0.2}),
    ],
)
def test_building_leaves_no_trace(name, args):
    torch.manual_seed(3)
    plain = timm.create_model(name, features_only=True, **args)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    ours = TimmBackbone(name=name, model_args=args).timm
    assert torch.equal(torch.get_rng_state(), after)
    (weights, modes, caches), (other_weights, other_modes, other_caches) = map(
        state_of, (plain, ours)
    )
    assert modes == other_modes and all(modes.values()) and caches == other_caches
    assert list(weights) == list(other_weights)
    for key, value in weights.items():
        assert torch.equal(value, other_weights[key]), key
    assert all(p.grad is None and p.is_leaf for p in ours.parameters())
    assert {p.device.type for p in ours.parameters()} == {"cpu"}


def test_a_refusal_leaves_the_random_state():
    before = torch.get_rng_state()
    with pytest.raises(ValueError):
        TimmBackbone(name="pit_ti_224", model_args={"drop_path_rate": 0.1})
    torch.manual_seed(0)
    timm.create_model("pit_ti_224", features_only=True)
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.manual_seed(0)
    with pytest.raises(ValueError):
        TimmBackbone(name="pit_ti_224")
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(
    ("name", "out_features", "divisor"),
    [
        ("mobilevitv2_050", None, 64),  # patches of 2 cells at stride 32
        ("mobilevitv2_050", ["c3", "c4"], 32),
        ("mobilevitv2_050", ["c2"], 4),
        ("hrnet_w18_small", ["c2", "c3"], 32),  # all branches are there, and are added up
        ("mobilevit_xxs", None, 32),
        ("resnet18", ["c3"], 8),
        ("mobilenetv3_small_050", None, 32),
    ],
)
def test_what_sides_are_multiples_of(name, out_features, divisor):
    model = TimmBackbone(name=name, out_features=out_features).eval()
    assert model.size_divisibility == divisor
    shapes = model.output_shape()
    with torch.no_grad():
        for size in [(divisor, divisor), (3 * divisor, 5 * divisor)]:
            for key, m in model(torch.zeros(1, 3, *size)).items():
                stride = shapes[key].stride
                assert m.shape[1:] == (shapes[key].channels, size[0] // stride, size[1] // stride)


def test_an_fpn_that_pads_to_less():
    torch.manual_seed(0)
    levels = ["c3", "c4", "c5"]
    model = TimmBackbone(name="mobilevitv2_050", out_features=levels).eval()
    fpn = FPN(model, levels, 8).eval()
    # Detectron2's FPN asks for the coarsest stride alone: odd multiples of 32.
    batch = ImageList.from_tensors(
        [torch.randn(3, 150, 200), torch.randn(3, 90, 70)], fpn.size_divisibility
    )
    assert batch.tensor.shape[2:] == (160, 224)
    with torch.no_grad():
        maps = model(batch.tensor)
        whole = model(F.pad(batch.tensor, (0, 32, 0, 32)))
        assert {k: v.shape[2:] for k, v in fpn(batch.tensor).items()} == {
            "p3": (20, 28),
            "p4": (10, 14),
            "p5": (5, 7),
        }
    for key, m in maps.items():
        assert torch.equal(m, whole[key][..., : m.shape[2], : m.shape[3]])
    # A neck that asks the backbone pads by itself, and nothing is cut.
    neck = UpConvNeck(bottom_up=model, channels=(8, 8, 8), deformable=False).eval()
    assert neck.size_divisibility == 64


@pytest.mark.parametrize("name", ["hiera_tiny_224", "coatnet_nano_cc_224", "test_maxvit"])
def test_a_model_of_one_size(name):
    torch.manual_seed(0)
    model = TimmBackbone(name=name, model_args={"img_size": [128, 192]}).eval()
    shapes = model.output_shape()
    coarsest = max(s.stride for s in shapes.values())
    assert model.size_divisibility == coarsest
    x = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        whole = model(F.pad(x, (0, 32, 0, 32)))
        for key, m in model(x).items():
            stride = shapes[key].stride
            assert m.shape[2:] == (96 // stride, 160 // stride)
            assert torch.equal(m, whole[key][..., : m.shape[2], : m.shape[3]])
    for size in [(160, 192), (128, 224)]:
        with pytest.raises(
            ValueError,
            match=rf"at most \(128, 192\) \(H, W\), the img_size that {name} is built for, but got",
        ):
            model(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("name", ["efficientvit_m0", "swiftformer_xs"])
def test_a_mark_for_one_size_is_a_hint_only(name):
    assert timm.get_pretrained_cfg(name).fixed_input_size
    model = TimmBackbone(name=name)
    sizes = [(model.size_divisibility, 3 * model.size_divisibility), (256, 384)]
    assert all(len(model(torch.zeros(2, 3, *size))) for size in sizes)


ANY_SIZE = "to be a timm model that takes images of any size, but got '{}', which "


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        (SWIN, {}, r"does so with model_args={'strict_img_size': False}$"),
        (
            "levit_128s",
            {},
            r"takes images of one size, .* as model_args={'img_size': \(H, W\)}: multiples of 64 ",
        ),
        (
            "hiera_tiny_224",
            {"out_features": ["c3"]},
            r"takes .* model_args={'img_size': \(H, W\)}: multiples of 32 that no image exceeds",
        ),
        ("test_maxvit", {}, r"takes .* model_args={'img_size': \(H, W\)}: multiples of 32 that"),
        (
            "nest_tiny_jx",
            {},
            r"takes .* as model_args={'img_size': \(H, H\)}: multiples of 16 that",
        ),
        # Takes smaller images than it is built for, but no larger ones.
        ("mvitv2_tiny", {}, r"takes .* as model_args={'img_size': \(H, H\)}: multiples of 32 "),
        (
            "pit_ti_224",
            {},
            r"fails for 32 x 288 and knows no argument that helps: RuntimeError: The size of",
        ),
    ],
)
def test_a_model_of_one_size_is_refused_with_what_helps(name, kwargs, message):
    with pytest.raises(ValueError, match=ANY_SIZE.format(name) + message) as e:
        TimmBackbone(name=name, **kwargs)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((128, 100), r"img_size of multiples of 64, because levit_128s .* got \(128, 100\)"),
        (160, r"img_size of multiples of 64, because levit_128s .* got \(160, 160\)"),
        ((64, 0), r"`model_args` that timm builds levit_128s with, .*\(64, 0\)}: \w+Error: "),
    ],
)
def test_a_size_that_a_model_cannot_have(size, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(name="levit_128s", model_args={"img_size": size})


def test_attention_in_blocks_is_padded_to_whole_ones():
    # Blocks of 8 cells at stride 32.
    model = TimmBackbone(name="bat_resnext26ts").eval()
    assert model.size_divisibility == 256
    with torch.no_grad():
        maps = model(torch.zeros(1, 3, 96, 320))
    assert [m.shape[2:] for m in maps.values()] == [(96 // s, 320 // s) for s in (2, 4, 8, 16, 32)]


def test_maps_off_their_stride_are_refused_when_built():
    with pytest.raises(OffStrideError, match=r"c2 has cells of 4 pixels, but inception_v3 gives"):
        TimmBackbone(name="inception_v3", out_features=["c2"])
    right = r"c1 has .* legacy_xception gives .*; out_features=\['c3', 'c4', 'c5'\] has none such"
    with pytest.raises(OffStrideError, match=right):
        TimmBackbone(name="legacy_xception")
    TimmBackbone(name="legacy_xception", out_features=["c3", "c4", "c5"])


@pytest.mark.parametrize(
    ("name", "out_features", "number"),
    [
        ("xception41", ["c1", "c2", "c3", "c4"], 9),  # c4 is inside a block
        ("hrnet_w18_small", ["c2", "c3", "c4"], 30),
        ("hrnet_w18_small", None, 0),
        ("resnet18", ["c2"], 0),
    ],
)
@pytest.mark.parametrize("norm", [None, "FrozenBN"])
def test_what_no_map_depends_on_is_frozen(name, out_features, number, norm, caplog):
    with caplog.at_level(logging.INFO):
        model = TimmBackbone(name=name, out_features=out_features, norm=norm)
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    if norm is None:
        assert len(frozen) == number
    assert frozen <= model.unused_parameters and len(model.unused_parameters) == number
    assert [f"{name}: {number} parameters that the maps" in r.message for r in caplog.records] == (
        [True] if number else []
    )
    # All others have a gradient, also in training; distributed training asks for it.
    maps = model(torch.randn(2, 3, 64, 96))
    sum(m.square().mean() for m in maps.values()).backward()
    without = {k for k, p in model.named_parameters() if p.grad is None}
    assert without == frozen


def test_distributed_training_goes_on(tmp_path):
    model = TimmBackbone(name="hrnet_w18_small", out_features=["c2", "c3"])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        for _ in range(2):  # the second one would miss gradients of the first
            maps = model(torch.randn(2, 3, 64, 64))
            sum(m.square().mean() for m in maps.values()).backward()
    finally:
        dist.destroy_process_group()


def test_synchronised_norms_stay_frozen():
    model = TimmBackbone(name="hrnet_w18_small", out_features=["c2"], norm="SyncBN")
    frozen = {k for k, p in model.named_parameters() if not p.requires_grad}
    assert frozen and frozen == model.unused_parameters
    assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())


def test_parameters_that_timm_fixes_are_in_use(monkeypatch):
    create = timm.create_model

    def with_a_fixed_one(*args, **kwargs):
        model = create(*args, **kwargs)
        model.conv1.weight.requires_grad = False
        return model

    monkeypatch.setattr(timm, "create_model", with_a_fixed_one)
    assert not TimmBackbone(name="resnet18", out_features=["c2"]).unused_parameters


def test_images_of_one_channel():
    model = TimmBackbone(name="resnet18", out_features=["c3"], model_args={"in_chans": 1})
    assert model(torch.zeros(1, 1, 64, 32))["c3"].shape[2:] == (8, 4)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_built_where_nothing_is_trained(device):
    with torch.inference_mode(device == "cpu"), torch.device(device):
        model = TimmBackbone(name="mobilevitv2_050", out_features=["c5"]).eval()
        shape = model(torch.zeros(1, 3, 96, 32))["c5"].shape
    assert shape[2:] == (3, 1) and model.size_divisibility == 64
    assert not model.unused_parameters
