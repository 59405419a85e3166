"""CenterNet's necks against hand-worked values and the authors' numbers, without a network."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone, ResNet
from detectron2.modeling.backbone import BasicStem
from omegaconf import OmegaConf
from torch import nn

from iou_balanced.backbones import DeformableConv2d, DLAUpNeck, TimmBackbone, UpConvNeck
from iou_balanced.backbones.centernet_necks import init_bilinear

LEVELS = ["c2", "c3", "c4", "c5"]


class Pyramid(Backbone):
    """Maps of strides 4, 8, ... with the channels given, each a linear function of the pixels."""

    def __init__(self, channels):
        super().__init__()
        self.convs = nn.ModuleDict(
            {f"c{i + 2}": nn.Conv2d(3, c, kernel_size=1) for i, c in enumerate(channels)}
        )

    def output_shape(self):
        return {
            name: ShapeSpec(channels=conv.out_channels, stride=2 ** int(name[1:]))
            for name, conv in self.convs.items()
        }

    def forward(self, x):
        shapes = self.output_shape()
        return {k: conv(F.avg_pool2d(x, shapes[k].stride)) for k, conv in self.convs.items()}


def randomise(model):
    """Fresh norms and offsets are all alike, so that a mistaken one would not show."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.0)
            nn.init.normal_(m.bias, std=0.3)
            nn.init.normal_(m.running_mean, std=0.1)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
        elif isinstance(m, DeformableConv2d):
            nn.init.normal_(m.conv_offset_mask.weight, std=0.05)
            nn.init.normal_(m.conv_offset_mask.bias, std=0.5)
    return model.eval()


class TestDeformableConv2d:
    @pytest.fixture
    def conv(self):
        torch.manual_seed(3)
        conv = DeformableConv2d(in_channels=4, out_channels=5)
        assert not conv.bias.any()
        nn.init.normal_(conv.bias)
        return conv

    def test_starts_as_half_of_a_plain_convolution(self, conv):
        # No offset, and each sample modulated by sigmoid(0) = 0.5; the bias is not modulated.
        x = torch.randn(2, 4, 6, 7)
        half = 0.5 * F.conv2d(x, conv.weight, padding=1) + conv.bias[:, None, None]
        torch.testing.assert_close(conv(x), half)
        # Its weights start as a plain convolution's: uniform within 1 / sqrt(fan in).
        big = DeformableConv2d(in_channels=64, out_channels=64).weight
        assert 0.99 / 24 < big.abs().max() <= 1 / 24
        assert big.std().item() == pytest.approx(1 / 24 / 3**0.5, rel=0.02)

    def test_offsets_are_pairs_of_y_and_x(self, conv):
        x = torch.randn(1, 4, 5, 6)
        with torch.no_grad():
            conv.conv_offset_mask.bias[18:] = 50.0  # sigmoid(50) = 1
            conv.conv_offset_mask.bias[1:18:2] = 1.0  # one cell to the right
            # Columns from 0 to W + 1 instead of those from -1 to W.
            right = F.conv2d(F.pad(x, (0, 2, 1, 1)), conv.weight, conv.bias)
            torch.testing.assert_close(conv(x), right)
            conv.conv_offset_mask.bias[:18:2] = -0.5  # and half a cell up
            between = F.pad(x, (0, 2, 2, 1))
            between = (between[:, :, :-1] + between[:, :, 1:]) / 2
            torch.testing.assert_close(conv(x), F.conv2d(between, conv.weight, conv.bias))

    def test_modulation_of_each_sample(self, conv):
        x = torch.randn(1, 4, 5, 6)
        with torch.no_grad():
            conv.conv_offset_mask.bias[18:] = -50.0  # 0
            conv.conv_offset_mask.bias[18 + 4] = 1.0986122887  # ln 3: sigmoid is 3 / 4
            centre = F.conv2d(x, conv.weight[:, :, 1:2, 1:2] * 0.75, conv.bias)
            torch.testing.assert_close(conv(x), centre)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_dtypes(self, conv, dtype):
        randomise(conv)
        x = torch.randn(2, 4, 6, 6)
        conv(x).sum().backward()
        expected, grads = conv(x), [p.grad.clone() for p in conv.parameters()]
        conv.zero_grad()
        y = conv.to(dtype)(x.to(dtype))
        assert y.dtype == dtype
        torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
        y.sum().backward()
        for p, grad in zip(conv.parameters(), grads, strict=True):
            assert p.grad.dtype == dtype
            assert (p.grad.float() - grad).norm() < 0.05 * grad.norm()

    def test_autocast(self, conv):
        randomise(conv)
        x = torch.randn(2, 4, 6, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = conv(x)
            twice = conv(y[:, :4])  # its input is in bfloat16 now
        assert y.dtype == twice.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), conv(x), rtol=0.05, atol=0.05)
        y.float().square().sum().backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in conv.parameters())


class TestInitBilinear:
    @pytest.mark.parametrize(
        ("factor", "half"), [(2, [0.25, 0.75]), (4, [0.125, 0.375, 0.625, 0.875])]
    )
    def test_by_hand(self, factor, half):
        line = half + half[::-1]
        up = nn.ConvTranspose2d(3, 3, 2 * factor, factor, factor // 2, groups=3, bias=False)
        init_bilinear(up)
        expected = torch.outer(torch.tensor(line), torch.tensor(line))
        torch.testing.assert_close(up.weight, expected.expand(3, 1, -1, -1))
        # Away from the border, where zeros come in, it is bilinear interpolation.
        x = torch.randn(1, 3, 5, 6)
        y = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        inner = (..., slice(factor, -factor), slice(factor, -factor))
        torch.testing.assert_close(up(x)[inner], y[inner])

    def test_a_dense_one_has_it_in_the_first_output_channel(self):
        up = nn.ConvTranspose2d(4, 4, kernel_size=4, stride=2, padding=1, bias=False)
        before = up.weight.clone()
        init_bilinear(up)
        assert up.weight[:, 0].sum(dim=(1, 2)).tolist() == [4.0] * 4  # 4 * line's sum of 2 / 2
        assert up.weight[0, 0, 1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]
        assert torch.equal(up.weight[:, 1:], before[:, 1:])


def config(cls, name, levels, **kwargs):
    return L(cls)(bottom_up=L(TimmBackbone)(name=name, out_features=levels), **kwargs)


@pytest.mark.parametrize(
    ("cfg", "channels"),
    [
        (config(UpConvNeck, "resnet18", ["c5"]), 64),
        (config(UpConvNeck, "mobilenetv2_100", ["c5"], deformable=False), 64),
        (config(DLAUpNeck, "dla34", LEVELS), 64),
        (config(DLAUpNeck, "mobilenetv2_100", LEVELS, deformable=False), 24),
    ],
)
def test_map_and_gradients(cfg, channels, tmp_path):
    path = str(tmp_path / "config.yaml")
    LazyConfig.save(OmegaConf.create({"backbone": cfg}), path)
    torch.manual_seed(0)
    neck = instantiate(LazyConfig.load(path).backbone)
    assert neck.output_shape() == {"p2": ShapeSpec(channels=channels, stride=4)}
    assert neck.size_divisibility == 32
    [(name, y)] = neck(torch.randn(2, 3, 64, 96)).items()
    assert name == "p2" and y.shape == (2, channels, 16, 24)
    (y * torch.randn_like(y)).sum().backward()
    # A bias before a BatchNorm has a gradient of 0 but for rounding, and timm's residual branches
    # start at 0; all else has some.
    idle = {f"{k}.bias" for k, m in neck.named_modules() if isinstance(m, DeformableConv2d)}
    assert bool(idle) == (cfg.get("deformable") is not False)
    for name, p in neck.named_parameters():
        assert p.grad is not None, name
        assert name in idle or name.startswith("bottom_up.") or p.grad.any(), name
    assert next(neck.bottom_up.parameters()).grad.any()


def on_meta(cls, channels, **kwargs):
    with torch.device("meta"):
        return cls(bottom_up=Pyramid(channels), **kwargs)


def count(neck):
    return sum(p.numel() for k, p in neck.named_parameters() if not k.startswith("bottom_up."))


class TestParameterCounts:
    """Those of the authors' code, without backbone and heads."""

    # A deformable convolution has weights, biases, and 27 predictions; a norm two numbers.
    @staticmethod
    def conv(i, o):
        return 9 * i * o + o + 27 * (9 * i + 1) + 2 * o

    @pytest.mark.parametrize(("coarsest", "number"), [(512, 3144593), (2048, 7056785)])
    def test_resnets(self, coarsest, number):
        steps = [(coarsest, 256), (256, 128), (128, 64)]
        assert sum(self.conv(i, o) + 16 * o * o + 2 * o for i, o in steps) == number
        assert count(on_meta(UpConvNeck, [1, 1, 1, coarsest])) == number

    def test_dla_34(self):
        # Channels before and after, size of the up-sampling's kernel.
        steps = [(512, 256, 4)] + [(256, 128, 4)] * 2 + [(128, 64, 4)] * 3
        steps += [(128, 64, 4), (256, 64, 8)]
        total = sum(self.conv(i, o) + self.conv(o, o) + k * k * o for i, o, k in steps)
        assert total == 3940336
        assert count(on_meta(DLAUpNeck, [64, 128, 256, 512])) == total

    def test_plain_convolutions(self):
        steps = [(320, 256), (256, 128), (128, 64)]
        number = sum(9 * i * o + 2 * o + 16 * o * o + 2 * o for i, o in steps)
        assert count(on_meta(UpConvNeck, [24, 32, 96, 320], deformable=False)) == number


def test_order_of_the_up_convolutions():
    torch.manual_seed(1)
    neck = randomise(UpConvNeck(bottom_up=Pyramid([1, 1, 1, 8]), channels=[6, 5, 4]))
    y = neck.bottom_up(x := torch.randn(1, 3, 64, 64))["c5"]
    for (conv, norm, _), up, up_norm, _ in neck.up_convs:
        y = F.conv_transpose2d(F.relu(norm(conv(y))), up.weight, stride=2, padding=1)
        y = F.relu(up_norm(y))
    torch.testing.assert_close(neck(x)["p2"], y)
    assert y.shape == (1, 4, 16, 16) and y.any()


def test_order_of_the_aggregations():
    torch.manual_seed(1)
    neck = randomise(DLAUpNeck(bottom_up=Pyramid([4, 5, 6, 7])))
    x = torch.randn(1, 3, 64, 64)
    c2, c3, c4, c5 = neck.bottom_up(x).values()

    def add(aggregation, i, finer, coarser):
        y = aggregation.ups[i](aggregation.projections[i](coarser))
        return aggregation.nodes[i](finer + y)

    # Figure 6d of the paper; one aggregation a line.
    a, b, c = neck.aggregations
    p4 = add(a, 0, c4, c5)
    q3 = add(b, 0, c3, c4)
    p3 = add(b, 1, q3, p4)
    p2 = add(c, 2, add(c, 1, add(c, 0, c2, c3), q3), p3)
    last = neck.last_aggregation
    expected = add(last, 1, add(last, 0, p2, p3), p4)
    assert expected.shape == (1, 4, 16, 16) and expected.any()
    torch.testing.assert_close(neck(x)["p2"], expected)


@pytest.mark.parametrize("cls", [UpConvNeck, DLAUpNeck])
def test_autocast(cls):
    torch.manual_seed(1)
    neck = randomise(cls(bottom_up=Pyramid([8, 8, 8, 8])))
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = neck(x)["p2"]
    expected = neck(x)["p2"]
    assert (y.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in neck.parameters() if p.grad is not None)


def test_on_detectron2s_resnet():
    stages = ResNet.make_default_stages(18, norm="BN")
    resnet = ResNet(stem=BasicStem(norm="BN"), stages=stages, out_features=["res5"])
    assert resnet.size_divisibility == 0
    neck = UpConvNeck(bottom_up=resnet, in_feature="res5", norm="GN")
    assert neck.size_divisibility == 32
    assert neck.padding_constraints == getattr(resnet, "padding_constraints", {})
    with torch.no_grad():
        assert neck(torch.randn(1, 3, 32, 64))["p2"].shape == (1, 64, 8, 16)
    assert sum(isinstance(m, nn.GroupNorm) for m in neck.modules()) == 6


def test_other_strides_and_no_norm():
    neck = UpConvNeck(bottom_up=Pyramid([4, 4]), in_feature="c3", channels=[4, 4], norm="")
    assert neck(torch.randn(1, 3, 8, 8))["p1"].shape == (1, 4, 4, 4)
    assert all(m.bias is not None for m in neck.modules() if isinstance(m, nn.ConvTranspose2d))
    neck = DLAUpNeck(bottom_up=Pyramid([4, 4, 6]), in_features=["c3", "c4"])
    assert neck(torch.randn(2, 3, 32, 32))["p3"].shape == (2, 4, 4, 4)


def test_bad_arguments():
    bottom_up = Pyramid([4, 4, 4, 4])
    with pytest.raises(ValueError, match=r"`bottom_up` to have the map 'res5', but got the maps"):
        UpConvNeck(bottom_up=bottom_up, in_feature="res5")
    for channels in ([], [4] * 6):
        with pytest.raises(ValueError, match=r"`channels` to have from 1 to 5 entries .*stride 32"):
            UpConvNeck(bottom_up=bottom_up, channels=channels)
    for names in (["c2"], ["c2", "c4"], ["c3", "c2"]):
        with pytest.raises(ValueError, match=r"`in_features` to name at least two maps.*stride"):
            DLAUpNeck(bottom_up=bottom_up, in_features=names)


def test_repr():
    neck = UpConvNeck(bottom_up=Pyramid([4, 4, 4, 4]), deformable=False)
    assert "in_feature=c5, channels=[256, 128, 64], deformable=False, norm=BN" in repr(neck)
    assert "in_features=['c2', 'c3'], deformable=True, norm=BN" in repr(
        DLAUpNeck(bottom_up=Pyramid([4, 4]), in_features=["c2", "c3"])
    )
