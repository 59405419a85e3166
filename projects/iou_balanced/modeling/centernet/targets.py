"""What CenterNet learns: heat maps of object centres, offsets and sizes (arXiv 1904.07850).

Shapes: N images, K foreground classes, H x W cells of the output map, G objects of an image,
P objects of the batch that have an area on the map, C different centres of them.

Cells are indices into a map, (y, x); offsets and sizes are the channels of the published maps,
(x, y) and (width, height).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .target_checks import check_arguments, raise_bad_box

_CELLS_AT_ONCE = 2**20
"""Cells of windows that are drawn together. 32 images of COCO have some ten thousands in all."""


class CenterTargets(NamedTuple):
    """Targets of a batch. The objects come in the order of the images and of their boxes.

    Attributes:
        heatmap: (N, K, H, W) float32 in [0, 1]; exactly 1 at the centres and nowhere else.
        image_index: (P,) int64, the image that each object is on.
        gt_classes: (P,) int64 in [0, K).
        cells: (P, 2) int64, y and x of the cell that holds the object's centre.
        offset: (P, 2) float32 in [0, 1), x and y: centre / stride - cell.
        size: (P, 2) float32 above 0, width and height in cells.
        boxes: (P, 4) float32 XYXY in pixels of the input: what cell, offset and size decode to,
            the ground truth clipped to the map. IoUs and IoU losses are taken with it.
        num_centers: C.
    """

    heatmap: Tensor
    image_index: Tensor
    gt_classes: Tensor
    cells: Tensor
    offset: Tensor
    size: Tensor
    boxes: Tensor
    num_centers: int

    @property
    def center_index(self) -> Tensor:
        """(P,) int64, index of each object's centre into the flattened heat map."""
        y, x = self.cells.unbind(1)
        return _flat_index(self.heatmap.shape, self.image_index, self.gt_classes, y, x)

    def max_per_center(self, values: Tensor) -> Tensor:
        """(C,) the largest of the `values` (P,) of the objects that share a centre.

        In the order of `(heatmap == 1).nonzero()`, as the IoU-balanced loss of heat maps takes
        `pos_iou`: objects of one class in one cell are one centre of the heat map.
        """
        index, order = self.center_index.sort()
        center = _is_first(index).cumsum(0) - 1
        return values.new_zeros(self.num_centers).scatter_reduce(
            0, center, values[order], "amax", include_self=False
        )


def gaussian_radius(heights: Tensor, widths: Tensor, min_overlap: float = 0.7) -> Tensor:
    """Radius of the Gaussian around a centre, from the size of the object, as CenterNet has it.

    It is meant as the distance that both corners of a box may be moved by with its IoU still
    `min_overlap` (CornerNet, arXiv 1808.01244, Section 3.2), the least of three cases: one corner
    moves inwards and one outwards, both inwards, both outwards; each is a quadratic equation.

    The original's roots are not the equations': all three are (b + sqrt(b^2 - 4ac)) / 2, not
    divided by a, and the first two are the larger root. So the third is always the least, and it
    is a = 4 * min_overlap times the true one of that case: for 10 x 10 cells 2.73 instead of 0.82.
    CornerNet's authors corrected it (princeton-vl/CornerNet#37, 3e71377); CenterNet, and its
    results, keep it (xingyizhou/CenterNet#273, #171, 4c50fd3). This is CenterNet's.

    Args:
        heights: of any shape, in cells; the original rounds them up to integers before.
        widths: of the same shape, likewise.
        min_overlap: in (0, 1).

    Returns:
        float64 in cells, as the original: in float32 some radii would be rounded down to one less.

    Raises:
        ValueError: `min_overlap` is not in (0, 1).
    """
    if not 0 < min_overlap < 1:
        raise ValueError(f"Expected argument `min_overlap` to be in (0, 1), but got {min_overlap}")
    heights, widths = heights.double(), widths.double()
    total = heights + widths
    cases = (
        (1, total, widths * heights * (1 - min_overlap) / (1 + min_overlap)),
        (4, 2 * total, (1 - min_overlap) * widths * heights),
        (4 * min_overlap, -2 * min_overlap * total, (min_overlap - 1) * widths * heights),
    )
    return torch.stack([(b + _sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases]).amin(dim=0)


def _sqrt(x: Tensor) -> Tensor:
    """The correctly rounded root: on some CPUs torch's is the neighbor, and a radius one less."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


@torch.no_grad()
def center_targets(
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor],
    num_classes: int,
    output_size: tuple[int, int],
    stride: int = 4,
) -> CenterTargets:
    """CenterNet's targets of a batch (arXiv 1904.07850, Section 3), on the device of the boxes.

    As the original: boxes are clipped to [0, W - 1] x [0, H - 1] cells, and those without an area
    then are left out, so that every centre is on the map. The Gaussian has the integer part of
    `gaussian_radius` as radius r, whatever the class, sigma = (2r + 1) / 6, and a window of 2r + 1
    cells, cut at the border; with radius 0 it is its centre alone. Gaussians of one class are
    merged by their maximum. Objects that share a cell stay objects of their own, each with its
    offset and size; of one class they are one centre of the heat map, of two classes two. The
    original's cut of values below the float64 epsilon has no effect: a corner of the window,
    exp(-(6r / (2r + 1))^2), is above exp(-9). Its limit of 128 objects an image is not there.

    No loop over objects: all windows are listed cell by cell and scattered at once (a million cells
    at a time, with 70 bytes for each). A GPU is waited for once, for the number of objects, of
    cells, of centres, and of bad boxes.

    Args:
        gt_boxes: N tensors (G, 4), XYXY in pixels of the network's input; G may be 0. With N = 0
            the result is on the CPU.
        gt_classes: N tensors (G,), integers in [0, K).
        num_classes: K.
        output_size: H and W of the heat map.
        stride: pixels of a cell.

    Raises:
        ValueError: a shape or dtype is not as above, a box is not finite, or a class not in [0, K).
    """
    objects, windows = _place_objects(gt_boxes, gt_classes, num_classes, output_size, stride)
    shape = (len(gt_boxes), num_classes, *output_size)
    targets = CenterTargets(heatmap=objects["boxes"].new_zeros(shape), **objects)
    _draw_gaussians(targets, windows)
    return targets


@torch.no_grad()
def count_centers(
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor],
    num_classes: int,
    output_size: tuple[int, int],
    stride: int = 4,
) -> tuple[int, int]:
    """P and C of `center_targets`, without its drawing; see `center_targets` for the arguments."""
    objects, _ = _place_objects(gt_boxes, gt_classes, num_classes, output_size, stride)
    return len(objects["cells"]), objects["num_centers"]


class _Windows(NamedTuple):
    """Where the Gaussians of the P objects are.

    Attributes:
        first, last: (P, 2) int64, y and x of the window's corners, on the map.
        radius: (P,) int64, of the Gaussian.
        num_cells: (P,) int64, cells of the window.
        total: sum of `num_cells`.
    """

    first: Tensor
    last: Tensor
    radius: Tensor
    num_cells: Tensor
    total: int


def _place_objects(gt_boxes, gt_classes, num_classes, output_size, stride) -> tuple[dict, _Windows]:
    """The attributes of `CenterTargets` but the heat map, and what is to be drawn there."""
    check_arguments(gt_boxes, gt_classes, num_classes, output_size, stride)
    height, width = output_size
    if len(gt_boxes):
        boxes = torch.cat([x.float() for x in gt_boxes])
        classes = torch.cat(list(gt_classes)).long()
    else:
        boxes, classes = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    counts = torch.tensor([len(x) for x in gt_boxes], dtype=torch.int64)
    image_index = torch.arange(len(counts)).repeat_interleave(counts)
    image_index = image_index.to(boxes.device, non_blocking=True)

    bad = ~torch.isfinite(boxes).all(dim=1) | (classes < 0) | (classes >= num_classes)
    x = (boxes[:, 0::2] / stride).clamp(0, width - 1)  # left and right
    y = (boxes[:, 1::2] / stride).clamp(0, height - 1)  # top and bottom
    size = torch.stack([x[:, 1] - x[:, 0], y[:, 1] - y[:, 0]], dim=1)
    kept = (size > 0).all(dim=1)
    ceiled = size.clamp(min=0).ceil()
    radius = gaussian_radius(ceiled[:, 1], ceiled[:, 0]).long()
    center = torch.stack([x.sum(dim=1), y.sum(dim=1)], dim=1) / 2
    cells = center.floor().long().flip(1)
    first = (cells - radius[:, None]).clamp(min=0)
    last = cells + radius[:, None]
    last = torch.stack([last[:, 0].clamp(max=height - 1), last[:, 1].clamp(max=width - 1)], dim=1)
    num_cells = (last - first + 1).prod(dim=1) * kept

    shape = torch.Size([len(gt_boxes), num_classes, height, width])
    center_index = _flat_index(shape, image_index, classes, *cells.unbind(1))
    center_index = torch.where(kept, center_index, -1).sort().values
    num_centers = (_is_first(center_index) & (center_index >= 0)).sum()

    # The only wait for the device.
    numbers = torch.stack([kept.sum(), num_cells.sum(), num_centers, bad.sum()])
    num_kept, total, num_centers, num_bad = numbers.tolist()
    if num_bad:
        raise_bad_box(gt_boxes, gt_classes, num_classes)
    order = (~kept).byte().argsort(stable=True)[:num_kept]
    objects = {
        "image_index": image_index,
        "gt_classes": classes,
        "cells": cells,
        "offset": center - cells.flip(1),
        "size": size,
        "boxes": torch.stack([x, y], dim=2).flatten(1) * stride,
    }
    objects = {name: values[order] for name, values in objects.items()}
    windows = _Windows(first[order], last[order], radius[order], num_cells[order], total)
    return {**objects, "num_centers": num_centers}, windows


def _draw_gaussians(targets: CenterTargets, windows: _Windows) -> None:
    """Draw all objects into `targets.heatmap`."""
    first, last, radius, num_cells, total = windows
    heatmap, center_index = targets.heatmap.view(-1), targets.center_index
    map_width, window_width = targets.heatmap.shape[3], (last - first + 1)[:, 1]
    factor = -18.0 / (2 * radius + 1).float().square()  # -1 / (2 sigma^2)
    corner = first - targets.cells

    end = num_cells.cumsum(0)
    for done in range(0, total, _CELLS_AT_ONCE):
        position = torch.arange(done, min(done + _CELLS_AT_ONCE, total), device=end.device)
        owner = torch.searchsorted(end, position, right=True)  # the object of each window cell
        position -= (end - num_cells)[owner]
        width = window_width[owner]
        dy = position.div(width, rounding_mode="floor") + corner[owner, 0]
        dx = position.remainder(width) + corner[owner, 1]
        value = (factor[owner] * (dy * dy + dx * dx)).exp_()
        index = center_index[owner] + (dy * map_width + dx)
        heatmap.scatter_reduce_(0, index, value, "amax")
    # The centres exactly 1, whatever the device's exp(0). The next cell, exp(-18 / (2r + 1)^2), is
    # below 1 in float32 up to radius 10^4, that of maps of 10^9 cells.
    heatmap.index_fill_(0, center_index, 1.0)


def _flat_index(shape: torch.Size, images: Tensor, classes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    _, num_classes, height, width = shape
    return ((images * num_classes + classes) * height + y) * width + x


def _is_first(index: Tensor) -> Tensor:
    """(P,) whether an element of a sorted tensor differs from the one before it."""
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    return first
