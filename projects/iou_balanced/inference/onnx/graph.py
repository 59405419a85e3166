"""Detectors as they are exported: from pixels to detections, in operators that ONNX has.

Shapes: N images, H x W pixels, K classes, Ri anchors of level i, S candidates and D detections of
an image.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from detectron2.modeling.meta_arch.fcos import FCOS
from torch import Tensor, nn

from iou_balanced.engine import UserError
from iou_balanced.modeling import SSD, CenterNet, FoveaBox

from .operators import keep_by_nms

_COUNTED = (
    *(f"detectron2.modeling.roi_heads.{name}" for name in ("fast_rcnn", "cascade_rcnn")),
    "iou_balanced.modeling.rcnn.fast_rcnn",
)
"""Modules that split what is predicted for all proposals by the images' numbers of them."""


class _Graph(nn.Module):
    """From images (N, 3, H, W), float32, 0 to 255, channels in the model's order, to detections.

    Returns:
        boxes (N, D, 4) XYXY in pixels of the images, scores (N, D), descending, and labels (N, D).
        Where an image has fewer, the last ones have score 0, box 0 and label -1.
    """

    any_batch = True
    """Whether N may be any number; else 1."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        # As numbers of the graph, so that an exported file takes images of any size.
        size = torch._shape_as_tensor(images)[[3, 2, 3, 2]].to(images.device).float()
        x = _pad((images - model.pixel_mean) / model.pixel_std, model.backbone.size_divisibility)
        features = model.backbone(x)
        features = [features[name] for name in model.head_in_features]
        boxes, scores, labels = self.detect(features, x, size)
        return _padded(torch.minimum(boxes.clamp(min=0), size), scores, labels)

    def detect(
        self, features: list[Tensor], x: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (N, D, 4), scores (N, D), 0 for none, and labels (N, D).

        Args:
            features: the levels (N, C, H_l, W_l), finest first.
            x: the network's input.
            size: (4,) width, height, width, height of the images without padding.
        """
        raise NotImplementedError


class _AnchorGraph(_Graph):
    """Candidates of each level, and NMS by class: RetinaNet's inference, and most others'."""

    clips = False
    """Whether boxes are clipped to the image before NMS too."""

    def detect(self, features, x, size):
        model = self.model
        anchors = [boxes.tensor for boxes in model.anchor_generator(features)]
        scores, deltas = self.predictions(model.head(features))
        levels = [self.candidates(*level) for level in zip(anchors, scores, deltas, strict=True)]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        if self.clips:
            boxes = torch.minimum(boxes.clamp(min=0), size)
        kept = keep_by_nms(
            boxes,
            scores,
            labels,
            num_classes=model.num_classes,
            max_boxes=model.max_detections_per_image,
            iou_threshold=model.test_nms_thresh,
            score_threshold=model.test_score_thresh,
        )
        kept, index = _topk(kept, model.max_detections_per_image)
        return _rows(boxes, index), kept, labels.gather(1, index)

    def predictions(self, outputs) -> tuple[list[Tensor], list[Tensor]]:
        """Scores (N, Ri, K) and deltas (N, Ri, 4) of each level."""
        logits, deltas = self.model._transpose_dense_predictions(
            outputs, [self.model.num_classes, 4]
        )
        return [x.sigmoid() for x in logits], deltas

    def candidates(
        self, anchors: Tensor, scores: Tensor, deltas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best of a level: boxes (N, S, 4), scores (N, S), and labels (N, S)."""
        model = self.model
        num_classes = model.num_classes
        scores, index = _topk(scores.flatten(1), model.test_topk_candidates)
        # Those at the threshold and below go; where there is nothing, it is index 0.
        scores = torch.where(scores > model.test_score_thresh, scores, torch.zeros_like(scores))
        anchor = index.div(num_classes, rounding_mode="floor")
        boxes = model.box2box_transform.apply_deltas(
            _rows(deltas, anchor).reshape(-1, 4), anchors[anchor.flatten()]
        )
        return boxes.reshape(*scores.shape, 4), scores, index - anchor * num_classes


class _FCOSGraph(_AnchorGraph):
    def predictions(self, outputs):
        logits, deltas, centerness = self.model._transpose_dense_predictions(
            outputs, [self.model.num_classes, 4, 1]
        )
        pairs = zip(logits, centerness, strict=True)
        return [(x.sigmoid() * y.sigmoid()).sqrt() for x, y in pairs], deltas


class _SSDGraph(_AnchorGraph):
    clips = True

    def predictions(self, outputs):
        logits, deltas = self.model._transpose_dense_predictions(
            outputs, [self.model.num_classes + 1, 4]
        )
        return [x.softmax(dim=2)[:, :, :-1] for x in logits], deltas


class _CenterNetGraph(_Graph):
    """Peaks of the heat map; see `iou_balanced.modeling.centernet.decode`."""

    def detect(self, features, x, size):
        model = self.model
        heatmap, offset, extent = self._maps(features)
        if model.flip_test:
            mirrored = model.backbone(x.flip(3))
            mirrored = self._maps([mirrored[name] for name in model.head_in_features])
            heatmap = (heatmap + mirrored[0].flip(3)) / 2
            extent = (extent + mirrored[2].flip(3)) / 2
        shape = torch._shape_as_tensor(heatmap)
        height, width = shape[2].to(x.device), shape[3].to(x.device)
        # What the padding shows is nobody's.
        cells = (size / model.stride).ceil()
        ones = torch.ones_like(heatmap[:1, :1])
        column, row = ones.cumsum(dim=3) - 1, ones.cumsum(dim=2) - 1
        heatmap = heatmap * ((column < cells[0]) & (row < cells[1])).float()
        is_peak = heatmap == F.max_pool2d(heatmap, 3, stride=1, padding=1)
        scores, index = _topk(
            (heatmap * is_peak.float()).flatten(1), model.max_detections_per_image
        )
        scores = torch.where(scores > model.test_score_thresh, scores, torch.zeros_like(scores))
        labels = index.div(height * width, rounding_mode="floor")
        cell = index - labels * (height * width)
        y = cell.div(width, rounding_mode="floor")
        corner = torch.stack([cell - y * width, y], dim=2).float()
        center = corner + _rows(offset.flatten(2).transpose(1, 2), cell)
        half = _rows(extent.flatten(2).transpose(1, 2), cell) / 2
        return torch.cat([center - half, center + half], dim=2) * model.stride, scores, labels

    def _maps(self, features):
        predictions = self.model.head(features)
        return predictions.heatmap.sigmoid(), predictions.offset, predictions.size


class _RCNNGraph(_Graph):
    """By Detectron2's own way to trace its R-CNNs, which takes one image."""

    any_batch = False

    def forward(self, images):
        # Else the number of proposals of the recorded image would be that of all.
        with patch_builtin_len(_COUNTED):
            (instances,) = self.model.inference([{"image": images[0]}], do_postprocess=False)
        boxes = instances.pred_boxes.tensor
        return _padded(boxes[None], instances.scores[None], instances.pred_classes[None])


def graph_of(model: nn.Module) -> nn.Module:
    """The exported form of a detector.

    Raises:
        UserError: it has none; says why.
    """
    name = type(model).__name__
    # Those of Detectron2's main branch have the entry always, and a 0 for none.
    if getattr(model.backbone, "padding_constraints", {}).get("square_size", 0) > 0:
        raise UserError(f"{name}: its backbone pads images to a square, which the graph does not")
    if isinstance(model, GeneralizedRCNN):
        for part in ("mask", "keypoint"):
            if getattr(model.roi_heads, f"{part}_on", False):
                raise UserError(
                    f"{name} has {part}s, and a file has boxes alone. Without them it can be "
                    f"exported: model.roi_heads.{part}_in_features=null, or in yaml "
                    f"MODEL.{part.upper()}_ON=False"
                )
        return _RCNNGraph(model)
    graphs = (
        *((CenterNet, _CenterNetGraph), (SSD, _SSDGraph), (FCOS, _FCOSGraph)),
        *((RetinaNet, _AnchorGraph), (FoveaBox, _AnchorGraph)),
    )
    for kind, graph in graphs:
        if isinstance(model, kind):
            return graph(model)
    known = ", ".join(kind.__name__ for kind, _ in graphs)
    raise UserError(f"{name}: only {known} and R-CNNs without masks can be exported")


def _pad(x: Tensor, divisor: int) -> Tensor:
    """Zeros at the right and at the bottom, to sides that `divisor` divides."""
    if divisor <= 1:
        return x
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % divisor, 0, -height % divisor))


def _topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of each row, 0 at index 0 where there are fewer; scores are at least 0."""
    scores, index = F.pad(scores, (0, k)).topk(k, dim=1)
    return scores, torch.where(scores > 0, index, torch.zeros_like(index))


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """(N, S, C) rows of x (N, R, C) by index (N, S)."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def _padded(boxes: Tensor, scores: Tensor, labels: Tensor) -> Sequence[Tensor]:
    """Without boxes that have no area, those with score 0 last."""
    width, height = (boxes[:, :, 2:] - boxes[:, :, :2]).unbind(dim=2)
    scores = scores * ((width > 0) & (height > 0)).float()
    scores, order = scores.sort(dim=1, descending=True)
    found = scores > 0
    boxes = _rows(boxes, order) * found[:, :, None].float()
    labels = torch.where(found, labels.gather(1, order), -1)
    return boxes, scores, labels
