"""Losses and weightings. Needs torch only; Detectron2 is not imported.

Shapes: N images, R anchors or points, K foreground classes, P positives, M samples.
`gt_labels` holds -1 (ignored), 0..K-1 (foreground) and K (background), as in Detectron2.
"""

from .balance_oriented import BalanceOriented
from .box_iou import elementwise_box_iou
from .class_balance import ClassBalance
from .class_statistics import ClassStatistics
from .class_tables import ClassWeights
from .closed_forms import (
    bounded_iou_center,
    bounded_iou_center_from_offset,
    bounded_iou_size,
    bounded_iou_size_from_offset,
    smooth_l1_gradient,
    smooth_l1_gradient_bound_center,
    smooth_l1_gradient_bound_size,
)
from .compared_weightings import ClassBalanced, Equalization
from .correlation import CorrelationLoss, correlation_loss
from .cross_entropy import (
    IoUBalancedCrossEntropyLoss,
    SoftmaxCrossEntropyLoss,
    iou_balanced_cross_entropy,
)
from .equalization_v2 import EqualizationLossV2, equalization_loss_v2
from .equalized_focal import EqualizedFocalLoss, equalized_focal_loss
from .focal import (
    IoUBalancedFocalLoss,
    SigmoidFocalLoss,
    balance_oriented_focal_loss,
    iou_balanced_focal_loss,
    sigmoid_focal_loss,
)
from .heatmap_focal import (
    IoUBalancedPenaltyReducedFocalLoss,
    PenaltyReducedFocalLoss,
    iou_balanced_penalty_reduced_focal_loss,
    penalty_reduced_focal_loss,
)
from .iou_aware_bce import IoUAwareBCELoss, iou_aware_bce_loss
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
from .matchability_aware import MatchabilityAwareLoss, matchability_aware_loss
from .quality_focal import QualityFocalLoss, quality_focal_loss
from .reweighting import (
    balance_oriented_weights,
    effective_number_weights,
    inverse_frequency_weights,
    power_frequency_weights,
    tail_classes,
)
from .schedules import ConstantSchedule, LinearSchedule, linear_schedule
from .seesaw import SeesawLoss, seesaw_loss
from .smooth_l1 import IoUBalancedSmoothL1Loss, SmoothL1Loss, iou_balanced_smooth_l1_loss
from .task_aligned import TaskAlignedBCELoss, task_aligned_bce_loss
from .varifocal import VarifocalLoss, varifocal_loss

__all__ = [
    "BalanceOriented",
    "CIoULoss",
    "ClassBalance",
    "ClassBalanced",
    "ClassStatistics",
    "ClassWeights",
    "ConstantSchedule",
    "CorrelationLoss",
    "DIoULoss",
    "Equalization",
    "EqualizationLossV2",
    "EqualizedFocalLoss",
    "GIoULoss",
    "IoUAwareBCELoss",
    "IoUBalancedCIoULoss",
    "IoUBalancedCrossEntropyLoss",
    "IoUBalancedDIoULoss",
    "IoUBalancedFocalLoss",
    "IoUBalancedGIoULoss",
    "IoUBalancedLocalization",
    "IoUBalancedPenaltyReducedFocalLoss",
    "IoUBalancedSmoothL1Loss",
    "LinearSchedule",
    "LocalizationLoss",
    "MatchabilityAwareLoss",
    "PenaltyReducedFocalLoss",
    "QualityFocalLoss",
    "SeesawLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "SoftmaxCrossEntropyLoss",
    "TaskAlignedBCELoss",
    "VarifocalLoss",
    "balance_oriented_focal_loss",
    "balance_oriented_weights",
    "bounded_iou_center",
    "bounded_iou_center_from_offset",
    "bounded_iou_size",
    "bounded_iou_size_from_offset",
    "ciou_loss",
    "correlation_loss",
    "diou_loss",
    "effective_number_weights",
    "elementwise_box_iou",
    "equalization_loss_v2",
    "equalized_focal_loss",
    "giou_loss",
    "inverse_frequency_weights",
    "iou_aware_bce_loss",
    "iou_balanced_cross_entropy",
    "iou_balanced_focal_loss",
    "iou_balanced_penalty_reduced_focal_loss",
    "iou_balanced_smooth_l1_loss",
    "iou_balanced_terms",
    "iou_ratio_weights",
    "linear_schedule",
    "matchability_aware_loss",
    "penalty_reduced_focal_loss",
    "power_frequency_weights",
    "quality_focal_loss",
    "seesaw_loss",
    "sigmoid_focal_loss",
    "smooth_l1_gradient",
    "smooth_l1_gradient_bound_center",
    "smooth_l1_gradient_bound_size",
    "tail_classes",
    "task_aligned_bce_loss",
    "varifocal_loss",
]
