"""Losses of decoded boxes (GIoU, DIoU, CIoU), plain and IoU-balanced (arXiv 1908.05641, Eq. 6).

Shapes: P positives; boxes (P, 4), XYXY in pixels. Every loss gives one term a box, in [0, 2] for
GIoU and DIoU; the weighting multiplies it by w_loc * iou^lam.
"""

import math

import torch
from torch import Tensor

from .box_iou import elementwise_box_iou
from .checks import upcast
from .localization import IoUBalancedLocalization, LocalizationLoss
from .value_checks import checks_values


def _enclosing_size(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """(P, 2) width and height of the smallest box around both."""
    corner_min = torch.minimum(boxes1[:, :2], boxes2[:, :2])
    return torch.maximum(boxes1[:, 2:], boxes2[:, 2:]) - corner_min


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """0 where the denominator is not positive, with a finite gradient there."""
    empty = denominator <= 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


@checks_values()
def giou_loss(pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - GIoU of each pair (arXiv 1902.09630): 1 - IoU + (enclosure - union) / enclosure.

    Args:
        pred_boxes: (P, 4) XYXY, any float dtype; computed in float32 at least.
        gt_boxes: (P, 4) XYXY in the same unit.

    Returns:
        (P,) in [0, 2].

    Raises:
        ValueError: the shapes are not both (P, 4).
    """
    iou = elementwise_box_iou(pred_boxes, gt_boxes)
    pred_boxes, gt_boxes = upcast(pred_boxes), upcast(gt_boxes)
    # inter = iou * union and area1 + area2 = union + inter, hence:
    union = (_area(pred_boxes) + _area(gt_boxes)) / (1 + iou)
    enclosing = _enclosing_size(pred_boxes, gt_boxes).prod(dim=1)
    return 1 - iou + _divide(enclosing - union, enclosing)


@checks_values()
def diou_loss(pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - DIoU of each pair (arXiv 1911.08287, Eq. 7): 1 - IoU + (offset of centres / diagonal)^2.

    Args:
        pred_boxes: (P, 4) XYXY, any float dtype; computed in float32 at least.
        gt_boxes: (P, 4) XYXY in the same unit.

    Returns:
        (P,) in [0, 2].

    Raises:
        ValueError: the shapes are not both (P, 4).
    """
    iou = elementwise_box_iou(pred_boxes, gt_boxes)
    pred_boxes, gt_boxes = upcast(pred_boxes), upcast(gt_boxes)
    offset = (pred_boxes[:, :2] + pred_boxes[:, 2:] - gt_boxes[:, :2] - gt_boxes[:, 2:]) / 2
    diagonal = _enclosing_size(pred_boxes, gt_boxes).square().sum(dim=1)
    return 1 - iou + _divide(offset.square().sum(dim=1), diagonal)


@checks_values()
def ciou_loss(pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - CIoU of each pair (arXiv 1911.08287, Eq. 8-11): DIoU and a term of the aspect ratio.

    The trade-off factor carries no gradient, as in the paper's code.

    Args:
        pred_boxes: (P, 4) XYXY, any float dtype; computed in float32 at least.
        gt_boxes: (P, 4) XYXY in the same unit.

    Returns:
        (P,), at least 0; it may exceed 2.

    Raises:
        ValueError: the shapes are not both (P, 4).
    """
    iou = elementwise_box_iou(pred_boxes, gt_boxes).detach()
    diou = diou_loss(pred_boxes, gt_boxes)
    angles = []
    for boxes in (upcast(pred_boxes), upcast(gt_boxes)):
        size = boxes[:, 2:] - boxes[:, :2]
        angles.append(torch.atan2(size[:, 0], size[:, 1].clamp(min=1e-6)))
    v = (4 / math.pi**2) * (angles[1] - angles[0]).square()
    factor = _divide(v.detach(), 1 - iou + v.detach())
    return diou + factor * v


class GIoULoss(LocalizationLoss):
    """`giou_loss` summed over positives; called with decoded boxes."""

    on_boxes = True

    def terms(self, pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """See `giou_loss`."""
        return giou_loss(pred_boxes, gt_boxes)


class DIoULoss(LocalizationLoss):
    """`diou_loss` summed over positives; called with decoded boxes."""

    on_boxes = True

    def terms(self, pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """See `diou_loss`."""
        return diou_loss(pred_boxes, gt_boxes)


class CIoULoss(LocalizationLoss):
    """`ciou_loss` summed over positives; called with decoded boxes."""

    on_boxes = True

    def terms(self, pred_boxes: Tensor, gt_boxes: Tensor) -> Tensor:
        """See `ciou_loss`."""
        return ciou_loss(pred_boxes, gt_boxes)


class IoUBalancedGIoULoss(IoUBalancedLocalization, GIoULoss):
    """GIoU loss of each box times w_loc * iou^lam; arguments of `IoUBalancedLocalization`."""


class IoUBalancedDIoULoss(IoUBalancedLocalization, DIoULoss):
    """DIoU loss of each box times w_loc * iou^lam; arguments of `IoUBalancedLocalization`."""


class IoUBalancedCIoULoss(IoUBalancedLocalization, CIoULoss):
    """CIoU loss of each box times w_loc * iou^lam; arguments of `IoUBalancedLocalization`."""
