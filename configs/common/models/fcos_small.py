"""An FCOS for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.layers import ShapeSpec

from .fcos import model
from .retinanet_small import model as _retinanet

_channels = 64

model.backbone = _retinanet.backbone
# FCOS gives a point to a level by how far the box reaches from it: P2 (stride 4) up to 32 px, P3
# (stride 8) beyond. That is P2 alone for objects below about 45 px, and P3 alone above 62 px. No
# object of these images would come to a P4, so that the last stage keeps the cells of the one
# before it.
model.backbone.bottom_up.stages = model.backbone.bottom_up.stages[:3]
model.backbone.bottom_up.stages[2].stride_per_block = [1, 1]
model.backbone.bottom_up.out_features = model.backbone.in_features = ["res2", "res4"]
model.backbone.out_channels = _channels
model.head_in_features = ["p2", "p3"]
model.head.input_shape = [ShapeSpec(channels=_channels)] * 2
model.head.conv_dims = [_channels] * 2
model.head.norm = "BN"  # one for each level
model.pixel_std = _retinanet.pixel_std
