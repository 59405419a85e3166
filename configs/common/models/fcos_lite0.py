"""FCOS on EfficientNet-Lite0 with FPN, for RGB images of 256 to 320 px on a CPU."""

from detectron2.layers import ShapeSpec

from .fcos import model
from .retinanet_lite0 import model as _retinanet

_channels = 64

model.backbone = _retinanet.backbone
model.head_in_features = _retinanet.head_in_features
model.head.input_shape = _retinanet.head.input_shape
model.head.conv_dims = [_channels]
model.head.norm = "BN"  # one for each level
model.pixel_mean, model.pixel_std = _retinanet.pixel_mean, _retinanet.pixel_std
