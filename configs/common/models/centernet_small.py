"""A CenterNet for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import DLAUpNeck

from .centernet import model
from .retinanet_small import model as _retinanet

# The backbone of the small RetinaNet up to stride 16, because objects are smaller than a cell of
# its last stage; and the neck of DLA-34 without deformable convolution, whose shortcuts from the
# finer maps are learned in far fewer iterations than three up-convolutions.
_bottom_up = _retinanet.backbone.bottom_up
_bottom_up.stages = _bottom_up.stages[:3]
_maps = _bottom_up.out_features = ["res2", "res3", "res4"]
model.backbone = L(DLAUpNeck)(bottom_up=_bottom_up, in_features=_maps, deformable=False)
model.head.in_channels = 24
model.canvas = None  # test images as they are
model.pixel_mean, model.pixel_std = _retinanet.pixel_mean, _retinanet.pixel_std
model.input_format = "BGR"
