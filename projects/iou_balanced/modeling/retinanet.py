"""RetinaNet whose losses are arguments (arXiv 1708.02002; losses of arXiv 1908.05641)."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from torch import nn

from iou_balanced.losses import SigmoidFocalLoss, SmoothL1Loss
from iou_balanced.modeling.yaml.class_balance import class_balance_from_config
from iou_balanced.modeling.yaml.losses import losses_from_config

from .dense import InjectedLosses
from .normalizer import LossNormalizer


@META_ARCH_REGISTRY.register()
class BalancedRetinaNet(InjectedLosses, RetinaNet):
    """Detectron2's RetinaNet with the losses injected; parameters and inference are untouched.

    With the default losses, value and gradients are Detectron2's. Checkpoints load both ways.

    Args:
        cls_loss: called with logits (N, R, K), labels (N, R), and the positives' IoU (P,)
            where its `needs_pos_iou` is true; returns a sum. Focal loss by default.
        box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise. L1 by
            default, as in Detectron2 (smooth L1 with beta 0).
        class_balance: called in training with the classes of each image's objects and
            labels (N, R); returns the `class_weight` of `cls_loss`. See
            `iou_balanced.losses.BalanceOriented`. None: all classes weigh the same.
        loss_normalizer: called with the number of positives; returns the divisor of both.
            `LossNormalizer()` by default.
        backbone, head, head_in_features, anchor_generator: see `detectron2.modeling.RetinaNet`.
        box2box_transform, anchor_matcher, num_classes: likewise.
        test_score_thresh, test_topk_candidates, test_nms_thresh: likewise.
        max_detections_per_image, pixel_mean, pixel_std, vis_period: likewise.
        input_format: likewise.
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
        class_balance: nn.Module | None = None,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean,
        pixel_std,
        vis_period: int = 0,
        input_format: str = "BGR",
    ):
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
        self.set_losses(
            SigmoidFocalLoss() if cls_loss is None else cls_loss,
            SmoothL1Loss() if box_loss is None else box_loss,
            LossNormalizer() if loss_normalizer is None else loss_normalizer,
            class_balance,
        )

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        alpha, gamma = ret.pop("focal_loss_alpha"), ret.pop("focal_loss_gamma")
        beta, loss_type = ret.pop("smooth_l1_beta"), ret.pop("box_reg_loss_type")
        ret.update(losses_from_config(cfg, alpha=alpha, gamma=gamma, beta=beta, kind=loss_type))
        ret["class_balance"] = class_balance_from_config(cfg, ret["num_classes"])
        return ret
