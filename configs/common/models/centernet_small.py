"""A CenterNet for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import UpConvNeck
from iou_balanced.losses import PenaltyReducedFocalLoss, SmoothL1Loss
from iou_balanced.modeling import CenterBoxTransform, CenterNet, CenterNetHead, LossNormalizer

from .retinanet_small import model as _retinanet

# The backbone of the small RetinaNet up to its stride of 32, and the published neck without
# deformable convolution, narrower.
_bottom_up = _retinanet.backbone.bottom_up
_bottom_up.out_features = ["res5"]
_channels = [64, 48, 32]
model = L(CenterNet)(
    backbone=L(UpConvNeck)(
        bottom_up=_bottom_up, in_feature="res5", channels=_channels, deformable=False
    ),
    head=L(CenterNetHead)(
        in_channels=_channels[-1], num_classes="${..num_classes}", head_channels=64
    ),
    num_classes=80,
    box2box_transform=L(CenterBoxTransform)(weights=[0.5, 0.5, 0.05, 0.05]),
    cls_loss=L(PenaltyReducedFocalLoss)(alpha=2.0, beta=4.0),
    box_loss=L(SmoothL1Loss)(beta=0.0),  # L1
    loss_normalizer=L(LossNormalizer)(momentum=0.0, initial=None, across_processes=True),
    test_score_thresh=0.0,
    max_detections_per_image=100,
    flip_test=False,
    pixel_mean=_retinanet.pixel_mean,
    pixel_std=_retinanet.pixel_std,
    input_format="BGR",
)
