"""Losses and weightings. Needs torch only; Detectron2 is not imported.

Shapes: N images, R anchors or points, K foreground classes, P positives, M samples.
`gt_labels` holds -1 (ignored), 0..K-1 (foreground) and K (background), as in Detectron2.
"""

from .box_iou import elementwise_box_iou
from .closed_forms import (
    bounded_iou_center,
    bounded_iou_center_from_offset,
    bounded_iou_size,
    bounded_iou_size_from_offset,
    smooth_l1_gradient,
    smooth_l1_gradient_bound_center,
    smooth_l1_gradient_bound_size,
)
from .cross_entropy import (
    IoUBalancedCrossEntropyLoss,
    SoftmaxCrossEntropyLoss,
    iou_balanced_cross_entropy,
)
from .focal import (
    IoUBalancedFocalLoss,
    SigmoidFocalLoss,
    iou_balanced_focal_loss,
    sigmoid_focal_loss,
)
from .iou_losses import (
    CIoULoss,
    DIoULoss,
    GIoULoss,
    IoUBalancedCIoULoss,
    IoUBalancedDIoULoss,
    IoUBalancedGIoULoss,
    ciou_loss,
    diou_loss,
    giou_loss,
)
from .iou_weights import iou_ratio_weights
from .localization import IoUBalancedLocalization, LocalizationLoss, iou_balanced_terms
from .smooth_l1 import IoUBalancedSmoothL1Loss, SmoothL1Loss, iou_balanced_smooth_l1_loss

__all__ = [
    "CIoULoss",
    "DIoULoss",
    "GIoULoss",
    "IoUBalancedCIoULoss",
    "IoUBalancedCrossEntropyLoss",
    "IoUBalancedDIoULoss",
    "IoUBalancedFocalLoss",
    "IoUBalancedGIoULoss",
    "IoUBalancedLocalization",
    "IoUBalancedSmoothL1Loss",
    "LocalizationLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftmaxCrossEntropyLoss",
    "bounded_iou_center",
    "bounded_iou_center_from_offset",
    "bounded_iou_size",
    "bounded_iou_size_from_offset",
    "ciou_loss",
    "diou_loss",
    "elementwise_box_iou",
    "giou_loss",
    "iou_balanced_cross_entropy",
    "iou_balanced_focal_loss",
    "iou_balanced_smooth_l1_loss",
    "iou_balanced_terms",
    "iou_ratio_weights",
    "sigmoid_focal_loss",
    "smooth_l1_gradient",
    "smooth_l1_gradient_bound_center",
    "smooth_l1_gradient_bound_size",
]
