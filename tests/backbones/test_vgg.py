import pytest
import torch
import torch.nn.functional as F
import torchvision
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import FPN, BasicStem
from torch import nn

from iou_balanced.backbones import SSDVGG, VGG16, L2Norm, SSDExtraLayers, convert_torch_vgg
from iou_balanced.backbones.vgg import ExtraLayer

# Figure 2 of arXiv 1512.02325 for 300; at 512 each map has half of the cells of the one before.
MAPS = {
    300: {
        "conv4_3": (512, 38),
        "fc7": (1024, 19),
        "conv6_2": (512, 10),
        "conv7_2": (256, 5),
        "conv8_2": (256, 3),
        "conv9_2": (256, 1),
    },
    512: {
        "conv4_3": (512, 64),
        "fc7": (1024, 32),
        "conv6_2": (512, 16),
        "conv7_2": (256, 8),
        "conv8_2": (256, 4),
        "conv9_2": (256, 2),
        "conv10_2": (256, 1),
    },
}


@pytest.mark.parametrize("size", MAPS)
def test_the_maps_are_those_of_the_paper(size):
    with torch.device("meta"):
        backbone = SSDVGG(image_size=size)
        maps = backbone(torch.zeros(2, 3, size, size))
    assert [(name, x.shape) for name, x in maps.items()] == [
        (name, (2, channels, cells, cells)) for name, (channels, cells) in MAPS[size].items()
    ]
    shapes = backbone.output_shape()
    assert list(shapes) == list(maps)
    assert [s.channels for s in shapes.values()] == [c for c, _ in MAPS[size].values()]
    strides = {300: [8, 16, 32, 64, 64, 64], 512: [8, 16, 32, 64, 128, 256, 256]}[size]
    assert [s.stride for s in shapes.values()] == strides
    assert backbone.size_divisibility == 0


@pytest.mark.parametrize("size", [0, 299, 500, None])
def test_another_size(size):
    with pytest.raises(ValueError, match=rf"`image_size` in \[300, 512\], but got {size}"):
        SSDVGG(image_size=size)


def test_images_that_are_too_small_are_refused_and_larger_ones_work():
    with torch.device("meta"):
        backbone = SSDVGG(image_size=300)
        # 200 / 8 = 25, 13, 7, 4: conv8_2 makes 2 of it, and conv9_2 needs 3.
        with pytest.raises(ValueError, match=r"at least 3 x 3 cells.* but got a map of 2 x 2"):
            backbone(torch.zeros(1, 3, 200, 200))
        maps = backbone(torch.zeros(1, 3, 320, 400))
    assert maps["conv4_3"].shape[2:] == (40, 50) and maps["conv9_2"].shape[2:] == (1, 3)


@pytest.fixture(scope="module")
def source():
    """The layers of torchvision's VGG16; the whole of it has 120 million weights more."""
    torch.manual_seed(5)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    for m in layers:
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.bias, std=0.1)
    return layers


def test_the_features_are_torchvisions(source):
    names = {f"features.{k}": v for k, v in source.state_dict().items()}
    ours = VGG16()
    ours.load_state_dict(convert_torch_vgg(names))  # each name and shape
    # With 72 x 56 pixels all pools divide evenly, and rounding does not matter, but for the last.
    x = torch.randn(2, 3, 72, 56)
    with torch.no_grad():
        maps = ours(x)
        torch.testing.assert_close(maps["conv4_3"], source[:23](x))
        torch.testing.assert_close(
            maps["conv5_3"], source[24:30](F.max_pool2d(maps["conv4_3"], 2, ceil_mode=True))
        )
    assert maps["conv4_3"].shape == (2, 512, 9, 7) and maps["conv5_3"].shape == (2, 512, 5, 4)
    assert maps["conv4_3"].max() > 0


class FixedMaps(nn.Module):
    """In the place of VGG, whose convolutions take seconds."""

    def __init__(self):
        super().__init__()
        self.maps = {"conv4_3": torch.rand(1, 512, 38, 38), "conv5_3": torch.rand(1, 512, 19, 19)}

    def forward(self, x):
        return self.maps


def test_the_layers_above_vgg_are_those_of_the_paper():
    torch.manual_seed(2)
    backbone = SSDVGG(image_size=300)
    backbone.bottom_up = FixedMaps()
    with torch.no_grad():
        maps, vgg = backbone(None), backbone.bottom_up.maps
        length = vgg["conv4_3"].norm(dim=1, keepdim=True)
        torch.testing.assert_close(maps["conv4_3"], 20 * vgg["conv4_3"] / length)
        y = F.max_pool2d(vgg["conv5_3"], 3, stride=1, padding=1)
        y = F.relu(F.conv2d(y, backbone.fc6.weight, padding=6, dilation=6))  # the biases are 0
        y = F.relu(F.conv2d(y, backbone.fc7.weight))
        torch.testing.assert_close(maps["fc7"], y)
        for name, stride, padding in [
            ("conv6_2", 2, 1),
            ("conv7_2", 2, 1),
            ("conv8_2", 1, 0),
            ("conv9_2", 1, 0),
        ]:
            first, second = backbone.extra_layers[name]
            y = F.relu(F.conv2d(y, first.weight))
            y = F.relu(F.conv2d(y, second.weight, stride=stride, padding=padding))
            torch.testing.assert_close(maps[name], y)
            assert y.max() > 0


def test_the_new_layers_start_by_xaviers_rule():
    backbone = SSDVGG(image_size=512)
    convs = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    new = {n: m for n, m in convs.items() if not n.startswith("bottom_up.")}
    assert len(convs) - len(new) == 13 and len(new) == 2 + 2 * 5
    for name, conv in new.items():
        # Uniform between plus and minus sqrt(6 / (fan in + fan out)).
        area = conv.kernel_size[0] * conv.kernel_size[1]
        bound = (6 / (area * (conv.in_channels + conv.out_channels))) ** 0.5
        assert 0.99 * bound < conv.weight.abs().max().item() <= bound, name
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02), name
        assert not conv.bias.any(), name
    assert all(p.requires_grad for p in backbone.parameters())


class TestL2Norm:
    def test_by_hand(self):
        norm = L2Norm(num_channels=2, scale=20.0)
        # (3, 4) has length 5: 20 * 3 / 5 and 20 * 4 / 5; a cell of zeros stays zero.
        x = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
        expected = torch.tensor([[[[12.0, 0.0]], [[16.0, 0.0]]]])
        torch.testing.assert_close(norm(x), expected)
        norm.weight.data = torch.tensor([10.0, 5.0])
        torch.testing.assert_close(norm(x), torch.tensor([[[[6.0, 0.0]], [[4.0, 0.0]]]]))

    def test_gradient(self):
        torch.manual_seed(0)
        norm = L2Norm(num_channels=3).double()
        x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(norm, [x])
        assert torch.autograd.gradcheck(
            lambda w: torch.func.functional_call(norm, {"weight": w}, (x.detach(),)), [norm.weight]
        )

    def test_a_cell_without_features_has_a_finite_gradient(self):
        norm, x = L2Norm(num_channels=2), torch.zeros(1, 2, 1, 1, requires_grad=True)
        norm(x).sum().backward()
        assert x.grad.isfinite().all() and norm.weight.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_does_not_overflow(self, dtype):
        # The length, 4000 * sqrt(512) = 90510, is beyond the 65504 of float16.
        x = torch.full((1, 512, 1, 1), 4000.0, dtype=dtype, requires_grad=True)
        y = L2Norm(num_channels=512)(x)
        assert y.dtype == dtype
        torch.testing.assert_close(
            y.float(), torch.full_like(y, 20 / 512**0.5, dtype=torch.float32), rtol=0.01, atol=0
        )
        y.sum().backward()
        assert x.grad.isfinite().all()

    def test_repr(self):
        assert repr(L2Norm(num_channels=8)) == "L2Norm(num_channels=8, scale=20, eps=1e-10)"


def small_resnet(features):
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=64, norm="BN"),
        stages=L(ResNet.make_default_stages)(depth=18, norm="BN"),
        out_features=features,
    )


class TestExtraLayersOnAnyBackbone:
    def test_on_a_resnet(self):
        backbone = instantiate(
            L(SSDExtraLayers)(
                bottom_up=small_resnet(["res3", "res4", "res5"]),
                in_features=["res4", "res5"],
                out_channels=[64, 32],
                norm="BN",
            )
        )
        maps = backbone(torch.randn(2, 3, 128, 96))
        shapes = backbone.output_shape()
        assert list(maps) == list(shapes) == ["res4", "res5", "extra1", "extra2"]
        for name, stride, channels in [
            ("res4", 16, 256),
            ("res5", 32, 512),
            ("extra1", 64, 64),
            ("extra2", 128, 32),
        ]:
            assert (shapes[name].stride, shapes[name].channels) == (stride, channels)
            # Sizes are rounded up: 96 / 64 is 2.
            assert maps[name].shape == (2, channels, -(-128 // stride), -(-96 // stride))
        below = backbone.bottom_up.eval()(x := torch.randn(1, 3, 64, 64))
        assert torch.equal(backbone.eval()(x)["res5"], below["res5"])
        assert isinstance(backbone.extra_layers["extra1"][1].norm, nn.BatchNorm2d)
        assert backbone.extra_layers["extra1"][1].bias is None

    def test_padding_is_the_one_of_the_backbone_below(self):
        fpn = L(FPN)(
            bottom_up=small_resnet(["res3", "res4"]), in_features=["res3", "res4"], out_channels=8
        )
        backbone = instantiate(
            L(SSDExtraLayers)(bottom_up=fpn, in_features=["p3", "p4"], out_channels=[8])
        )
        assert backbone.size_divisibility == 16
        assert backbone.padding_constraints == getattr(
            backbone.bottom_up, "padding_constraints", {}
        )

    @pytest.mark.parametrize("features", [[], ["res5", "res6"]])
    def test_features_that_are_not_there(self, features):
        with pytest.raises(ValueError, match=r"`in_features` to name maps of \['res5'\], but got"):
            instantiate(
                L(SSDExtraLayers)(
                    bottom_up=small_resnet(["res5"]), in_features=features, out_channels=[8]
                )
            )

    def test_a_map_that_is_too_small(self):
        layer = ExtraLayer(in_channels=4, out_channels=4, kernel_size=4, stride=1, padding=1)
        assert layer(torch.zeros(1, 4, 2, 2)).shape == (1, 4, 1, 1)
        with pytest.raises(ValueError, match=r"at least 2 x 2 cells.*a map of 1 x 2"):
            layer(torch.zeros(1, 4, 1, 2))
