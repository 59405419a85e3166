"""ResNeXt stages for Detectron2's ResNet in LazyConfig."""

from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def make_resnext_stages(
    *,
    depth: int,
    num_groups: int,
    width_per_group: int,
    norm: str = "FrozenBN",
    stride_in_1x1: bool = False,
) -> list:
    """The four stages of a ResNeXt (arXiv 1611.05431), for `ResNet(stages=...)`.

    Detectron2's `ResNet.make_default_stages` fixes the bottleneck's width at that of a ResNet,
    a quarter of the output; ResNeXt-101 32x4d has half of it.

    Args:
        depth: 50, 101 or 152.
        num_groups: 32 for "32x4d".
        width_per_group: channels of a group; 4 for "32x4d".
        norm: see `BottleneckBlock`.
        stride_in_1x1: else in the 3x3 convolution, as weights of torchvision and timm have it.

    Raises:
        ValueError: there is no ResNeXt of this depth.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"Expected argument `depth` in {sorted(_BLOCKS)}, but got {depth}")
    stages = []
    in_channels, out_channels = 64, 256
    bottleneck = num_groups * width_per_group
    for index, blocks in enumerate(_BLOCKS[depth]):
        stages.append(
            ResNet.make_stage(
                BottleneckBlock,
                blocks,
                stride_per_block=[1 if index == 0 else 2] + [1] * (blocks - 1),
                in_channels=in_channels,
                bottleneck_channels=bottleneck,
                out_channels=out_channels,
                num_groups=num_groups,
                norm=norm,
                stride_in_1x1=stride_in_1x1,
            )
        )
        in_channels, out_channels, bottleneck = out_channels, out_channels * 2, bottleneck * 2
    return stages
