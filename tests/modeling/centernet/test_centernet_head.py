import math

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf
from torch import nn

from iou_balanced.modeling.centernet.head import CenterNetHead

BRANCHES = ["heatmap", "offset", "size"]


def kinds(branch):
    return [type(m).__name__ for m in branch]


def test_shapes_and_gradients():
    torch.manual_seed(0)
    head = CenterNetHead(in_channels=8, num_classes=5, head_channels=16)
    predictions = head(torch.randn(2, 8, 6, 7))
    heatmap, offset, size = predictions
    assert predictions._fields == ("heatmap", "offset", "size")
    assert heatmap.shape == (2, 5, 6, 7)
    assert offset.shape == size.shape == (2, 2, 6, 7)
    sum((x * torch.randn_like(x)).sum() for x in predictions).backward()
    for name, p in head.named_parameters():
        assert p.grad is not None and p.grad.any(), name


@pytest.mark.parametrize(
    ("kwargs", "layers"),
    [
        ({}, ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d"]),
        ({"norm": ""}, ["Conv2d", "ReLU", "Conv2d"]),
        ({"norm_after_activation": False}, ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]),
        ({"norm": "GN"}, ["Conv2d", "ReLU", "GroupNorm", "Conv2d"]),
    ],
)
def test_order_of_norm_and_activation(kwargs, layers):
    torch.manual_seed(0)
    head = CenterNetHead(in_channels=4, num_classes=3, head_channels=32, **kwargs).eval()
    x = torch.randn(1, 4, 5, 5)
    for name in BRANCHES:
        branch = getattr(head, name)
        assert kinds(branch) == layers
        norms = [m for m in branch if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
        for norm in norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        norm = norms[0] if norms else nn.Identity()
        before = kwargs.get("norm_after_activation") is False
        # The bias of a convolution before a norm would be taken away again.
        assert (branch[0].bias is None) == before
        y = F.conv2d(x, branch[0].weight, branch[0].bias, padding=1)
        y = F.relu(norm(y)) if before else norm(F.relu(y))
        y = F.conv2d(y, branch[-1].weight, branch[-1].bias)
        torch.testing.assert_close(getattr(head(x), name), y)


@pytest.mark.parametrize(("head_channels", "number"), [(64, 116244), (256, 464724)])
def test_the_parameters_are_as_many_as_the_authors(head_channels, number):
    # Without norm; 80 classes. Per branch 9 * 64 * C + C, then C + 1 for each output of 84.
    c = head_channels
    assert 3 * (9 * 64 * c + c) + 84 * (c + 1) == number
    head = CenterNetHead(num_classes=80, head_channels=c, norm="")
    assert sum(p.numel() for p in head.parameters()) == number


def test_the_prior_is_in_the_scores():
    torch.manual_seed(0)
    assert math.log(0.1 / 0.9) == pytest.approx(-2.19, abs=0.01)  # the authors' bias
    x = torch.randn(2, 64, 16, 16)
    for prior in (0.1, 0.005):
        head = CenterNetHead(num_classes=7, prior_prob=prior)
        bias = head.heatmap[-1].bias.sigmoid()
        torch.testing.assert_close(bias, torch.full((7,), prior))
        # After a BatchNorm the 1x1 convolution's input has mean 0: logits are around the bias.
        logits = head(x).heatmap
        assert logits.mean().item() == pytest.approx(math.log(prior / (1 - prior)), abs=0.02)
        nn.init.zeros_(head.heatmap[-1].weight)
        torch.testing.assert_close(head(x).heatmap.sigmoid(), torch.full((2, 7, 16, 16), prior))


def test_weights_at_the_start():
    torch.manual_seed(0)
    head = CenterNetHead(num_classes=80, head_channels=256)
    for branch in (head.offset, head.size):
        for conv in (branch[0], branch[-1]):
            assert conv.weight.std().item() == pytest.approx(0.001, rel=0.1)
            assert not conv.bias.any()
    # PyTorch's own: uniform within 1 / sqrt(fan in). The heat map's in any case, and all without
    # `regression_std`, where the biases of offset and size are 0 still.
    own = CenterNetHead(num_classes=80, head_channels=256, regression_std=None)
    for branch in (head.heatmap, own.heatmap, own.offset, own.size):
        for conv in (branch[0], branch[-1]):
            bound = conv.weight[0].numel() ** -0.5
            assert 0.9 * bound < conv.weight.abs().max() <= bound
    assert head.heatmap[0].bias.any()
    assert not any(branch[i].bias.any() for branch in (own.offset, own.size) for i in (0, -1))


def test_autocast():
    torch.manual_seed(0)
    head = CenterNetHead(in_channels=8, num_classes=3).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = head(x)
    for ours, expected in zip(predictions, head(x), strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.float(), expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("prior", [0, 1, -0.1])
def test_bad_prior(prior):
    with pytest.raises(ValueError, match=rf"`prior_prob` to be between 0 and 1, but got {prior}"):
        CenterNetHead(num_classes=3, prior_prob=prior)


def test_config(tmp_path):
    path = str(tmp_path / "config.yaml")
    cfg = {"head": L(CenterNetHead)(num_classes=3, prior_prob=0.2, norm="")}
    LazyConfig.save(OmegaConf.create(cfg), path)
    head = instantiate(LazyConfig.load(path).head)
    assert head.heatmap[-1].bias[0].item() == pytest.approx(math.log(0.25))
    assert repr(head).splitlines()[1].strip() == (
        "num_classes=3, head_channels=64, norm=, norm_after_activation=True, prior_prob=0.2, "
        "regression_std=0.001"
    )
