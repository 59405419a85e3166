"""RetinaNet whose losses are arguments (arXiv 1708.02002; losses of arXiv 1908.05641)."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from iou_balanced.losses import SigmoidFocalLoss, SmoothL1Loss

from .inputs import check_ground_truth
from .normalizer import LossNormalizer
from .positives import dense_losses
from .state import warn_if_state_was_lost
from .yacs import losses_from_config


@META_ARCH_REGISTRY.register()
class BalancedRetinaNet(RetinaNet):
    """Detectron2's RetinaNet with the losses injected; parameters and inference are untouched.

    With the default losses, value and gradients are Detectron2's. Checkpoints load both ways.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone,
        head: nn.Module,
        head_in_features,
        anchor_generator: nn.Module,
        box2box_transform,
        anchor_matcher,
        num_classes: int,
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        loss_normalizer: nn.Module | None = None,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean,
        pixel_std,
        vis_period: int = 0,
        input_format: str = "BGR",
    ):
        """
        Args:
            cls_loss: called with logits (N, R, K), labels (N, R), and the positives' IoU (P,)
                where its `needs_pos_iou` is true; returns a sum. Focal loss by default.
            box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise. L1 by
                default, as in Detectron2 (smooth L1 with beta 0).
            loss_normalizer: called with the number of positives; returns the divisor of both.
                `LossNormalizer()` by default.
            others: see `detectron2.modeling.RetinaNet`.
        """
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=head_in_features,
            anchor_generator=anchor_generator,
            box2box_transform=box2box_transform,
            anchor_matcher=anchor_matcher,
            num_classes=num_classes,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            vis_period=vis_period,
            input_format=input_format,
        )
        self.cls_loss = SigmoidFocalLoss() if cls_loss is None else cls_loss
        self.box_loss = SmoothL1Loss() if box_loss is None else box_loss
        self.loss_normalizer = LossNormalizer() if loss_normalizer is None else loss_normalizer
        self._state_checked = False

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        alpha, gamma = ret.pop("focal_loss_alpha"), ret.pop("focal_loss_gamma")
        beta, loss_type = ret.pop("smooth_l1_beta"), ret.pop("box_reg_loss_type")
        ret.update(losses_from_config(cfg, alpha=alpha, gamma=gamma, beta=beta, kind=loss_type))
        return ret

    def forward(self, batched_inputs: list[dict]):
        """As `detectron2.modeling.RetinaNet.forward`; refuses unusable ground truth.

        Raises:
            ValueError: in training, for a box without area or of a class that the model lacks.
        """
        if self.training:
            check_ground_truth(batched_inputs, self.num_classes)
        return super().forward(batched_inputs)

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """
        Args:
            anchors: one a level, Ri boxes each.
            pred_logits, pred_anchor_deltas: one a level, (N, Ri, K) and (N, Ri, 4).
            gt_labels, gt_boxes: one an image, (R,) in {-1, 0..K} and (R, 4).

        Returns:
            "loss_cls" and "loss_box_reg", scalars divided by the normaliser.
        """
        if not self._state_checked:
            warn_if_state_was_lost(self, get_event_storage())
            self._state_checked = True
        loss_cls, loss_box_reg, num_pos = dense_losses(
            self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        normalizer = self.loss_normalizer(num_pos)
        return {"loss_cls": loss_cls / normalizer, "loss_box_reg": loss_box_reg / normalizer}
