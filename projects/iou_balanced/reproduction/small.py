"""Small parts for images of about 100 px, which overrides of the quick profile name.

A command line cannot write the objects that Detectron2's configs have in these places.
"""

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

from iou_balanced.backbones import SSDExtraLayers


def small_resnet(
    *,
    widths: Sequence[int] = (24, 32, 64),
    strides: Sequence[int] = (1, 2, 2),
    out_features: Sequence[str] = ("res3", "res4"),
) -> ResNet:
    """The shape of ResNet-18, narrower and with trainable BatchNorm, to learn from scratch.

    Args:
        widths: channels of each stage; the first one is the stem's, too.
        strides: of each stage, after the stem's 4.
        out_features: of "res2", "res3", ...
    """
    stages, channels = [], widths[0]
    for width, stride in zip(widths, strides, strict=True):
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                num_blocks=2,
                stride_per_block=[stride, 1],
                in_channels=channels,
                out_channels=width,
                norm="BN",
            )
        )
        channels = width
    stem = BasicStem(in_channels=3, out_channels=widths[0], norm="BN")
    return ResNet(stem, stages, out_features=list(out_features))


def small_ssd_backbone(*, extra: int = 96) -> SSDExtraLayers:
    """Four maps of 8, 8, 16 and 32 px cells, "res3" to "res5" and "extra1"."""
    maps = ["res3", "res4", "res5"]
    bottom_up = small_resnet(widths=(24, 48, 64, 96), strides=(1, 2, 1, 2), out_features=maps)
    return SSDExtraLayers(bottom_up=bottom_up, in_features=maps, out_channels=[extra])


def shapes(*, channels: Sequence[int]) -> list[ShapeSpec]:
    """What a head is told of its maps: their channels."""
    return [ShapeSpec(channels=c) for c in channels]
