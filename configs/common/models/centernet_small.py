"""A CenterNet for images of about 100 px, small enough to train from scratch on a CPU."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import DLAUpNeck
from iou_balanced.losses import PenaltyReducedFocalLoss, SmoothL1Loss
from iou_balanced.modeling import CenterBoxTransform, CenterNet, CenterNetHead, LossNormalizer

from .retinanet_small import model as _retinanet

# The backbone of the small RetinaNet up to stride 16, because objects are smaller than a cell of
# its last stage; and the neck of DLA-34 without deformable convolution, whose shortcuts from the
# finer maps are learned in far fewer iterations than three up-convolutions.
_bottom_up = _retinanet.backbone.bottom_up
_bottom_up.stages = _bottom_up.stages[:3]
_maps = _bottom_up.out_features = ["res2", "res3", "res4"]
model = L(CenterNet)(
    backbone=L(DLAUpNeck)(bottom_up=_bottom_up, in_features=_maps, deformable=False),
    head=L(CenterNetHead)(in_channels=24, num_classes="${..num_classes}", head_channels=64),
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
