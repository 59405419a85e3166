"""RPN whose losses are arguments (arXiv 1506.01497; losses of arXiv 1908.05641).

Shapes: N images, R anchors over all levels, S sampled anchors over all images, P positives.
"""

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from torch import Tensor, nn

from iou_balanced.losses import (
    IoUBalancedCrossEntropyLoss,
    SeesawLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling.loss_state import put_scalar, record_w_loc
from iou_balanced.modeling.positives import (
    call_loss,
    find_positives,
    gather_positives,
    regression_loss,
)

from .two_stage import check_losses, choose_box_loss, warn_at_first_call


class BalancedRPN(RPN):
    """Detectron2's RPN with the losses injected; parameters and proposals are untouched.

    With the default losses, value and gradients are Detectron2's. Checkpoints load both ways.
    The paper balances the box head only (Table 7), and leaves this stage plain.

    Args:
        cls_loss: called with logits (S, 1) of the sampled anchors, labels (S,), 0 object and
            1 background, and the positives' IoU (P,) where its `needs_pos_iou` is true;
            returns a sum. A sigmoid loss; by default `SigmoidFocalLoss(alpha=-1, gamma=0)`,
            which is binary cross entropy. `IoUBalancedFocalLoss` with the same two values is
            Eq. 3-4 on it.
        box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise, or with
            boxes where its `on_boxes` is true. By default what `box_reg_loss_type` and
            `smooth_l1_beta` say, which it excludes.
        in_features, head, anchor_generator, anchor_matcher:
            see `detectron2.modeling.proposal_generator.RPN`.
        box2box_transform, batch_size_per_image, positive_fraction: likewise.
        pre_nms_topk, post_nms_topk, nms_thresh, min_box_size: likewise.
        anchor_boundary_thresh, loss_weight, box_reg_loss_type: likewise.
        smooth_l1_beta: likewise.

    Raises:
        ValueError: a softmax classification loss, rotated boxes, a loss whose reduction is
            not "sum", or a box loss given twice.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: list[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher,
        box2box_transform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[float, float],
        post_nms_topk: tuple[float, float],
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ):
        super().__init__(
            in_features=in_features,
            head=head,
            anchor_generator=anchor_generator,
            anchor_matcher=anchor_matcher,
            box2box_transform=box2box_transform,
            batch_size_per_image=batch_size_per_image,
            positive_fraction=positive_fraction,
            pre_nms_topk=pre_nms_topk,
            post_nms_topk=post_nms_topk,
            nms_thresh=nms_thresh,
            min_box_size=min_box_size,
            anchor_boundary_thresh=anchor_boundary_thresh,
            loss_weight=loss_weight,
            box_reg_loss_type=box_reg_loss_type,
            smooth_l1_beta=smooth_l1_beta,
        )
        self.cls_loss = SigmoidFocalLoss(alpha=-1, gamma=0) if cls_loss is None else cls_loss
        self.box_loss = choose_box_loss(box_loss, box_reg_loss_type, smooth_l1_beta)
        check_losses(
            self.cls_loss,
            self.box_loss,
            box2box_transform,
            refused=(SoftmaxCrossEntropyLoss, IoUBalancedCrossEntropyLoss, SeesawLoss),
            reason="a sigmoid loss, because RPN has one column (object or not)",
        )
        self.state_checked = False

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            anchors: one a level, Ri boxes each.
            pred_objectness_logits: one (N, Ri) a level.
            gt_labels: one (R,) an image, 1 object, 0 background and -1 not sampled.
            pred_anchor_deltas: one (N, Ri, 4) a level.
            gt_boxes: one (R, 4) an image, XYXY in pixels.

        Returns:
            "loss_rpn_cls" and "loss_rpn_loc", scalars divided by the number of anchors that
            were to be sampled.
        """
        warn_at_first_call(self)
        num_images = len(gt_labels)
        gt_labels = torch.stack(gt_labels)  # (N, R)
        pos_mask, sampled = gt_labels == 1, gt_labels >= 0

        positives = gather_positives(
            find_positives(pos_mask), pred_anchor_deltas, Boxes.cat(anchors).tensor, gt_boxes
        )
        # The few that were sampled, not all anchors; the order of the positives stays.
        pred_logits = torch.cat(pred_objectness_logits, dim=1)[sampled]  # (S,)
        labels = 1 - gt_labels[sampled].long()
        num_pos = len(positives.anchors)
        put_scalar("rpn/num_pos_anchors", num_pos / num_images)
        put_scalar("rpn/num_neg_anchors", (len(labels) - num_pos) / num_images)

        loss_loc, pos_iou = regression_loss(
            self.cls_loss, self.box_loss, self.box2box_transform, positives
        )
        loss_cls = call_loss(self.cls_loss, pred_logits[:, None], labels, pos_iou)
        record_w_loc(self.box_loss, "rpn/w_loc")

        normalizer = self.batch_size_per_image * num_images
        losses = {"loss_rpn_cls": loss_cls, "loss_rpn_loc": loss_loc}
        return {
            name: loss / normalizer * self.loss_weight.get(name, 1.0)
            for name, loss in losses.items()
        }
