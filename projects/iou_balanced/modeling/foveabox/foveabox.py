"""FoveaBox whose losses are arguments (arXiv 1904.03797; losses of arXiv 1908.05641).

Shapes: N images, R points over all levels, Ri of level i, K foreground classes, G objects of an
image, P positives.
"""

import copy
from collections.abc import Sequence

import torch
from detectron2.modeling import RetinaNet
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from iou_balanced.losses import SigmoidFocalLoss, SmoothL1Loss
from iou_balanced.modeling.dense import InjectedLosses
from iou_balanced.modeling.normalizer import LossNormalizer

from .targets import FoveaBoxTransform, match_points


class FoveaBoxHead(RetinaNetHead):
    """RetinaNet's head with one prediction at each point.

    Args:
        kwargs: those of `detectron2.modeling.meta_arch.retinanet.RetinaNetHead`, without
            `num_anchors`.
    """

    def __init__(self, **kwargs):
        super().__init__(num_anchors=1, **kwargs)


class FoveaBox(InjectedLosses, DenseDetector):
    """FoveaBox (Kong et al., arXiv 1904.03797) without its feature alignment.

    Positives are the points in the fovea of an object, on each level whose scale range holds the
    object. The defaults are the published settings for the levels P3 to P7.

    Args:
        base_sizes: one a level, in pixels: the distance that a prediction of 0 stands for.
        scale_ranges: one (low, high) a level, in pixels: the level learns the objects with
            low <= sqrt(width * height) <= high. They overlap: an object may have several.
        sigma: side of the fovea as a fraction of the object's, in (0, 1].
        box2box_transform: `FoveaBoxTransform()` by default.
        cls_loss: called with logits (N, R, K), labels (N, R), and the positives' IoU (P,)
            where its `needs_pos_iou` is true; returns a sum. Focal loss with alpha 0.4 and
            gamma 1.5 by default.
        box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise; with boxes
            (P, 4) XYXY where its `on_boxes` is true. Smooth L1 with beta 0.11 by default.
        class_balance: called in training with the classes of each image's objects and
            labels (N, R); returns the `class_weight` of `cls_loss`. See
            `iou_balanced.losses.BalanceOriented`. None: all classes weigh the same.
        loss_normalizer: called with the number of positives; returns the divisor of the box
            loss. A copy of it, called with the number of positives and images, gives that
            of the classification loss. Both are just these numbers by default.
        input_format: order of the channels, for what feeds the model.
        backbone, head, head_in_features, num_classes: see `detectron2.modeling.RetinaNet`.
        test_score_thresh, test_topk_candidates, test_nms_thresh: likewise.
        max_detections_per_image, pixel_mean, pixel_std: likewise.

    Raises:
        ValueError: the levels are not as many as base sizes and scale ranges; or a value is
            not as above.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        num_classes: int,
        base_sizes: Sequence[float] = (16, 32, 64, 128, 256),
        scale_ranges: Sequence[Sequence[float]] = (
            (1, 64),
            (32, 128),
            (64, 256),
            (128, 512),
            (256, 2048),
        ),
        sigma: float = 0.4,
        box2box_transform: FoveaBoxTransform | None = None,
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        loss_normalizer: nn.Module | None = None,
        class_balance: nn.Module | None = None,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        max_detections_per_image: int = 100,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
    ):
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self.num_classes = num_classes
        shapes = backbone.output_shape()
        self.strides = [shapes[name].stride for name in self.head_in_features]
        self.base_sizes = [float(size) for size in base_sizes]
        self.scale_ranges = [(float(low), float(high)) for low, high in scale_ranges]
        self.sigma = sigma
        self._check_arguments()
        # A point is given by a square with the base size around it; see FoveaBoxTransform.
        self.anchor_generator = DefaultAnchorGenerator(
            sizes=[[size] for size in self.base_sizes],
            aspect_ratios=[1.0],
            strides=self.strides,
            offset=0.5,
        )
        self.box2box_transform = box2box_transform or FoveaBoxTransform()

        if loss_normalizer is None:
            loss_normalizer = LossNormalizer(momentum=0.0, initial=None)
        self.set_losses(
            SigmoidFocalLoss(alpha=0.4, gamma=1.5) if cls_loss is None else cls_loss,
            SmoothL1Loss(beta=0.11) if box_loss is None else box_loss,
            loss_normalizer,
            class_balance,
        )
        self.cls_normalizer = copy.deepcopy(loss_normalizer)

        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.input_format = input_format

    # One class and one box at each anchor: what is done with them is RetinaNet's.
    forward_training = RetinaNet.forward_training
    forward_inference = RetinaNet.forward_inference
    inference_single_image = RetinaNet.inference_single_image

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Find the positives: the points in the fovea of an object of the level's scale.

        Where foveas overlap, the point is the smallest object's (sqrt(width * height)), and of
        equals the last one's.

        Args:
            anchors: one a level, Ri squares around all points, row by row.
            gt_instances: one an image, with gt_boxes and gt_classes.

        Returns:
            gt_labels: one (R,) an image, in 0..K; K is background, and nothing is ignored.
            gt_boxes: one (R, 4) an image, the object of each point; of background undefined.
        """
        centers = [boxes.get_centers() for boxes in anchors]
        gt_labels, gt_boxes = [], []
        for instances in gt_instances:
            boxes, classes = instances.gt_boxes.tensor, instances.gt_classes
            # A last entry stands for the background.
            boxes = torch.cat([boxes, boxes.new_zeros(1, 4)])
            classes = torch.cat([classes, classes.new_full((1,), self.num_classes)])
            owner = match_points(
                centers, self.strides, self.scale_ranges, boxes[:-1], sigma=self.sigma
            )
            gt_labels.append(classes[owner])
            gt_boxes.append(boxes[owner])
        return gt_labels, gt_boxes

    def count_positives(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """See `InjectedLosses.count_positives`."""
        counts = super().count_positives(batched_inputs)
        return {"cls_normalizer": counts["loss_normalizer"] + len(batched_inputs), **counts}

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            anchors: one a level, Ri squares of the level's base size around the points.
            pred_logits: one (N, Ri, K) a level.
            gt_labels: one (R,) an image, in {-1, 0..K}.
            pred_anchor_deltas: one (N, Ri, 4) a level.
            gt_boxes: one (R, 4) an image, XYXY in pixels.

        Returns:
            "loss_cls", divided by the number of positives and images, and "loss_box_reg", divided
            by that of positives; scalars.
        """
        loss_cls, loss_box_reg, num_pos = self.sum_losses(
            anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        return {
            "loss_cls": loss_cls / self.cls_normalizer(num_pos + len(gt_labels)),
            "loss_box_reg": loss_box_reg / self.loss_normalizer(num_pos),
        }

    def _check_arguments(self) -> None:
        """Check the levels and sigma.

        Raises:
            ValueError: an argument of the constructor is not as it says.
        """
        levels = len(self.strides)
        for name in ("base_sizes", "scale_ranges"):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"Expected argument `{name}` to have an entry for each of the {levels} levels "
                    f"{list(self.head_in_features)}, but got {getattr(self, name)}"
                )
        if not all(size > 0 for size in self.base_sizes):
            raise ValueError(
                f"Expected argument `base_sizes` to be positive, but got {self.base_sizes}"
            )
        if not all(0 <= low < high for low, high in self.scale_ranges):
            raise ValueError(
                "Expected argument `scale_ranges` to hold (low, high) with 0 <= low < high, "
                f"but got {self.scale_ranges}"
            )
        if not 0 < self.sigma <= 1:
            raise ValueError(f"Expected argument `sigma` to be in (0, 1], but got {self.sigma}")

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, base_sizes={self.base_sizes}, "
            f"scale_ranges={self.scale_ranges}, sigma={self.sigma}, {self.box2box_transform}"
        )
