"""A RetinaNet for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

from .retinanet import model

_widths = (24, 32, 64, 128)
_channels = 64

# The shape of ResNet-18, narrower, with trainable BatchNorm instead of frozen.
model.backbone.bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=_widths[0], norm="BN"),
    stages=[
        L(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=2,
            stride_per_block=[1 if i == 0 else 2, 1],
            in_channels=_widths[max(i - 1, 0)],
            out_channels=width,
            norm="BN",
        )
        for i, width in enumerate(_widths)
    ],
    out_features=["res3", "res4", "res5"],
)
model.backbone.out_channels = _channels
model.backbone.norm = "BN"
model.backbone.top_block = None  # objects are smaller than the cells of P6 and P7
model.head_in_features = ["p3", "p4", "p5"]
model.head.input_shape = [ShapeSpec(channels=_channels)] * 3
model.head.conv_dims = [_channels] * 2
model.head.norm = "BN"  # one for each level
model.anchor_generator.sizes = [[s, s * 2 ** (1 / 3), s * 2 ** (2 / 3)] for s in (16, 32, 64)]
model.anchor_generator.strides = [8, 16, 32]
model.pixel_std = [57.375, 57.120, 58.395]
