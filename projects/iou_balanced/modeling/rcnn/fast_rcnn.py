"""The box head's output layers with the losses as arguments: Fast(er), Mask and Cascade R-CNN.

Shapes: R sampled proposals over all images, K foreground classes, P positives.
"""

import inspect

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.fast_rcnn import _log_classification_stats
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import Tensor, nn

from iou_balanced.losses import SigmoidFocalLoss, SoftmaxCrossEntropyLoss
from iou_balanced.losses.iou_weights import all_reduce_sum
from iou_balanced.modeling.class_weighting import check_class_balance, weights_by_row
from iou_balanced.modeling.loss_families import SIGMOID, tell_num_classes
from iou_balanced.modeling.loss_state import event_storage, record_w_loc
from iou_balanced.modeling.positives import Positives, call_loss, regression_loss

from .two_stage import check_losses, choose_box_loss, warn_at_first_call


class BalancedFastRCNNOutputLayers(FastRCNNOutputLayers):
    """Detectron2's `FastRCNNOutputLayers` with the losses injected.

    Parameters and inference are untouched, and checkpoints load both ways. With the default
    losses, value and gradients are Detectron2's in one process. Both losses are divided by R, the
    number of all sampled proposals, as Detectron2 and MMDetection do (the reason is at the end of
    `FastRCNNOutputLayers.box_reg_loss`). Of several processes it is their mean, where Detectron2
    takes each process's own: so N processes give the gradients of one. A Cascade R-CNN takes one
    for each stage.

    Args:
        cls_loss: called with logits (R, K + 1), background last, labels (R,), and the
            positives' IoU (P,) where its `needs_pos_iou` is true; returns a sum. Softmax
            cross entropy by default. With `use_sigmoid_ce` a sigmoid loss, called with
            logits (R, K): Detectron2's background column then stays untrained, as there.
        box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise, or with
            boxes where its `on_boxes` is true. By default what `box_reg_loss_type` and
            `smooth_l1_beta` say, which it excludes.
        class_balance: called in training with the classes of each image's objects, which
            `BalancedGeneralizedRCNN` passes on, and the labels of its sampled proposals;
            returns the `class_weight` of `cls_loss`. None: all classes weigh the same.
        use_sigmoid_ce: score by sigmoid. Detectron2's main branch can, and v0.6 cannot. By
            default `cls_loss` is then sigmoid cross entropy, its focal loss with gamma 0.
        use_fed_loss: has to be False: federated loss stays Detectron2's own.
        input_shape, box2box_transform, num_classes:
            see `detectron2.modeling.roi_heads.FastRCNNOutputLayers`.
        test_score_thresh, test_nms_thresh, test_topk_per_image: likewise.
        cls_agnostic_bbox_reg, smooth_l1_beta, box_reg_loss_type: likewise.
        loss_weight, get_fed_loss_cls_weights, fed_loss_num_classes: likewise.

    Raises:
        ValueError: a classification loss that does not go with `use_sigmoid_ce`, which the
            installed Detectron2 may lack; rotated boxes, a loss whose reduction is not "sum", or a
            box loss given twice.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        box2box_transform,
        num_classes: int,
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        class_balance: nn.Module | None = None,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights=None,
        fed_loss_num_classes: int = 50,
    ):
        if use_fed_loss:
            raise ValueError(
                "Expected argument `use_fed_loss` to be False, because the classification loss "
                "is `cls_loss`, and federated loss is Detectron2's own, of its stock box head, but "
                f"got {use_fed_loss!r}"
            )
        super().__init__(
            input_shape,
            box2box_transform=box2box_transform,
            num_classes=num_classes,
            test_score_thresh=test_score_thresh,
            test_nms_thresh=test_nms_thresh,
            test_topk_per_image=test_topk_per_image,
            cls_agnostic_bbox_reg=cls_agnostic_bbox_reg,
            smooth_l1_beta=smooth_l1_beta,
            box_reg_loss_type=box_reg_loss_type,
            loss_weight=loss_weight,
            **_by_sigmoid(use_sigmoid_ce),
        )
        self.use_sigmoid_ce = bool(use_sigmoid_ce)
        if cls_loss is None:
            plain = SigmoidFocalLoss(alpha=-1.0, gamma=0.0)
            cls_loss = plain if use_sigmoid_ce else SoftmaxCrossEntropyLoss()
        self.cls_loss = cls_loss
        self.box_loss = choose_box_loss(box_loss, box_reg_loss_type, smooth_l1_beta)
        check_losses(
            self.cls_loss,
            self.box_loss,
            box2box_transform,
            refused=() if use_sigmoid_ce else SIGMOID,
            reason="a softmax loss, because the box head scores by softmax at test time unless "
            "use_sigmoid_ce=True, of Detectron2's main branch",
        )
        if use_sigmoid_ce and getattr(cls_loss, "is_softmax", False):
            raise ValueError(
                "Expected argument `cls_loss` to be a sigmoid loss, because use_sigmoid_ce=True "
                f"scores by sigmoid, but got {type(cls_loss).__name__}"
            )
        tell_num_classes(self.cls_loss, num_classes)
        check_class_balance(class_balance, self.cls_loss, num_classes)
        self.class_balance = class_balance
        self.gt_classes: list[Tensor] | None = None
        """Of the images in the batch, where the model says so; not those of proposals."""
        self.state_checked = False

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            predictions: logits (R, K + 1), and deltas (R, K * 4), or (R, 4) where regression is
                class-agnostic.
            proposals: one an image, with `proposal_boxes`, `gt_classes` (K is background) and,
                where the image has objects, `gt_boxes`.

        Returns:
            "loss_cls" and "loss_box_reg", scalars.
        """
        pred_logits, pred_deltas = predictions
        warn_at_first_call(self)
        if proposals:
            gt_classes = torch.cat([p.gt_classes for p in proposals])
        else:
            gt_classes = torch.zeros(0, dtype=torch.int64, device=pred_logits.device)
        if event_storage() is not None:
            _log_classification_stats(pred_logits, gt_classes)

        # No early return without positives: over several processes every one has to take part in
        # the sums of the losses.
        positives = self._gather_positives(pred_deltas, proposals, gt_classes)
        loss_box_reg, pos_iou = regression_loss(
            self.cls_loss, self.box_loss, self.box2box_transform, positives
        )
        class_weight = None
        if self.class_balance is not None and proposals:
            by_image = [p.gt_classes for p in proposals]
            class_weight = weights_by_row(
                self.class_balance(self.gt_classes, by_image), [len(x) for x in by_image]
            )
        if self.use_sigmoid_ce:  # background has no score of its own
            pred_logits = pred_logits[:, :-1]
        loss_cls = call_loss(self.cls_loss, pred_logits, gt_classes, pos_iou, class_weight)
        record_w_loc(self.box_loss)

        num_proposals = _mean_over_processes(gt_classes)
        losses = {"loss_cls": loss_cls, "loss_box_reg": loss_box_reg}
        return {
            name: loss / num_proposals * self.loss_weight.get(name, 1.0)
            for name, loss in losses.items()
        }

    def _gather_positives(
        self, pred_deltas: Tensor, proposals: list[Instances], gt_classes: Tensor
    ) -> Positives:
        """With each positive's deltas of its ground truth's class, or its only ones."""
        is_positive = (gt_classes >= 0) & (gt_classes < self.num_classes)
        (index,) = is_positive.nonzero(as_tuple=True)
        if pred_deltas.shape[1] == 4:  # class-agnostic
            pos_deltas = pred_deltas[index]
        else:
            pos_deltas = pred_deltas.view(-1, self.num_classes, 4)[index, gt_classes[index]]
        if not proposals:
            no_boxes = pred_deltas.new_zeros((0, 4))
            return Positives(pos_deltas, no_boxes, no_boxes)
        proposal_boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        # An image without objects has background only: any box will do in the place of none.
        gt_boxes = torch.cat(
            [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
        )
        return Positives(pos_deltas, proposal_boxes[index], gt_boxes[index])


def _by_sigmoid(use_sigmoid_ce: bool) -> dict[str, bool]:
    """What Detectron2's constructor is told.

    Raises:
        ValueError: it scores by softmax only.
    """
    if not use_sigmoid_ce:
        return {}
    if "use_sigmoid_ce" not in inspect.signature(FastRCNNOutputLayers.__init__).parameters:
        raise ValueError(
            "Expected argument `use_sigmoid_ce` to be False, because this Detectron2 (v0.6) scores "
            "boxes by softmax only, but got True: its main branch can score by sigmoid"
        )
    return {"use_sigmoid_ce": True}


def _mean_over_processes(gt_classes: Tensor) -> Tensor | int:
    """The number of samples, at least 1 in all; data-parallel training averages gradients."""
    number = gt_classes.numel()
    num_processes = comm.get_world_size()
    if num_processes == 1:
        return max(number, 1)
    total = all_reduce_sum(torch.tensor(float(number), device=gt_classes.device))
    return total.clamp(min=1) / num_processes
