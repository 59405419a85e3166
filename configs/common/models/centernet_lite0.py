"""CenterNet on EfficientNet-Lite0, for RGB images of 256 to 320 px on a CPU."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import DLAUpNeck

from .centernet import model
from .retinanet_lite0 import model as _retinanet

# The neck of DLA-34 without deformable convolution: shortcuts from the finer maps learn in fewer
# iterations than three up-convolutions from the coarsest.
model.backbone = L(DLAUpNeck)(
    bottom_up=_retinanet.backbone.bottom_up,
    in_features=["c2", "c3", "c4", "c5"],
    deformable=False,
)
model.backbone.bottom_up.out_features = model.backbone.in_features
model.head.in_channels = 24  # of c2, at stride 4
model.canvas = None  # test images as they are
model.pixel_mean, model.pixel_std = _retinanet.pixel_mean, _retinanet.pixel_std
