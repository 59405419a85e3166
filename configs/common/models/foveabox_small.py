"""A FoveaBox for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.layers import ShapeSpec

from .foveabox import model
from .retinanet_small import model as _retinanet

_channels = 64

model.backbone = _retinanet.backbone
# A level finer than RetinaNet's: the fovea of a small object is narrower than a cell of P3. The
# last stage would only serve objects larger than the images have.
model.backbone.bottom_up.stages = model.backbone.bottom_up.stages[:3]
model.backbone.bottom_up.out_features = model.backbone.in_features = ["res2", "res3", "res4"]
model.backbone.out_channels = _channels
model.head_in_features = ["p2", "p3", "p4"]
model.head.input_shape = [ShapeSpec(channels=_channels)] * 3
model.head.conv_dims = [_channels] * 2
model.head.norm = "BN"  # one for each level
# The published values of P3 to P5, for half of their strides; the last level is open as there.
model.base_sizes = [8, 16, 32]
model.scale_ranges = [[1, 32], [16, 64], [32, 1024]]
model.pixel_std = _retinanet.pixel_std
