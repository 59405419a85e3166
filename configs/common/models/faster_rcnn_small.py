"""A Faster R-CNN for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.layers import ShapeSpec

from .faster_rcnn import model
from .retinanet_small import model as _retinanet

_channels, _fc_dim = 64, 128

# The backbone and feature pyramid of the small RetinaNet: p3 to p5, with BatchNorm.
model.backbone = _retinanet.backbone
_rpn, _heads = model.proposal_generator, model.roi_heads
_rpn.in_features = _heads.box_in_features = ["p3", "p4", "p5"]
_rpn.head.in_channels = _channels
_rpn.anchor_generator.sizes = [[16], [32], [64]]
_rpn.anchor_generator.strides = [8, 16, 32]
_rpn.batch_size_per_image = 64
_rpn.pre_nms_topk, _rpn.post_nms_topk = (400, 200), (200, 100)

_heads.batch_size_per_image = 64
_heads.box_pooler.scales = [1 / 8, 1 / 16, 1 / 32]
_heads.box_pooler.output_size = 5
_heads.box_head.input_shape = ShapeSpec(channels=_channels, height=5, width=5)
_heads.box_head.fc_dims = [_fc_dim, _fc_dim]
_heads.box_predictor.input_shape = ShapeSpec(channels=_fc_dim)
model.pixel_std = [57.375, 57.120, 58.395]
