"""The up-sampling necks of CenterNet (Objects as Points, arXiv 1904.07850, Section 5 and Figure 6).

Shapes: N images, C channels, H x W cells.
"""

import math
from collections.abc import Sequence

import torch
from detectron2.layers import get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv2d(nn.Conv2d):
    """A modulated deformable convolution (DCNv2, arXiv 1811.11168, Section 3.2), 3x3, stride 1.

    Offsets and modulation of the nine samples come from a 3x3 convolution that starts at 0: the
    layer starts as half of a plain convolution with the same weights, which start as a plain
    one's do. Its bias starts at 0.

    Args:
        in_channels, out_channels: C before and after.
    """

    def __init__(self, *, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.bias)
        self.num_samples = math.prod(self.kernel_size)
        # Vertical and horizontal offset of each sample in turn, in cells; then the modulations.
        self.conv_offset_mask = nn.Conv2d(
            in_channels, 3 * self.num_samples, kernel_size=self.kernel_size, padding=self.padding
        )
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, out_channels, H, W), of the dtype that a plain convolution gives.

        Args:
            x: (N, in_channels, H, W).
        """
        samples = self.conv_offset_mask(x)
        # torchvision has no kernel for bfloat16, and samples between cells want more precision.
        dtype = torch.promote_types(samples.dtype, torch.float32)
        offset, mask = samples.to(dtype).split([2 * self.num_samples, self.num_samples], dim=1)
        y = deform_conv2d(
            x.to(dtype),
            offset,
            self.weight.to(dtype),
            self.bias.to(dtype),
            padding=self.padding,
            mask=mask.sigmoid(),
        )
        return y.to(samples.dtype)


def init_bilinear(conv: nn.ConvTranspose2d) -> None:
    """Start a transposed convolution of kernel 2f and stride f as bilinear up-sampling by f.

    This is what a grouped convolution, one channel a group, does then. A dense one has the kernel
    from each input channel to the first output channel only, and keeps PyTorch's random weights
    for the others: what the authors' models start from, and MMDetection's.
    """
    factor = conv.stride[0]
    distance = (torch.arange(2 * factor) + 0.5) / factor - 1  # from the kernel's centre
    line = 1 - distance.abs()
    with torch.no_grad():
        conv.weight[:, 0] = line[:, None] * line


class ConvNormReLU(nn.Sequential):
    """A 3x3 convolution, norm and ReLU.

    Args:
        in_channels, out_channels: C before and after.
        deformable: a `DeformableConv2d`, which has a bias in any case, as the authors'.
        norm: as in `detectron2.layers.get_norm`.
    """

    def __init__(self, *, in_channels: int, out_channels: int, deformable: bool, norm: str):
        if deformable:
            conv = DeformableConv2d(in_channels=in_channels, out_channels=out_channels)
        else:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not norm)
        super().__init__(conv, *_norm_relu(norm, out_channels))


def _norm_relu(norm: str, channels: int) -> list[nn.Module]:
    layer = get_norm(norm, channels)
    return [*([] if layer is None else [layer]), nn.ReLU(inplace=True)]


class CenterNetNeck(Backbone):
    """One map, called "p<i>" for the stride 2^i, from some maps of `bottom_up`.

    Args:
        bottom_up: a Detectron2 backbone.
        in_features: names of its maps to take.

    Raises:
        ValueError: `bottom_up` has no such map.
    """

    def __init__(self, bottom_up: Backbone, in_features: Sequence[str]):
        super().__init__()
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        shapes = bottom_up.output_shape()
        for name in self.in_features:
            if name not in shapes:
                raise ValueError(
                    f"Expected argument `bottom_up` to have the map {name!r}, but got the maps "
                    f"{list(shapes)}"
                )
        self.in_shapes = [shapes[name] for name in self.in_features]

    def set_output(self, channels: int, stride: int) -> None:
        """Say what the map is like; for the constructor of a subclass.

        Args:
            channels: C of the map.
            stride: of the map, in pixels.
        """
        name = f"p{int(math.log2(stride))}"
        self._out_features = [name]
        self._out_feature_channels = {name: channels}
        self._out_feature_strides = {name: stride}

    @property
    def size_divisibility(self) -> int:
        """What both sides of an image have to be multiples of, in pixels, so that the coarse maps,
        scaled up, fit the fine ones."""
        return math.lcm(max(self.bottom_up.size_divisibility, 1), self.in_shapes[-1].stride)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Those of `bottom_up`; Detectron2 v0.6 has none."""
        return getattr(self.bottom_up, "padding_constraints", {})

    def output(self, x: Tensor) -> dict[str, Tensor]:
        """The result of `forward`.

        Args:
            x: the map (N, C, H, W).
        """
        return {self._out_features[0]: x}


class UpConvNeck(CenterNetNeck):
    """Up-convolutions on the coarsest map: CenterNet's ResNets, and BOFL's MobileNets.

    Each one is a 3x3 convolution, then a transposed 4x4 convolution of stride 2, both with norm
    and ReLU. With the defaults it makes the map "p2" of stride 4 from one of stride 32, as the
    authors' ResNet-18 and ResNet-101 do.

    Args:
        bottom_up: a Detectron2 backbone; its weights may be pretrained ones.
        in_feature: name of its map to start from, "c5" of `TimmBackbone` or "res5" of
            Detectron2's `ResNet`.
        channels: of each up-convolution.
        deformable: the 3x3 convolutions are deformable ones (DCNv2). Plain ones for the
            MobileNets (Section 5.1 of "Balance-Oriented Focal Loss").
        norm: as in `detectron2.layers.get_norm`.

    Raises:
        ValueError: `bottom_up` has no such map, or its stride cannot be halved that often.
    """

    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_feature: str = "c5",
        channels: Sequence[int] = (256, 128, 64),
        deformable: bool = True,
        norm: str = "BN",
    ):
        super().__init__(bottom_up, [in_feature])
        self.deformable, self.norm = deformable, norm
        shape = self.in_shapes[0]
        self.channels = list(channels)
        factor = 2 ** len(self.channels)
        if not self.channels or shape.stride % factor:
            raise ValueError(
                "Expected argument `channels` to have from 1 to "
                f"{int(math.log2(shape.stride))} entries for a map of stride {shape.stride}, "
                f"but got {self.channels}"
            )
        layers, in_channels = [], shape.channels
        for out_channels in self.channels:
            up = nn.ConvTranspose2d(
                out_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=not norm
            )
            init_bilinear(up)
            conv = ConvNormReLU(
                in_channels=in_channels,
                out_channels=out_channels,
                deformable=deformable,
                norm=norm,
            )
            layers.append(nn.Sequential(conv, up, *_norm_relu(norm, out_channels)))
            in_channels = out_channels
        self.up_convs = nn.Sequential(*layers)
        self.set_output(in_channels, shape.stride // factor)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The map (N, C, H / stride, W / stride), by its name.

        Args:
            x: images (N, 3, H, W).
        """
        return self.output(self.up_convs(self.bottom_up(x)[self.in_features[0]]))

    def extra_repr(self) -> str:
        return (
            f"in_feature={self.in_features[0]}, channels={self.channels}, "
            f"deformable={self.deformable}, norm={self.norm}"
        )
