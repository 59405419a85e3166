"""RetinaNet on EfficientNet-Lite0 with FPN, for RGB images of 256 to 320 px on a CPU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from iou_balanced.backbones import (
    EFFICIENTNET_LITE_RGB_MEAN,
    EFFICIENTNET_LITE_RGB_STD,
    TimmBackbone,
)

from .retinanet import model

_channels = 64
_maps = ["c3", "c4", "c5"]  # strides 8, 16, 32 with 40, 112, 320 channels

# The stem and the stage of stride 4 stay as they are: a third of a training's time.
model.backbone.bottom_up = L(TimmBackbone)(
    name="tf_efficientnet_lite0", out_features=_maps, norm="BN", freeze_at=2
)
model.backbone.in_features = _maps
model.backbone.out_channels = _channels
model.backbone.norm = "BN"
model.backbone.top_block = L(LastLevelMaxPool)()
model.head_in_features = ["p3", "p4", "p5", "p6"]
model.head.input_shape = [ShapeSpec(channels=_channels)] * 4
model.head.conv_dims = [_channels]
model.head.norm = "BN"  # one for each level
# From twice the stride, where COCO's detectors start at four times: images are small.
model.anchor_generator.sizes = [[s, s * 2 ** (1 / 3), s * 2 ** (2 / 3)] for s in (16, 32, 64, 128)]
model.anchor_generator.strides = [8, 16, 32, 64]
model.pixel_mean, model.pixel_std = EFFICIENTNET_LITE_RGB_MEAN, EFFICIENTNET_LITE_RGB_STD
model.input_format = "RGB"
