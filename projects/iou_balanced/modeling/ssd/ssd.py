"""SSD whose losses are arguments (arXiv 1512.02325; losses of arXiv 1908.05641).

Shapes: N images, R default boxes over all levels, Ri of level i, K foreground
classes, P positives.
"""

from collections.abc import Sequence

import torch
from detectron2.layers import batched_nms
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from iou_balanced.losses import (
    ClassWeights,
    SmoothL1Loss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling.class_weighting import weights_by_row
from iou_balanced.modeling.dense import InjectedLosses
from iou_balanced.modeling.loss_families import SIGMOID
from iou_balanced.modeling.normalizer import LossNormalizer
from iou_balanced.modeling.positives import call_loss

from .default_boxes import match_images
from .mining import mine_hard_negatives


class SSD(InjectedLosses, DenseDetector):
    """Single shot detector (Liu et al., arXiv 1512.02325).

    The defaults are those of the paper, in inference those of MMDetection 3.3.

    Args:
        anchor_generator: gives the default boxes, see `DefaultBoxGenerator`.
        box2box_transform: Detectron2's `Box2BoxTransform`; weights (10, 10, 5, 5) are the
            authors' variances 0.1 and 0.2.
        match_iou_thresh: default boxes of this IoU or more with an object are positives, beside
            each object's best one.
        hard_negative_ratio: how many negatives are trained for each positive of an image,
            at most.
        cls_loss: called with logits (N * R, K + 1), labels (N * R,), and the positives' IoU
            (P,) where its `needs_pos_iou` is true; returns one term a row, (N * R,): a softmax
            loss with reduction "none". Cross entropy by default. One with `takes_levels` gets
            the logits as a list of (N, Ri, K + 1) and labels (N, R).
        box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise; returns a
            sum. Smooth L1 with beta 1 by default.
        class_balance: called in training with the classes of each image's objects and
            labels (N, R); returns the `class_weight` of `cls_loss`. See
            `iou_balanced.losses.BalanceOriented`. None: all classes weigh the same.
        loss_normalizer: called with the number of positives; returns the divisor of both. By
            default that number itself, over the whole batch.
        test_topk_candidates: on each level, before NMS.
        input_format: order of the channels, for what feeds the model.
        backbone, head, head_in_features, num_classes: see `detectron2.modeling.RetinaNet`.
        test_score_thresh, test_nms_thresh, max_detections_per_image: likewise.
        pixel_mean, pixel_std: likewise.

    Raises:
        ValueError: `cls_loss` gives no term for each row; head and default boxes do not fit
            together; or a number makes no sense.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        anchor_generator: nn.Module,
        box2box_transform,
        num_classes: int,
        match_iou_thresh: float = 0.5,
        hard_negative_ratio: float = 3.0,
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        loss_normalizer: nn.Module | None = None,
        class_balance: nn.Module | None = None,
        test_score_thresh: float = 0.02,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.45,
        max_detections_per_image: int = 200,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
    ):
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self.num_classes = num_classes
        self.anchor_generator = anchor_generator
        self.box2box_transform = box2box_transform
        self.match_iou_thresh = match_iou_thresh
        self.hard_negative_ratio = hard_negative_ratio
        if loss_normalizer is None:
            loss_normalizer = LossNormalizer(momentum=0.0, initial=None)
        self.set_losses(
            SoftmaxCrossEntropyLoss(reduction="none") if cls_loss is None else cls_loss,
            SmoothL1Loss(beta=1.0) if box_loss is None else box_loss,
            loss_normalizer,
            class_balance,
        )
        self._check_arguments()

        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.max_detections_per_image = max_detections_per_image
        self.input_format = input_format

    def forward_training(self, images, features, predictions, gt_instances) -> dict[str, Tensor]:
        pred_logits, pred_anchor_deltas = self._transpose_dense_predictions(
            predictions, [self.num_classes + 1, 4]
        )
        anchors = self.anchor_generator(features)
        gt_labels, gt_boxes = self.label_anchors(anchors, gt_instances)
        return self.losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Match default boxes with objects, see `match_default_boxes`.

        Args:
            anchors: one a level, Ri boxes each.
            gt_instances: one an image, with gt_boxes and gt_classes.

        Returns:
            gt_labels: one (R,) an image, in 0..K; K is background, and nothing is ignored.
            gt_boxes: one (R, 4) an image, the object of each default box; of background undefined.
        """
        matches = match_images(
            [x.gt_boxes.tensor for x in gt_instances],
            Boxes.cat(anchors).tensor,
            self.match_iou_thresh,
        )
        gt_labels, gt_boxes = [], []
        for x, match in zip(gt_instances, matches, strict=True):
            # A last entry stands for the background: it is where -1 points to.
            background = x.gt_classes.new_full((1,), self.num_classes)
            gt_labels.append(torch.cat([x.gt_classes, background])[match])
            boxes = x.gt_boxes.tensor
            gt_boxes.append(torch.cat([boxes, boxes.new_zeros(1, 4)])[match])
        return gt_labels, gt_boxes

    def classify(
        self,
        pred_logits: list[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None,
        class_weight: Tensor | ClassWeights | None,
    ) -> Tensor:
        """The loss of the positives and of each image's hard negatives, as a sum.

        Args:
            pred_logits: one (N, Ri, K + 1) a level.
            gt_labels: (N, R) in {-1, 0..K}.
            pos_iou: (P,), or None where no loss needs it.
            class_weight: (K,) or (N, K), `ClassWeights`, or None.

        Raises:
            ValueError: `cls_loss` does not give one term a row.
        """
        cls_loss = self.cls_loss
        if getattr(cls_loss, "takes_levels", False):
            terms = call_loss(cls_loss, pred_logits, gt_labels, pos_iou, class_weight)
        else:
            pred_logits = torch.cat(pred_logits, dim=1).flatten(0, 1)
            class_weight = weights_by_row(class_weight, [gt_labels.shape[1]] * len(gt_labels))
            terms = call_loss(cls_loss, pred_logits, gt_labels.flatten(), pos_iou, class_weight)
        if terms.numel() != gt_labels.numel():
            raise ValueError(
                f"Expected `cls_loss` to give one term a row, {gt_labels.numel()} in all, but "
                f"{type(cls_loss).__name__} gave {tuple(terms.shape)}"
            )
        terms = terms.view_as(gt_labels)
        # Hard negatives are chosen by their weighted loss.
        selected = (gt_labels >= 0) & (gt_labels != self.num_classes)
        selected |= mine_hard_negatives(
            terms, gt_labels, self.num_classes, self.hard_negative_ratio
        )
        return torch.where(selected, terms, 0.0).sum()

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: list[list[Tensor]]
    ) -> list[Instances]:
        """Detections of each image in its network input's pixels, by descending score.

        Args:
            images: the batch as the network takes it.
            features: one map (N, C, H, W) a level.
            predictions: logits and deltas, one map a level, as the head gives them.
        """
        pred_logits, pred_anchor_deltas = self._transpose_dense_predictions(
            predictions, [self.num_classes + 1, 4]
        )
        anchors = self.anchor_generator(features)
        return [
            self.inference_single_image(
                anchors,
                [x[i].float().softmax(dim=1)[:, :-1] for x in pred_logits],
                [x[i] for x in pred_anchor_deltas],
                image_size,
            )
            for i, image_size in enumerate(images.image_sizes)
        ]

    def inference_single_image(
        self,
        anchors: list[Boxes],
        scores: list[Tensor],
        deltas: list[Tensor],
        image_size: tuple[int, int],
    ) -> Instances:
        """Threshold and best candidates on each level, clipping to the image, NMS by class.

        Args:
            anchors: one a level, Ri boxes each.
            scores: one (Ri, K) a level.
            deltas: one (Ri, 4) a level.
            image_size: (height, width) in pixels.
        """
        pred = self._decode_multi_level_predictions(
            anchors,
            scores,
            deltas,
            self.test_score_thresh,
            self.test_topk_candidates,
            image_size,
        )
        # Before NMS, as in MMDetection: boxes overlap by their parts in the image.
        pred.pred_boxes.clip(image_size)
        keep = batched_nms(
            pred.pred_boxes.tensor, pred.scores, pred.pred_classes, self.test_nms_thresh
        )
        return pred[keep[: self.max_detections_per_image]]

    def _check_arguments(self) -> None:
        """Check what goes together.

        Raises:
            ValueError: an argument of the constructor is not as it says.
        """
        name = type(self.cls_loss).__name__
        if isinstance(self.cls_loss, SIGMOID):
            raise ValueError(
                "Expected argument `cls_loss` to be a softmax loss, because SSD ranks default "
                "boxes by one term each and its logits have a background column, but got "
                f"{name}, a sigmoid loss with a term for each class"
            )
        reduction = getattr(self.cls_loss, "reduction", None)
        if reduction != "none":
            raise ValueError(
                "Expected argument `cls_loss` to have reduction 'none', because hard negatives are "
                f"mined from its terms, but got {name} with reduction {reduction!r}"
            )
        counts = getattr(self.head, "num_anchors", None)
        if counts is not None and list(counts) != list(self.anchor_generator.num_anchors):
            raise ValueError(
                "Expected argument `head` to predict as many boxes a cell as `anchor_generator` "
                f"has, {list(self.anchor_generator.num_anchors)}, but got {list(counts)}"
            )
        if not self.hard_negative_ratio > 0:
            raise ValueError(
                "Expected argument `hard_negative_ratio` to be greater than 0, "
                f"but got {self.hard_negative_ratio}"
            )

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, match_iou_thresh={self.match_iou_thresh}, "
            f"hard_negative_ratio={self.hard_negative_ratio}"
        )
