"""Gathers the positives of a dense detector, decodes them, and calls the losses.

Shapes: N images, R anchors over all levels, K foreground classes, P positives.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iou_balanced.losses import ClassWeights, elementwise_box_iou
from iou_balanced.losses.checks import upcast


class Positives(NamedTuple):
    """The positives of a batch, in the order of `gt_labels[pos_mask]`."""

    pred_deltas: Tensor
    """(P, 4) regression output, with gradient."""
    anchors: Tensor
    """(P, 4) XYXY in pixels."""
    gt_boxes: Tensor
    """(P, 4) XYXY in pixels."""


class PositiveIndex(NamedTuple):
    """Where the positives are, in the order of `gt_labels[pos_mask]`."""

    images: Tensor
    """(P,)"""
    anchors: Tensor
    """(P,)"""


def find_positives(pos_mask: Tensor) -> PositiveIndex:
    """The index of the true entries of (N, R) `pos_mask`; a GPU is waited for, this once."""
    return PositiveIndex(*pos_mask.nonzero(as_tuple=True))


def gather_positives(
    index: PositiveIndex, pred_deltas: list[Tensor], anchors: Tensor, gt_boxes: list[Tensor]
) -> Positives:
    """Pick the positives out of dense predictions, before anything is computed on them.

    Args:
        index: where they are.
        pred_deltas: one (N, Ri, 4) a level.
        anchors: (R, 4), the same for all images.
        gt_boxes: one (R, 4) an image, the box matched to each anchor.
    """
    image_idx, anchor_idx = index
    return Positives(
        torch.cat(pred_deltas, dim=1)[image_idx, anchor_idx],
        anchors[anchor_idx],
        torch.stack(gt_boxes)[image_idx, anchor_idx],
    )


@torch.no_grad()
def objects_of_positives(images: Tensor, classes: Tensor, gt_boxes: Tensor) -> Tensor:
    """(P,) a number for the object of each positive.

    Detectron2's assignments give the class and the box of an object, not its index: two objects
    of one image with the same class and the same box count as one. A GPU is waited for.

    Args:
        images: (P,) the image of each positive.
        classes: (P,) its class.
        gt_boxes: (P, 4) the box of its object.
    """
    key = torch.stack([images.double(), classes.double(), *gt_boxes.double().unbind(1)], dim=1)
    return key.unique(dim=0, return_inverse=True)[1]


def needs_pos_iou(*losses: nn.Module) -> bool:
    """Whether any of the losses weighs positives by their IoU; plain losses decode no boxes."""
    return any(getattr(loss, "needs_pos_iou", False) for loss in losses)


def call_loss(
    loss: nn.Module,
    pred: Tensor | list[Tensor],
    target: Tensor,
    pos_iou: Tensor | None,
    class_weight: Tensor | ClassWeights | None = None,
    num_positives: int | None = None,
    pos_object: Tensor | None = None,
) -> Tensor:
    """Call a loss, with what it asks for, and `class_weight` where there is one.

    Args:
        loss: gets `pos_iou` where its `needs_pos_iou` is true, and `num_positives` where its
            `takes_num_positives` is.
        pred: logits, or what a box loss compares.
        target: labels, heat map, or what `pred` is compared with.
        pos_iou: (P,), or None.
        class_weight: tables, or None.
        num_positives: P where it is known, so that a GPU need not be waited for.
        pos_object: (P,), or None where the loss does not need it.
    """
    more: dict = {"class_weight": class_weight, "pos_object": pos_object}
    more = {name: value for name, value in more.items() if value is not None}
    if num_positives is not None and getattr(loss, "takes_num_positives", False):
        more["num_positives"] = num_positives
    if needs_pos_iou(loss):
        return loss(pred, target, pos_iou, **more)
    return loss(pred, target, **more)


def classification_loss(
    cls_loss: nn.Module,
    pred_logits: list[Tensor],
    gt_labels: Tensor,
    pos_iou: Tensor | None,
    class_weight: Tensor | ClassWeights | None = None,
    num_positives: int | None = None,
    pos_object: Tensor | None = None,
) -> Tensor:
    """Call a classification loss on dense predictions.

    Args:
        cls_loss: called with logits, labels, and where it asks for them `pos_iou` and weights.
        pred_logits: one (N, Ri, K) a level. A loss with `takes_levels` gets the list, which saves
            a copy of all logits; any other one tensor (N, R, K).
        gt_labels: (N, R).
        pos_iou: (P,), or None where no loss needs it.
        class_weight: (K,) or (N, K), `ClassWeights`, or None.
        num_positives: P where it is known.
        pos_object: (P,), or None where the loss does not need it.
    """
    if not getattr(cls_loss, "takes_levels", False):
        pred_logits = torch.cat(pred_logits, dim=1)
    return call_loss(
        cls_loss, pred_logits, gt_labels, pos_iou, class_weight, num_positives, pos_object
    )


def regression_loss(
    cls_loss: nn.Module, box_loss: nn.Module, box2box_transform, positives: Positives
) -> tuple[Tensor, Tensor | None]:
    """The box loss, and the IoU that either loss weighs the positives by.

    A box loss with `on_boxes` (GIoU) is called with decoded boxes, (P, 4) XYXY in pixels; any
    other with deltas, (P, 4) in the encoding of `box2box_transform`.

    Returns:
        What the box loss gives, and `pos_iou`: (P,) IoU of each regressed box with its ground
        truth (Eq. 4, 6 of arXiv 1908.05641); None where no loss needs it. It has gradient where the
        classification loss `needs_iou_gradient`, and the box loss gets it without.
    """
    anchors, gt_boxes = positives.anchors, positives.gt_boxes
    on_boxes = getattr(box_loss, "on_boxes", False)
    iou_gradient = getattr(cls_loss, "needs_iou_gradient", False)
    pred_boxes = pos_iou = None
    # Decoded once for loss and IoU; with gradient only where one of them wants it.
    with torch.set_grad_enabled((on_boxes or iou_gradient) and torch.is_grad_enabled()):
        if on_boxes or needs_pos_iou(cls_loss, box_loss):
            # Detectron2's linear transform (FCOS) would compute in the deltas' half precision.
            pred_boxes = box2box_transform.apply_deltas(upcast(positives.pred_deltas), anchors)
    if needs_pos_iou(cls_loss, box_loss):
        pos_iou = elementwise_box_iou(pred_boxes if iou_gradient else pred_boxes.detach(), gt_boxes)
    weight_iou = None if pos_iou is None else pos_iou.detach()
    if on_boxes:
        return call_loss(box_loss, pred_boxes, gt_boxes, weight_iou), pos_iou
    gt_deltas = box2box_transform.get_deltas(anchors, gt_boxes)
    return call_loss(box_loss, positives.pred_deltas, gt_deltas, weight_iou), pos_iou
