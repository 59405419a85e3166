"""The predictions of SSD (arXiv 1512.02325, Section 2.1).

Shapes: N images, A default boxes in a cell, K foreground classes.
"""

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from torch import Tensor, nn


class SSDHead(nn.Module):
    """A 3x3 convolution for the classes and one for the boxes, each level its own.

    Args:
        input_shape: one a level.
        num_classes: K; the logits have a column more, the last, for the background.
        num_anchors: A for each level.

    Raises:
        ValueError: the lengths differ.
    """

    def __init__(
        self, *, input_shape: Sequence[ShapeSpec], num_classes: int, num_anchors: Sequence[int]
    ):
        super().__init__()
        if len(input_shape) != len(num_anchors):
            raise ValueError(
                "Expected arguments `input_shape` and `num_anchors` to have one entry for each "
                f"level, but got {len(input_shape)} and {len(num_anchors)}"
            )
        self.num_anchors = list(num_anchors)
        self.cls_score, self.bbox_pred = (
            nn.ModuleList(
                nn.Conv2d(shape.channels, count * columns, kernel_size=3, padding=1)
                for shape, count in zip(input_shape, num_anchors, strict=True)
            )
            for columns in (num_classes + 1, 4)
        )
        for conv in (*self.cls_score, *self.bbox_pred):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The predictions for each cell.

        Args:
            features: one (N, C, H, W) a level.

        Returns:
            Logits (N, A * (K + 1), H, W) and deltas (N, A * 4, H, W), one a level.
        """
        return tuple(
            [conv(x) for conv, x in zip(convs, features, strict=True)]
            for convs in (self.cls_score, self.bbox_pred)
        )
