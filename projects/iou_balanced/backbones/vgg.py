"""VGG16 with SSD's extra layers (Liu et al., arXiv 1512.02325), and those layers on any backbone.

Shapes: N images, C channels, H x W cells.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

# (output channels, kernel size, stride, padding) of the second convolution of each extra layer:
# maps of 10, 5, 3, 1 cells at 300 (Figure 2), and of 16, 8, 4, 2, 1 at 512.
_EXTRA_LAYERS = {
    300: [(512, 3, 2, 1), (256, 3, 2, 1), (256, 3, 1, 0), (256, 3, 1, 0)],
    512: [(512, 3, 2, 1), (256, 3, 2, 1), (256, 3, 2, 1), (256, 3, 2, 1), (256, 4, 1, 1)],
}


class L2Norm(nn.Module):
    """Features of unit length in each cell, times a learned scale for each channel.

    ParseNet (arXiv 1506.04579, Section 3.2). SSD starts conv4_3, whose features are larger than
    those of the other levels, at 20 (arXiv 1512.02325, Section 3.1).

    Args:
        num_channels: C.
        scale: first value of all scales.
        eps: lengths below it count as it, so that a cell without features stays 0.
    """

    def __init__(self, *, num_channels: int, scale: float = 20.0, eps: float = 1e-10):
        super().__init__()
        self.scale, self.eps = scale, eps
        self.weight = nn.Parameter(torch.full((num_channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """The scaled features, of the same shape and dtype.

        Args:
            x: (N, C, H, W).
        """
        # In float32, because the squares of VGG's features overflow in float16.
        y = x if x.dtype == torch.float64 else x.float()
        y = F.normalize(y, dim=1, eps=self.eps) * self.weight[:, None, None]
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"num_channels={len(self.weight)}, scale={self.scale:g}, eps={self.eps:g}"


class ExtraLayer(nn.Sequential):
    """A 1x1 convolution to half of `out_channels`, then one that makes the map smaller; ReLUs.

    Args:
        kernel_size, stride, padding: of the second convolution.
        norm: as in `detectron2.layers.get_norm`; none in the paper.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 2,
        padding: int = 1,
        norm: str = "",
    ):
        half = out_channels // 2
        shapes = [(in_channels, half, 1, 1, 0), (half, out_channels, kernel_size, stride, padding)]
        super().__init__(
            *(
                Conv2d(*shape, bias=not norm, norm=get_norm(norm, shape[1]), activation=F.relu)
                for shape in shapes
            )
        )
        init_xavier(self)

    def forward(self, x: Tensor) -> Tensor:
        conv = self[1]
        needed = [k - 2 * p for k, p in zip(conv.kernel_size, conv.padding, strict=True)]
        if any(have < need for have, need in zip(x.shape[-2:], needed, strict=True)):
            raise ValueError(
                f"Expected images that leave at least {needed[0]} x {needed[1]} cells for this "
                f"level, but got a map of {x.shape[-2]} x {x.shape[-1]}: the images are too small"
            )
        return super().forward(x)


def init_xavier(module: nn.Module) -> None:
    """Xavier's uniform weights and biases of 0 for all convolutions of SSD's own layers."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class VGG16(Backbone):
    """torchvision's VGG16 (arXiv 1409.1556) to conv5_3, with names and order of its weights.

    Pooling rounds sizes up, as Caffe's does: conv4_3 of an image of 300 pixels has 38 cells.
    """

    def __init__(self):
        super().__init__()
        features = make_layers(cfgs["D"], batch_norm=False)[:-1]  # without pool5
        for m in features:
            if isinstance(m, nn.MaxPool2d):
                m.ceil_mode = True
            elif isinstance(m, nn.Conv2d):  # torchvision's, for training from scratch
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(m.bias)
        self.features = features
        self._out_features = ["conv4_3", "conv5_3"]
        self._out_feature_channels = {"conv4_3": 512, "conv5_3": 512}
        self._out_feature_strides = {"conv4_3": 8, "conv5_3": 16}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Both maps, after their ReLU.

        Args:
            x: images (N, 3, H, W).
        """
        conv4_3 = self.features[:23](x)
        return {"conv4_3": conv4_3, "conv5_3": self.features[23:](conv4_3)}


class SSDVGG(Backbone):
    """The backbone of SSD300 and SSD512 (arXiv 1512.02325, Section 3 and Figure 2).

    VGG16 with fc6 and fc7 as convolutions (fc6 dilated by 6, behind a pool5 of 3x3 and stride 1),
    the extra layers, and L2-normalised conv4_3. Only `bottom_up` has ImageNet weights; all else
    starts anew by Xavier's rule. No layer is frozen.

    Args:
        image_size: 300 or 512, the images' height and width in pixels, which decides on the
            extra layers. Larger images work too.

    Raises:
        ValueError: there are no extra layers for this size.
    """

    def __init__(self, *, image_size: int = 300):
        super().__init__()
        if image_size not in _EXTRA_LAYERS:
            raise ValueError(
                f"Expected argument `image_size` in {sorted(_EXTRA_LAYERS)}, but got {image_size}"
            )
        self.bottom_up = VGG16()
        self.conv4_3_norm = L2Norm(num_channels=512, scale=20.0)
        self.pool5 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        self.fc6 = Conv2d(512, 1024, 3, padding=6, dilation=6, activation=F.relu)
        self.fc7 = Conv2d(1024, 1024, 1, activation=F.relu)
        for module in (self.fc6, self.fc7):
            init_xavier(module)

        self._out_feature_channels = {"conv4_3": 512, "fc7": 1024}
        self._out_feature_strides = {"conv4_3": 8, "fc7": 16}
        self.extra_layers = nn.ModuleDict()
        channels, total_stride = 1024, 16
        for i, (out_channels, kernel_size, stride, padding) in enumerate(_EXTRA_LAYERS[image_size]):
            name = f"conv{6 + i}_2"
            self.extra_layers[name] = ExtraLayer(
                in_channels=channels,
                out_channels=out_channels,
                kernel_size=kernel_size,
                stride=stride,
                padding=padding,
            )
            channels, total_stride = out_channels, total_stride * stride
            self._out_feature_channels[name] = channels
            self._out_feature_strides[name] = total_stride
        self._out_features = list(self._out_feature_channels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The maps conv4_3, fc7, conv6_2, conv7_2, ..., finest first.

        Args:
            x: images (N, 3, H, W).
        """
        features = self.bottom_up(x)
        x = self.fc7(self.fc6(self.pool5(features["conv5_3"])))
        return {
            "conv4_3": self.conv4_3_norm(features["conv4_3"]),
            "fc7": x,
            **_run(self.extra_layers, x),
        }


class SSDExtraLayers(Backbone):
    """SSD's extra layers on top of any backbone.

    Args:
        bottom_up: a Detectron2 backbone; its weights may be pretrained ones.
        in_features: names of its maps to hand on, finest first; the layers start at the last.
        out_channels: one number for each extra layer, whose stride is 2 and whose maps are called
            "extra1", "extra2", ...
        norm: as in `detectron2.layers.get_norm`, for the extra layers.

    Raises:
        ValueError: `bottom_up` has no such map.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: Sequence[int],
        norm: str = "",
    ):
        super().__init__()
        shapes = bottom_up.output_shape()
        unknown = [name for name in in_features if name not in shapes]
        if unknown or not in_features:
            raise ValueError(
                f"Expected argument `in_features` to name maps of {list(shapes)}, "
                f"but got {list(in_features)}"
            )
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        shapes = {name: shapes[name] for name in in_features}
        self.extra_layers = nn.ModuleDict()
        last = shapes[in_features[-1]]
        for i, channels in enumerate(out_channels, start=1):
            name = f"extra{i}"
            self.extra_layers[name] = ExtraLayer(
                in_channels=last.channels, out_channels=channels, norm=norm
            )
            last = shapes[name] = ShapeSpec(channels=channels, stride=last.stride * 2)
        self._out_features = list(shapes)
        self._out_feature_channels = {name: s.channels for name, s in shapes.items()}
        self._out_feature_strides = {name: s.stride for name, s in shapes.items()}

    @property
    def size_divisibility(self) -> int:
        return self.bottom_up.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Those of `bottom_up`; Detectron2 v0.6 has none."""
        return getattr(self.bottom_up, "padding_constraints", {})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The maps of `in_features` and of the extra layers.

        Args:
            x: images (N, 3, H, W).
        """
        features = self.bottom_up(x)
        features = {name: features[name] for name in self.in_features}
        return {**features, **_run(self.extra_layers, features[self.in_features[-1]])}


def _run(layers: nn.ModuleDict, x: Tensor) -> dict[str, Tensor]:
    outputs = {}
    for name, layer in layers.items():
        x = outputs[name] = layer(x)
    return outputs
