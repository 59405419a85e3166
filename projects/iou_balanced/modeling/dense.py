"""What the dense detectors share: losses as attributes, checks at the entry, the sums.

Shapes: N images, Ri anchors of level i, R of all levels, K foreground classes, P positives.
"""

import torch
from detectron2.structures import Boxes
from detectron2.utils import comm
from torch import Tensor, nn

from iou_balanced.losses import ClassWeights

from .class_weighting import check_class_balance
from .ground_truth import check_ground_truth
from .loss_families import check_cls_loss, check_modules, tell_num_classes
from .loss_state import put_scalar, record_w_loc, warn_if_state_was_lost
from .positives import (
    PositiveIndex,
    classification_loss,
    find_positives,
    gather_positives,
    objects_of_positives,
    regression_loss,
)


def count_tensor(number: int, device: torch.device) -> Tensor:
    """A number for a normaliser: on the CPU, where it is read, unless processes add them up."""
    return torch.tensor(number, device=device if comm.get_world_size() > 1 else "cpu")


class InjectedLosses:
    """Mixin before a `DenseDetector` with `num_classes` and `box2box_transform`."""

    on_heatmaps = False
    """Whether the classification loss is called with a heat map, or with class labels."""
    by_softmax = False
    """Whether the class logits have a background column."""
    _state_checked = False
    _gt_classes = None
    _feature_sizes = None
    _num_positives_of_batch = None

    def set_losses(
        self,
        cls_loss: nn.Module,
        box_loss: nn.Module,
        loss_normalizer: nn.Module,
        class_balance: nn.Module | None = None,
    ) -> None:
        """Take the losses; called in the constructor, after `super().__init__`.

        Args:
            cls_loss: returns a sum, or what the detector's `classify` makes one of.
            box_loss: returns a sum.
            loss_normalizer: called with the number of positives; returns the divisor of the sums.
            class_balance: returns the `class_weight` of `cls_loss`, or None.

        Raises:
            ValueError: a loss is no module; `cls_loss` is for other targets; or `class_balance`
                does not go with it or with the model's classes.
        """
        check_modules(cls_loss=cls_loss, box_loss=box_loss, loss_normalizer=loss_normalizer)
        check_cls_loss(cls_loss, on_heatmaps=self.on_heatmaps, by_softmax=self.by_softmax)
        tell_num_classes(cls_loss, self.num_classes)
        check_class_balance(class_balance, cls_loss, self.num_classes)
        self.cls_loss, self.box_loss = cls_loss, box_loss
        self.loss_normalizer, self.class_balance = loss_normalizer, class_balance

    def forward(self, batched_inputs: list[dict]):
        """As `detectron2.modeling.RetinaNet.forward`; refuses unusable ground truth.

        Args:
            batched_inputs: one dict an image, in Detectron2's format.

        Raises:
            ValueError: in training, for a box without area or of a class that the model lacks.
        """
        if not self.training:
            return super().forward(batched_inputs)
        check_ground_truth(batched_inputs, self.num_classes)
        # Kept for `sum_losses`: Detectron2 passes it the labels of anchors, not of objects.
        self._gt_classes = [x["instances"].gt_classes for x in batched_inputs]
        try:
            return super().forward(batched_inputs)
        finally:
            self._gt_classes = None

    @torch.no_grad()
    def count_positives(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """What a training step on this batch calls the normalisers with.

        It costs the assignment of labels, not the forward pass: positives depend on the boxes and
        on the sizes of the feature maps. See `iou_balanced.modeling.normalizer.whole_batch`.

        Args:
            batched_inputs: one dict an image, in Detectron2's format.

        Returns:
            A scalar for each normaliser, by the name of its attribute; and `class_statistics`.

        Raises:
            ValueError: as `forward` in training.
        """
        check_ground_truth(batched_inputs, self.num_classes)
        # Anchor generators use the sizes of the maps only.
        sizes = self.feature_sizes(batched_inputs)
        anchors = self.anchor_generator([self.pixel_mean.new_empty(0, 1, *x) for x in sizes])
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        gt_labels = torch.stack(self.label_anchors(anchors, gt_instances)[0])
        gt_classes = [x["instances"].gt_classes for x in batched_inputs]
        return {
            "loss_normalizer": self._positive_mask(gt_labels).sum(),
            **self.class_statistics(gt_classes, gt_labels),
        }

    def class_statistics(
        self, gt_classes: list[Tensor], gt_labels: Tensor | list[Tensor]
    ) -> dict[str, Tensor]:
        """{"class_balance": what it wants to know of the whole batch}, or {}.

        See `iou_balanced.losses.ClassBalance.batch_statistics` for the arguments.
        """
        of_batch = getattr(self.class_balance, "batch_statistics", None)
        statistics = None if of_batch is None else of_batch(gt_classes, gt_labels)
        return {} if statistics is None else {"class_balance": statistics}

    def feature_sizes(self, batched_inputs: list[dict]) -> list[tuple[int, int]]:
        """(height, width) of each of the head's feature maps for this batch.

        A blank image goes through the backbone, once for each size of the network's input.

        Args:
            batched_inputs: one dict an image, in Detectron2's format.
        """
        shapes = [x["image"].shape[-2:] for x in batched_inputs]
        height, width = (max(side) for side in zip(*shapes, strict=True))
        blank = self.pixel_mean.new_zeros(len(self.pixel_mean), height, width)
        blank = self.preprocess_image([{"image": blank}]).tensor
        size = tuple(blank.shape[-2:])
        if self._feature_sizes is None:
            self._feature_sizes = {}
        if size not in self._feature_sizes:
            modes = [(module, module.training) for module in self.backbone.modules()]
            self.backbone.eval()  # the blank image must not count in a BatchNorm's statistics
            try:
                with torch.no_grad():
                    features = self.backbone(blank)
            finally:
                for module, training in modes:
                    module.training = training
            self._feature_sizes[size] = [
                tuple(features[name].shape[-2:]) for name in self.head_in_features
            ]
        return self._feature_sizes[size]

    def _positive_mask(self, gt_labels: Tensor) -> Tensor:
        return (gt_labels >= 0) & (gt_labels != self.num_classes)

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
            anchors: one a level, Ri boxes each.
            pred_logits: one (N, Ri, K) a level.
            gt_labels: one (R,) an image, in {-1, 0..K}.
            pred_anchor_deltas: one (N, Ri, 4) a level.
            gt_boxes: one (R, 4) an image, XYXY in pixels.

        Returns:
            "loss_cls" and "loss_box_reg", scalars divided by the normaliser.
        """
        loss_cls, loss_box_reg, num_pos = self.sum_losses(
            anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes
        )
        normalizer = self.loss_normalizer(num_pos)
        return {"loss_cls": loss_cls / normalizer, "loss_box_reg": loss_box_reg / normalizer}

    def sum_losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
        index: PositiveIndex | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The two losses as sums, before any normaliser; see `InjectedLosses.losses`.

        The event storage gets "num_pos_anchors", an image's on average, and the box loss's "w_loc".
        A GPU is waited for once, for where the positives are; not where `index` says that.

        Args:
            anchors: see `InjectedLosses.losses`.
            pred_logits: see `InjectedLosses.losses`.
            gt_labels: see `InjectedLosses.losses`.
            pred_anchor_deltas: see `InjectedLosses.losses`.
            gt_boxes: see `InjectedLosses.losses`.
            index: where the positives are, if the caller has found them.

        Returns:
            The classification loss, the box loss and the number of positives; scalars.
        """
        if not self._state_checked:
            warn_if_state_was_lost(self)
            self._state_checked = True
        gt_labels = torch.stack(gt_labels)  # (N, R)
        if index is None:
            index = find_positives(self._positive_mask(gt_labels))
        positives = gather_positives(index, pred_anchor_deltas, Boxes.cat(anchors).tensor, gt_boxes)
        num_positives = len(positives.anchors)
        put_scalar("num_pos_anchors", num_positives / len(gt_labels))
        loss_box_reg, pos_iou = regression_loss(
            self.cls_loss, self.box_loss, self.box2box_transform, positives
        )
        class_weight = None
        if self.class_balance is not None:
            class_weight = self.class_balance(self._gt_classes, gt_labels)
        self._num_positives_of_batch = num_positives
        more = {}
        if getattr(self.cls_loss, "needs_pos_object", False):
            classes = gt_labels[index.images, index.anchors]
            more["pos_object"] = objects_of_positives(index.images, classes, positives.gt_boxes)
        loss_cls = self.classify(pred_logits, gt_labels, pos_iou, class_weight, **more)
        record_w_loc(self.box_loss)
        return loss_cls, loss_box_reg, count_tensor(num_positives, gt_labels.device)

    def classify(
        self,
        pred_logits: list[Tensor],
        gt_labels: Tensor,
        pos_iou: Tensor | None,
        class_weight: Tensor | ClassWeights | None,
        pos_object: Tensor | None = None,
    ) -> Tensor:
        """The classification loss as a sum.

        Args:
            pred_logits: one (N, Ri, K) a level.
            gt_labels: (N, R) in {-1, 0..K}.
            pos_iou: (P,), or None where no loss needs it.
            class_weight: (K,) or (N, K), `ClassWeights`, or None.
            pos_object: (P,) the object of each positive, where the loss `needs_pos_object`.
        """
        return classification_loss(
            self.cls_loss,
            pred_logits,
            gt_labels,
            pos_iou,
            class_weight,
            self._num_positives_of_batch,
            pos_object,
        )
