"""CenterNet (arXiv 1904.07850) on MobileNetV2, as in "Balance-Oriented Focal Loss"; RGB images."""

from detectron2.config import LazyCall as L

from iou_balanced.backbones import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    TimmBackbone,
    UpConvNeck,
)
from iou_balanced.data import CenterFit
from iou_balanced.losses import PenaltyReducedFocalLoss, SmoothL1Loss
from iou_balanced.modeling import CenterBoxTransform, CenterNet, CenterNetHead, LossNormalizer

# Section 5.1: plain convolutions in the neck of a MobileNet, and BatchNorm after the activation in
# the head. All layers are trained, as the authors of CenterNet do.
model = L(CenterNet)(
    backbone=L(UpConvNeck)(
        bottom_up=L(TimmBackbone)(
            name="mobilenetv2_100.ra_in1k", out_features=["c5"], norm="BN", freeze_at=0
        ),
        in_feature="c5",  # stride 32
        channels=[256, 128, 64],
        deformable=False,
        norm="BN",
    ),
    head=L(CenterNetHead)(
        in_channels=64,
        num_classes="${..num_classes}",
        head_channels=64,
        norm="BN",
        norm_after_activation=True,
        prior_prob=0.1,
        regression_std=0.001,
    ),
    num_classes=80,
    # 1 for the offset and 0.1 for the size, each a mean over two coordinates.
    box2box_transform=L(CenterBoxTransform)(weights=[0.5, 0.5, 0.05, 0.05]),
    cls_loss=L(PenaltyReducedFocalLoss)(alpha=2.0, beta=4.0),
    box_loss=L(SmoothL1Loss)(beta=0.0),  # L1
    loss_normalizer=L(LossNormalizer)(momentum=0.0, initial=None, across_processes=True),
    test_score_thresh=0.0,
    max_detections_per_image=100,
    flip_test=False,
    # Also the augmentation of the test loader, see ../data/coco_centernet.py.
    canvas=L(CenterFit)(size=[512, 512]),
    pixel_mean=IMAGENET_RGB_MEAN,
    pixel_std=IMAGENET_RGB_STD,
    input_format="RGB",
)
