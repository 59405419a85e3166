"""SSD300 with VGG16 (arXiv 1512.02325): the default boxes for COCO, and MMDetection's inference."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform

from iou_balanced.backbones import SSDVGG, VGG_RGB_MEAN, VGG_RGB_STD
from iou_balanced.losses import SmoothL1Loss, SoftmaxCrossEntropyLoss
from iou_balanced.modeling import (
    SSD,
    DefaultBoxGenerator,
    LossNormalizer,
    SSDHead,
    ssd_box_sizes,
)

model = L(SSD)(
    backbone=L(SSDVGG)(image_size=300),
    head_in_features=["conv4_3", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"],
    head=L(SSDHead)(
        input_shape=[ShapeSpec(channels=c) for c in (512, 1024, 512, 256, 256, 256)],
        num_classes="${..num_classes}",
        num_anchors=[4, 6, 6, 6, 4, 4],
    ),
    anchor_generator=L(DefaultBoxGenerator)(
        # In pixels: 21, 45, 99, 153, 207, 261 and 315.
        min_max_sizes=L(ssd_box_sizes)(
            image_size=300, num_levels=6, scale_range=(0.15, 0.9), first_scale=0.07
        ),
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        strides=[8, 16, 32, 64, 100, 300],
    ),
    box2box_transform=L(Box2BoxTransform)(weights=(10, 10, 5, 5)),  # variances 0.1 and 0.2
    num_classes=80,
    match_iou_thresh=0.5,
    hard_negative_ratio=3.0,
    cls_loss=L(SoftmaxCrossEntropyLoss)(reduction="none"),
    box_loss=L(SmoothL1Loss)(beta=1.0),
    # The positives of the whole batch.
    loss_normalizer=L(LossNormalizer)(momentum=0.0, initial=None, across_processes=True),
    test_score_thresh=0.02,
    test_topk_candidates=1000,
    test_nms_thresh=0.45,
    max_detections_per_image=200,
    pixel_mean=VGG_RGB_MEAN,
    pixel_std=VGG_RGB_STD,
    input_format="RGB",
)
