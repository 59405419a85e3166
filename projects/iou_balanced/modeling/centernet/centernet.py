"""CenterNet whose losses are arguments (Objects as Points, arXiv 1904.07850).

Shapes: N images, K foreground classes, H x W cells of the output map, P objects of the batch, C
different centres of them.
"""

import copy
import math
from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from iou_balanced.losses import PenaltyReducedFocalLoss, SmoothL1Loss
from iou_balanced.losses.checks import upcast
from iou_balanced.modeling import dense
from iou_balanced.modeling.dense import InjectedLosses
from iou_balanced.modeling.ground_truth import check_ground_truth
from iou_balanced.modeling.loss_state import put_scalar, record_w_loc, warn_if_state_was_lost
from iou_balanced.modeling.normalizer import LossNormalizer
from iou_balanced.modeling.positives import Positives, call_loss, needs_pos_iou, regression_loss

from .box_transform import CenterBoxTransform, weights_like
from .decode import decode, merge_flipped, values_at
from .head import CenterNetPredictions
from .targets import CenterTargets, center_targets, count_centers
from .yaml import centernet_from_config


@META_ARCH_REGISTRY.register()
class CenterNet(InjectedLosses, DenseDetector):
    """CenterNet (Zhou et al., arXiv 1904.07850): objects as peaks of a heat map, without NMS.

    The defaults are the published settings.

    Args:
        backbone: gives one map, of the output's stride (4); a neck such as `UpConvNeck`.
        head: gives `CenterNetPredictions` of that map; see `CenterNetHead`.
        box2box_transform: `CenterBoxTransform()` by default, with the published loss weights.
        cls_loss: called with logits (N, K, H, W), heat map (N, K, H, W), and the centres' IoU
            (C,) where its `needs_pos_iou` is true; returns a sum. Penalty-reduced focal loss
            by default.
        box_loss: called with deltas (P, 4), targets (P, 4), and IoU (P,) likewise; with boxes
            (P, 4) XYXY where its `on_boxes` is true. L1 by default (smooth L1 with beta 0).
        class_balance: called in training with the classes of each image's objects; returns
            the `class_weight` of `cls_loss`. See `iou_balanced.losses.BalanceOriented`. None:
            all classes weigh the same.
        loss_normalizer: called with the number of objects; returns the divisor of the box
            loss. A copy of it, called with the number of centres, gives that of the
            classification loss. Both are just these numbers by default.
        test_score_thresh: detections have a higher score.
        max_detections_per_image: over all classes.
        flip_test: average with the maps of the mirror image.
        canvas: what put the test images in the middle of a canvas, `CenterFit` or `CenterPad`
            of `iou_balanced.data`, the same as in the test loader; its `postprocess` brings
            detections back to the image. None: images are only scaled, as Detectron2's are.
        input_format: order of the channels, for what feeds the model.
        head_in_features, num_classes, pixel_mean, pixel_std: see `detectron2.modeling.RetinaNet`.

    Raises:
        ValueError: the backbone gives several maps, the head is for other channels or classes,
            or a value is not as above.
    """

    on_heatmaps = True

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        head: nn.Module,
        head_in_features: Sequence[str] | None = None,
        num_classes: int,
        box2box_transform: CenterBoxTransform | None = None,
        cls_loss: nn.Module | None = None,
        box_loss: nn.Module | None = None,
        class_balance: nn.Module | None = None,
        loss_normalizer: nn.Module | None = None,
        test_score_thresh: float = 0.0,
        max_detections_per_image: int = 100,
        flip_test: bool = False,
        canvas=None,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
    ):
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        if len(self.head_in_features) != 1:
            raise ValueError(
                "Expected argument `head_in_features` to be one map, because CenterNet has one "
                f"output resolution, but got {list(self.head_in_features)}"
            )
        shape = backbone.output_shape()[self.head_in_features[0]]
        self.stride = shape.stride
        for name, expected in (("in_channels", shape.channels), ("num_classes", num_classes)):
            value = getattr(head, name, expected)
            if None not in (value, expected) and value != expected:
                raise ValueError(
                    f"Expected argument `head` to have {name}={expected}, as the "
                    f"{'backbone' if name == 'in_channels' else 'model'} has, but got {value}"
                )
        self.num_classes = num_classes
        self.box2box_transform = box2box_transform or CenterBoxTransform()
        if loss_normalizer is None:
            loss_normalizer = LossNormalizer(momentum=0.0, initial=None)
        self.set_losses(
            PenaltyReducedFocalLoss() if cls_loss is None else cls_loss,
            SmoothL1Loss(beta=0.0) if box_loss is None else box_loss,
            loss_normalizer,
            class_balance,
        )
        self.cls_normalizer = copy.deepcopy(loss_normalizer)
        self.test_score_thresh = test_score_thresh
        self.max_detections_per_image = max_detections_per_image
        self.flip_test, self.canvas = flip_test, canvas
        self.input_format = input_format

    @classmethod
    def from_config(cls, cfg):
        """The arguments of the constructor, by the keys of `add_centernet_config`.

        Args:
            cfg: a yaml (yacs) config.
        """
        return centernet_from_config(cfg)

    def forward(self, batched_inputs: list[dict]):
        """As `detectron2.modeling.RetinaNet.forward`; refuses unusable ground truth.

        Detections are in pixels of the image of "height" x "width" that is on the `canvas`, or
        without these, as with any model of Detectron2, in pixels of the "image" as it is given.

        Args:
            batched_inputs: one dict an image, in Detectron2's format.

        Raises:
            ValueError: in training, for a box without area or of a class that the model lacks; in
                testing, for an image that is not on the `canvas`, or has one of "height" and
                "width" alone.
        """
        if self.training or self.canvas is None:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        features = [features[name] for name in self.head_in_features]
        results = self.forward_inference(images, features, self.head(features))
        processed = []
        for i, (x, result) in enumerate(zip(batched_inputs, results, strict=True)):
            sides = [x.get("height"), x.get("width")]
            if sides.count(None) == 1:
                raise ValueError(
                    'Expected "height" and "width" of the original image, or neither of them, '
                    f"but got {sides[0]} and {sides[1]} for {x.get('file_name', f'image {i}')}"
                )
            if sides[0] is None:
                result = detector_postprocess(result, *result.image_size)
            else:
                result = self.canvas.postprocess(result, *sides)
            processed.append({"instances": result})
        return processed

    def forward_training(
        self,
        images: ImageList,
        features: list[Tensor],
        predictions: CenterNetPredictions,
        gt_instances: list[Instances],
    ) -> dict[str, Tensor]:
        size = predictions.heatmap.shape[-2:]
        return self.losses(predictions, center_targets(*self._ground_truth(gt_instances, size)))

    def _ground_truth(self, gt_instances: list[Instances], size: tuple[int, int]) -> tuple:
        """The arguments of `center_targets`."""
        boxes = [x.gt_boxes.tensor for x in gt_instances]
        classes = [x.gt_classes for x in gt_instances]
        return boxes, classes, self.num_classes, tuple(size), self.stride

    @torch.no_grad()
    def count_positives(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """See `InjectedLosses.count_positives`."""
        check_ground_truth(batched_inputs, self.num_classes)
        gt_instances = [x["instances"] for x in batched_inputs]  # few numbers: on the CPU
        size = self.feature_sizes(batched_inputs)[0]
        counts = self._num_positives(*count_centers(*self._ground_truth(gt_instances, size)))
        gt_classes = [x.gt_classes for x in gt_instances]
        return {**counts, **self.class_statistics(gt_classes, gt_classes)}

    def _num_positives(self, num_objects: int, num_centers: int) -> dict[str, Tensor]:
        return {
            "cls_normalizer": dense.count_tensor(num_centers, self.device),
            "loss_normalizer": dense.count_tensor(num_objects, self.device),
        }

    def losses(
        self, predictions: CenterNetPredictions, targets: CenterTargets
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            predictions: heat-map logits (N, K, H, W), offset and size (N, 2, H, W), in cells.
            targets: of the same images, see `center_targets`.

        Returns:
            "loss_cls", divided by the number of centres, and "loss_box_reg", offset and size with
            their weights, divided by that of objects; scalars.
        """
        if not self._state_checked:
            warn_if_state_was_lost(self)
            self._state_checked = True
        put_scalar("num_objects", len(targets.cells) / max(len(targets.heatmap), 1))

        corner = targets.cells.flip(1).float() * self.stride
        at = [
            values_at(x, targets.image_index, targets.cells)
            for x in (predictions.offset, predictions.size)
        ]
        deltas = upcast(torch.cat(at, dim=1))
        deltas = deltas * weights_like(self.box2box_transform.weights, deltas)
        positives = Positives(deltas, torch.cat([corner, corner + self.stride], 1), targets.boxes)
        loss_box_reg, pos_iou = regression_loss(
            self.cls_loss, self.box_loss, self.box2box_transform, positives
        )
        if needs_pos_iou(self.cls_loss):
            pos_iou = targets.max_per_center(pos_iou)
        class_weight = None
        if self.class_balance is not None:
            gt_classes = self._gt_classes
            if gt_classes is None:  # called without `forward`
                images = range(len(targets.heatmap))
                gt_classes = [targets.gt_classes[targets.image_index == i] for i in images]
            # A positive is an object's centre: locations are counted as instances are.
            class_weight = self.class_balance(gt_classes, gt_classes)
        loss_cls = call_loss(
            self.cls_loss,
            predictions.heatmap,
            targets.heatmap,
            pos_iou,
            class_weight,
            targets.num_centers,
        )
        record_w_loc(self.box_loss)
        num_positives = self._num_positives(len(targets.cells), targets.num_centers)
        return {
            "loss_cls": loss_cls / self.cls_normalizer(num_positives["cls_normalizer"]),
            "loss_box_reg": loss_box_reg / self.loss_normalizer(num_positives["loss_normalizer"]),
        }

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: CenterNetPredictions
    ) -> list[Instances]:
        """Detections of each image in its network input's pixels, by descending score.

        Args:
            images: the batch as the network takes it.
            features: the one map (N, C, H, W).
            predictions: what the head gives for it.
        """
        maps = (predictions.heatmap.float().sigmoid(), predictions.offset, predictions.size)
        if self.flip_test:
            mirrored = self.backbone(images.tensor.flip(3))
            mirrored = self.head([mirrored[f] for f in self.head_in_features])
            mirrored = (mirrored.heatmap.float().sigmoid(), mirrored.offset, mirrored.size)
            maps = merge_flipped(*(torch.cat(pair) for pair in zip(maps, mirrored, strict=True)))
        # Peaks in the batch's padding are no image's, and would take places among the best.
        scores = maps[0]
        for i, (height, width) in enumerate(images.image_sizes):
            scores[i, :, math.ceil(height / self.stride) :] = 0
            scores[i, :, :, math.ceil(width / self.stride) :] = 0
        boxes, scores, classes = decode(*maps, self.max_detections_per_image, self.stride)
        results = []
        for i, image_size in enumerate(images.image_sizes):
            kept = scores[i] > self.test_score_thresh
            result = Instances(image_size)
            result.pred_boxes = Boxes(boxes[i][kept])
            result.pred_boxes.clip(image_size)
            result.scores, result.pred_classes = scores[i][kept], classes[i][kept]
            results.append(result)
        return results

    def extra_repr(self) -> str:
        return (
            f"num_classes={self.num_classes}, stride={self.stride}, flip_test={self.flip_test}, "
            f"{self.box2box_transform}"
        )
