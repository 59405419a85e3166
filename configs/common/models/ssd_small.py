"""An SSD for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

from iou_balanced.backbones import SSDExtraLayers

from .ssd300 import model

_widths = (24, 48, 64, 96)
_extra = 96

# The shape of ResNet-18, narrower, with trainable BatchNorm. As VGG's fc6 in SSD, a stage keeps
# the cells of the one before: two levels of 8 px cells, so that each object has many boxes.
model.backbone = L(SSDExtraLayers)(
    bottom_up=L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=_widths[0], norm="BN"),
        stages=[
            L(ResNet.make_stage)(
                block_class=BasicBlock,
                num_blocks=2,
                stride_per_block=[stride, 1],
                in_channels=_widths[max(i - 1, 0)],
                out_channels=width,
                norm="BN",
            )
            for i, (stride, width) in enumerate(zip((1, 2, 1, 2), _widths, strict=True))
        ],
        out_features=["res3", "res4", "res5"],
    ),
    in_features=["res3", "res4", "res5"],
    out_channels=[_extra],
)
model.head_in_features = ["res3", "res4", "res5", "extra1"]
model.head.input_shape = [ShapeSpec(channels=c) for c in (*_widths[1:], _extra)]
model.head.num_anchors = [6, 6, 6, 4]
# In pixels: 17, 28, 42, 56 and 70.
model.anchor_generator.min_max_sizes.update(
    image_size=128, num_levels=4, scale_range=(0.22, 0.44), first_scale=0.14
)
model.anchor_generator.aspect_ratios = [[2, 3], [2, 3], [2, 3], [2]]
model.anchor_generator.strides = [8, 8, 16, 32]
model.pixel_mean, model.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
