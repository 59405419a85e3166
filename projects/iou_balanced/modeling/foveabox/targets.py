"""Which points FoveaBox learns an object at, and the boxes that it learns (arXiv 1904.03797).

Shapes: R points over all levels, Ri of level i, G objects of an image, P positives.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iou_balanced.losses.checks import upcast


class FoveaBoxTransform:
    """The four distances from a point to the sides of a box, in log space (arXiv 1904.03797).

    A point is given as an anchor: the square around it whose side is the base size z of its
    level. A target is log(distance / z), with the ratio clamped to [min_ratio, max_ratio].
    The interface is that of Detectron2's `Box2BoxTransform`.

    Args:
        min_ratio, max_ratio: bounds of distance / z in a target; predictions have no such bounds.
        scale_clamp: upper bound of a delta that is decoded, so that exp does not overflow.
            Detectron2's by default: 62.5 z, almost four times the largest target.

    Raises:
        ValueError: not 0 < min_ratio < max_ratio, or `scale_clamp` is below log(max_ratio).
    """

    def __init__(
        self,
        *,
        min_ratio: float = 1 / 16,
        max_ratio: float = 16.0,
        scale_clamp: float = math.log(1000.0 / 16),
    ):
        if not 0 < min_ratio < max_ratio:
            raise ValueError(
                "Expected arguments `min_ratio` and `max_ratio` with 0 < min_ratio < max_ratio, "
                f"but got {min_ratio} and {max_ratio}"
            )
        if not scale_clamp >= math.log(max_ratio):
            raise ValueError(
                "Expected argument `scale_clamp` to be at least log(max_ratio) = "
                f"{math.log(max_ratio):.4g}, or no target is reached, but got {scale_clamp}"
            )
        self.min_ratio, self.max_ratio = min_ratio, max_ratio
        self.scale_clamp = scale_clamp

    def get_deltas(self, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """(P, 4) targets: left, top, right, bottom. A side that the point is beyond is clamped too.

        Args:
            anchors: (P, 4) XYXY, the squares of the points.
            gt_boxes: (P, 4) XYXY in the same unit.
        """
        centers, sizes = _centers_and_sizes(anchors)
        gt_boxes = upcast(gt_boxes)
        distances = torch.cat([centers - gt_boxes[:, :2], gt_boxes[:, 2:] - centers], dim=1)
        return (distances / sizes).clamp(self.min_ratio, self.max_ratio).log()

    def apply_deltas(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """(P, 4) boxes XYXY, float32 (float64 for float64).

        Args:
            deltas: (P, 4) left, top, right, bottom, in log space.
            anchors: (P, 4) XYXY, the squares of the points.
        """
        centers, sizes = _centers_and_sizes(anchors)
        distances = upcast(deltas).clamp(max=self.scale_clamp).exp() * sizes
        return torch.cat([centers - distances[:, :2], centers + distances[:, 2:]], dim=1)

    def __repr__(self) -> str:
        return (
            f"FoveaBoxTransform(min_ratio={self.min_ratio:.6g}, max_ratio={self.max_ratio:.6g}, "
            f"scale_clamp={self.scale_clamp:.6g})"
        )


def _centers_and_sizes(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 2) centres and (P, 1) sides of squares."""
    anchors = upcast(anchors)
    return (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:3] - anchors[:, :1]


def fovea_mask(centers: Tensor, stride: int, gt_boxes: Tensor, sigma: float) -> Tensor:
    """Which points of a level lie in the fovea of which object: (Ri, G) bool.

    The fovea is the box, shrunk by `sigma` around its centre. A point is in it where its cell is
    from the first to the last whose centre is in the fovea; both are clamped to the map, so that
    a fovea which lies between the map's border and the first centre has the cells at the border.
    Otherwise a fovea between two centres has no cells at all.

    Args:
        centers: (Ri, 2) x and y of all points of one level in pixels, row by row.
        stride: of the level, in pixels.
        gt_boxes: (G, 4) XYXY in pixels.
        sigma: side of the fovea as a fraction of the box's, in (0, 1].
    """
    cells = (centers / stride - 0.5).round()  # column and row
    boxes = gt_boxes / stride
    half = 0.5 * (boxes[:, 2:] - boxes[:, :2])
    first = (boxes[:, :2] + (1 - sigma) * half - 0.5).ceil()
    last = (boxes[:, :2] + (1 + sigma) * half - 0.5).floor()
    # The last point is that of the map's last column and row.
    first, last = (x.clamp(min=0).minimum(cells[-1]) for x in (first, last))
    return ((cells[:, None] >= first) & (cells[:, None] <= last)).all(dim=2)


def match_points(
    centers: Sequence[Tensor],
    strides: Sequence[int],
    scale_ranges: Sequence[tuple[float, float]],
    gt_boxes: Tensor,
    *,
    sigma: float,
) -> Tensor:
    """The object that each point of an image belongs to: (R,) in 0..G-1, or G where to none.

    A level takes the objects with low <= sqrt(width * height) <= high. Where foveas overlap, the
    point is the smallest object's, and of equally small ones the last one's.

    Args:
        centers: one (Ri, 2) a level, see `fovea_mask`.
        strides: one a level, in pixels.
        scale_ranges: (low, high) of each level, in pixels.
        gt_boxes: (G, 4) XYXY in pixels.
        sigma: see `fovea_mask`.
    """
    num_objects = len(gt_boxes)
    scales = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(dim=1).sqrt()
    # As published: the larger first, and each object overwrites what it shares with those before.
    order = scales.argsort(descending=True, stable=True)
    gt_boxes, scales = gt_boxes[order], scales[order]
    position = torch.arange(1, num_objects + 1, dtype=torch.int32, device=gt_boxes.device)
    last = []
    for centers_i, stride, (low, high) in zip(centers, strides, scale_ranges, strict=True):
        mask = fovea_mask(centers_i, stride, gt_boxes, sigma)
        mask &= (scales >= low) & (scales <= high)
        none = position.new_zeros(len(mask), 1)
        last.append(torch.cat([none, mask * position], dim=1).amax(dim=1))
    return torch.cat([order.new_tensor([num_objects]), order])[torch.cat(last).long()]
