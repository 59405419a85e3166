"""FCOS whose losses are arguments (arXiv 1904.01355, 2006.09214; losses of arXiv 1908.05641)."""

import torch
import torch.nn.functional as F
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from iou_balanced.losses import GIoULoss, SigmoidFocalLoss

from .dense import InjectedLosses
from .normalizer import LossNormalizer
from .positives import find_positives, gather_positives


class BalancedFCOS(InjectedLosses, FCOS):
    """Detectron2's FCOS with the losses injected; parameters and inference are untouched.

    With the default losses, value and gradients are Detectron2's. Checkpoints load both ways.
    Unlike Detectron2 v0.6, it trains on images without boxes.

    Args:
        cls_loss: called with logits (N, R, K), labels (N, R), and the positives' IoU (P,)
            where its `needs_pos_iou` is true; returns a sum. Focal loss by default.
        box_loss: called with boxes (P, 4) XYXY where its `on_boxes` is true, else with
            deltas, and IoU (P,) likewise. GIoU loss by default.
        class_balance: called in training with the classes of each image's objects and
            labels (N, R); returns the `class_weight` of `cls_loss`. See
            `iou_balanced.losses.BalanceOriented`. None: all classes weigh the same.
        loss_normalizer: called with the number of positives; returns the divisor of all
            losses. `LossNormalizer(initial=300)` by default, Detectron2's.
        backbone, head, head_in_features, box2box_transform:
            see `detectron2.modeling.meta_arch.fcos.FCOS`.
        num_classes, center_sampling_radius, test_score_thresh: likewise.
        test_topk_candidates, test_nms_thresh: likewise.
        max_detections_per_image, pixel_mean, pixel_std: likewise.
    """

    def __init__(
        self,
        *,
        backbone,
        head: nn.Module,
        head_in_features: list[str] | None = None,
        box2box_transform=None,
        num_classes: int,
        center_sampling_radius: float = 1.5,
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        loss_normalizer: nn.Module | None = None,
        class_balance: nn.Module | None = None,
        test_score_thresh: float = 0.2,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        pixel_mean,
        pixel_std,
    ):
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=head_in_features,
            box2box_transform=box2box_transform,
            num_classes=num_classes,
            center_sampling_radius=center_sampling_radius,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        if loss_normalizer is None:
            loss_normalizer = LossNormalizer(initial=300.0)
        self.set_losses(
            SigmoidFocalLoss() if cls_loss is None else cls_loss,
            GIoULoss() if box_loss is None else box_loss,
            loss_normalizer,
            class_balance,
        )

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """FCOS's assignment, one (R,) of labels and one (R, 4) of matched boxes an image.

        Detectron2's main branch gives tensors and v0.6 `Boxes`; v0.6 fails on an image without
        boxes, so that such images are kept from it.
        """
        labels, boxes = super().label_anchors(anchors, [x for x in gt_instances if len(x)])
        matched = iter(zip(labels, boxes, strict=True))
        gt_labels, gt_boxes = [], []
        for instances in gt_instances:
            if len(instances):
                label, box = next(matched)
                box = box.tensor if isinstance(box, Boxes) else box
            else:
                box = torch.zeros_like(Boxes.cat(anchors).tensor)
                label = torch.full_like(box[:, 0], self.num_classes, dtype=torch.int64)
            gt_labels.append(label)
            gt_boxes.append(box)
        return gt_labels, gt_boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
        pred_centerness: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            anchors: one a level, Ri squares of the level's stride around the points.
            pred_logits: one (N, Ri, K) a level.
            gt_labels: one (R,) an image, in {-1, 0..K}.
            pred_anchor_deltas: one (N, Ri, 4) a level.
            gt_boxes: one (R, 4) an image, XYXY in pixels.
            pred_centerness: one (N, Ri, 1) a level, logits.

        Returns:
            "loss_fcos_cls", "loss_fcos_loc" and "loss_fcos_ctr", scalars divided by the
            normaliser.
        """
        index = find_positives(self._positive_mask(torch.stack(gt_labels)))
        loss_cls, loss_box_reg, num_pos = self.sum_losses(
            anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes, index
        )
        normalizer = self.loss_normalizer(num_pos)

        # Centerness, (P, 1), takes the place of the deltas, (P, 4).
        positives = gather_positives(index, pred_centerness, Boxes.cat(anchors).tensor, gt_boxes)
        loss_centerness = F.binary_cross_entropy_with_logits(
            positives.pred_deltas.squeeze(dim=1).float(),
            self.centerness(positives.anchors, positives.gt_boxes),
            reduction="sum",
        )
        return {
            "loss_fcos_cls": loss_cls / normalizer,
            "loss_fcos_loc": loss_box_reg / normalizer,
            "loss_fcos_ctr": loss_centerness / normalizer,
        }

    @torch.no_grad()
    def centerness(self, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """Eq. 3 of arXiv 1904.01355.

        Args:
            anchors: (P, 4) XYXY in pixels, squares around the points.
            gt_boxes: (P, 4) XYXY in pixels; each holds its point.

        Returns:
            (P,) in [0, 1].
        """
        sides = self.box2box_transform.get_deltas(anchors, gt_boxes)
        ratios = [
            pair.min(dim=1).values / pair.max(dim=1).values
            for pair in (sides[:, 0::2], sides[:, 1::2])
        ]
        return (ratios[0] * ratios[1]).sqrt()
