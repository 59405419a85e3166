"""Class scores as the sigmoid losses see them: own elements of positives, and all others.

A loss is three lines over `RowScores` or `HeatMapScores`: `split` gives the loss of all elements
that are no positive's own, and the logits of those that are; the loss computes the terms of these,
by autograd, times `own_weights`; `reduce` puts both together.

Shapes: N images, Ri anchors of level i, R of all levels, K foreground classes, P positives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import check_labels
from .class_tables import ClassWeights, expand_tables
from .fused.core import concatenate, split_scores
from .fused.heatmaps import HeatMaps, element_weights
from .fused.negatives import Negatives
from .fused.positives import find
from .fused.rows import Rows
from .fused.tables import Tables, own_weights


class RowScores:
    """Logits with integer labels.

    Args:
        pred_logits: (..., K), or one (N, Ri, K) a level.
        gt_labels: (...,), or (N, R) with the levels one after the other.
        class_weight: as a loss takes it.
        num_positives: P where it is known: a GPU is then not waited for.
        backend: see `split_scores`.

    Raises:
        ValueError: the shapes do not fit, or a label on the CPU is not in -1..K.
    """

    def __init__(
        self,
        pred_logits: Tensor | Sequence[Tensor],
        gt_labels: Tensor,
        class_weight: Tensor | ClassWeights | None = None,
        *,
        num_positives: int | None = None,
        backend: str | None = None,
    ):
        if isinstance(pred_logits, Tensor):
            check_labels(pred_logits, gt_labels, pred_logits.shape[-1])
            self.shape = pred_logits.shape
            num_images = len(pred_logits) if pred_logits.dim() > 1 else None
            levels = [_three_dimensions(pred_logits)]
        else:
            levels = list(pred_logits)
            num_images, num_classes = _check_levels(levels, gt_labels)
            self.shape = torch.Size((*gt_labels.shape, num_classes))
        tables = Tables.of(expand_tables(class_weight, self.shape[-1], num_images))
        labels = gt_labels.long().reshape(len(levels[0]), sum(x.shape[1] for x in levels))
        self.rows, self.backend = Rows(tuple(levels), labels, tables), backend
        is_positive = (labels >= 0) & (labels < self.num_classes)
        self.positives = find(is_positive, num_positives)
        """(P,) places in the flattened labels, in the order of `gt_labels[pos_mask]`."""

    @property
    def num_classes(self) -> int:
        """K."""
        return self.shape[-1]

    @property
    def num_positives(self) -> int:
        """P."""
        return len(self.positives)

    def classes(self) -> Tensor:
        """(P,) the class of each positive."""
        return self.rows.labels.flatten()[self.positives]

    def images(self) -> Tensor:
        """(P,) the image of each positive: its index in the first dimension of the logits."""
        per_image = max(self.rows.labels.shape[1], 1)
        return torch.div(self.positives, per_image, rounding_mode="floor")

    def own_weights(self, dtype: torch.dtype) -> Tensor | float:
        """(P,) class weight of each positive's own element, without gradient; or 1.0."""
        weights = own_weights(self.rows.tables, self.images(), self.classes(), dtype)
        return 1.0 if weights is None else weights

    def split(
        self, negatives: Negatives, reduction: str, *, name: str = "focal loss"
    ) -> tuple[Tensor, Tensor]:
        """The loss of all elements that are no positive's own, and the logits of those that are.

        Args:
            negatives: the loss of one element; class weights are put to it.
            reduction: of the loss.
            name: of the loss, for errors.

        Returns:
            For `reduce`; and (P,), float32 at least. Both with gradient.
        """
        own, rest = split_scores(
            self.rows,
            negatives,
            elementwise=reduction == "none",
            backend=self.backend,
            name=name,
        )
        return concatenate(rest), own.flatten()[self.positives]

    def reduce(self, rest: Tensor, own_terms: Tensor, reduction: str) -> Tensor:
        """The loss.

        Args:
            rest: what `split` gave.
            own_terms: (P,) loss of the positives' own elements, weights included.
            reduction: "sum", "mean" over the elements that are not ignored, or "none".
        """
        if reduction == "none":
            flat = rest.flatten(0, 1)
            index = (self.positives, self.classes())
            return flat.index_put(index, own_terms).reshape(self.shape)
        total = rest + own_terms.sum()
        if reduction == "sum":
            return total
        return total / ((self.rows.labels >= 0).sum() * self.num_classes).clamp(min=1)


def _three_dimensions(pred_logits: Tensor) -> Tensor:
    """(..., K) as (N, R, K)."""
    columns, num_images = pred_logits.shape[-1], len(pred_logits) if pred_logits.dim() > 1 else 1
    num_rows = pred_logits.numel() // max(columns * num_images, 1)
    return pred_logits.reshape(num_images, num_rows, columns)


def _check_levels(levels: list[Tensor], gt_labels: Tensor) -> tuple[int, int]:
    """N and K of one (N, Ri, K) a level.

    Raises:
        ValueError: they are not of these shapes, or labels are not (N, R) in -1..K.
    """
    shapes = [tuple(x.shape) for x in levels]
    if not shapes or any(
        len(s) != 3 or (s[0], s[2]) != (shapes[0][0], shapes[0][2]) for s in shapes
    ):
        raise ValueError(
            "Expected argument `pred_logits` to be a tensor (..., K), or to hold one (N, Ri, K) a "
            f"level, but got {shapes}"
        )
    num_images, num_anchors, num_classes = shapes[0][0], sum(s[1] for s in shapes), shapes[0][2]
    # A tensor of the whole shape without memory, for the same check and message.
    whole = levels[0].new_empty(1).expand(num_images, num_anchors, num_classes)
    check_labels(whole, gt_labels, num_classes)
    return num_images, num_classes


class HeatMapScores:
    """Logits of heat maps with their dense ground truth.

    Args:
        pred_logits: (N, K, H, W).
        gt_heatmap: (N, K, H, W) in [0, 1]; centres, the positives here, are where it is 1.
        class_weight: as a loss takes it.
        beta: exponent of 1 - ground truth, which weighs what is no centre.
        num_positives: see `RowScores`.
        backend: see `split_scores`.
    """

    def __init__(
        self,
        pred_logits: Tensor,
        gt_heatmap: Tensor,
        class_weight: Tensor | ClassWeights | None = None,
        *,
        beta: float,
        num_positives: int | None = None,
        backend: str | None = None,
    ):
        num_images, num_classes = pred_logits.shape[:2]
        tables = Tables.of(expand_tables(class_weight, num_classes, num_images))
        gt_heatmap, self.backend = gt_heatmap.detach(), backend
        places = find(gt_heatmap == 1, num_positives)
        centers = torch.unravel_index(places, gt_heatmap.shape)
        self.maps = HeatMaps((pred_logits,), gt_heatmap, centers, tables, float(beta))

    @property
    def num_positives(self) -> int:
        """P."""
        return len(self.maps.centers[0])

    def own_weights(self, dtype: torch.dtype) -> Tensor | float:
        """(P,) class weight of each centre, without gradient; or 1.0."""
        images, classes, y, x = self.maps.centers
        cells = self.maps.gt_heatmap[images, :, y, x][:, :, None, None]
        weights = element_weights(cells, self.maps.tables.of_images(images), dtype)
        if weights is None:
            return 1.0
        return weights.expand_as(cells).flatten(1).gather(1, classes[:, None]).squeeze(1)

    def split(
        self, negatives: Negatives, reduction: str, *, name: str = "penalty-reduced focal loss"
    ) -> tuple[Tensor, Tensor]:
        """See `RowScores.split`; (1 - ground truth)^beta is put to the negatives."""
        own, (rest,) = split_scores(
            self.maps,
            negatives,
            elementwise=reduction == "none",
            backend=self.backend,
            name=name,
        )
        return rest, own

    def reduce(self, rest: Tensor, own_terms: Tensor, reduction: str) -> Tensor:
        """See `RowScores.reduce`; "mean" is over all elements."""
        if reduction == "none":
            return rest.index_put(self.maps.centers, own_terms)
        total = rest + own_terms.sum()
        return total / max(self.maps.gt_heatmap.numel(), 1) if reduction == "mean" else total
