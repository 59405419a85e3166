"""Boxes from CenterNet's maps: peaks of the heat map, offsets and sizes (arXiv 1904.07850).

Shapes: N images, K foreground classes, H x W cells of the output map, P places, M detections of
an image. Cells are indices into a map, (y, x); the channels of the offset map are (x, y), those of
the size map (width, height), both in cells.
"""

import torch
from torch import Tensor

from iou_balanced.losses.checks import upcast


def values_at(maps: Tensor, image_index: Tensor, cells: Tensor) -> Tensor:
    """(P, D) values of maps (N, D, H, W) in the `cells` (P, 2), y and x, of images (P,)."""
    return maps[image_index, :, cells[:, 0], cells[:, 1]]


def decode_at(cells: Tensor, offset: Tensor, size: Tensor, stride: int = 4) -> Tensor:
    """Boxes around the centres in given cells (arXiv 1904.07850, Section 4); differentiable.

    A predicted size below 0 gives x2 < x1 or y2 < y1, as published; IoU is then 0.

    Args:
        cells: (..., 2) y and x, integers.
        offset: (..., 2) x and y, in cells.
        size: (..., 2) width and height, in cells.
        stride: pixels of a cell.

    Returns:
        (..., 4) XYXY in pixels of the input, not clipped; float32 (float64 for float64).

    Raises:
        ValueError: the shapes differ or do not end in 2.
    """
    if not cells.shape == offset.shape == size.shape or cells.shape[-1:] != (2,):
        raise ValueError(
            "Expected arguments `cells`, `offset` and `size` of the same shape (..., 2), "
            f"but got {tuple(cells.shape)}, {tuple(offset.shape)} and {tuple(size.shape)}"
        )
    center, half = cells.flip(-1) + upcast(offset), upcast(size) / 2
    return torch.cat([center - half, center + half], dim=-1) * stride


def find_peaks(heatmap_scores: Tensor, topk: int = 100) -> tuple[Tensor, Tensor, Tensor]:
    """The best peaks of each image over all classes (arXiv 1904.07850, Section 4).

    A peak is an element not below any of its 8 neighbours of the same class: equal to the 3 x 3
    maximum. Every cell of a plateau is thus a peak, neighbours that saturate at score 1 among
    them; there is no NMS. Which of equal scores comes first, or is the last to be among the
    `topk`, is not defined. An image with fewer peaks is filled up with elements of score 0.

    Args:
        heatmap_scores: (N, K, H, W) in [0, 1]: after the sigmoid, which is best taken in float32,
            because half precision makes plateaus.
        topk: most peaks of an image.

    Returns:
        scores (N, M), descending, the heat map's values in float32 (float64 for float64); classes
        (N, M) int64; cells (N, M, 2) int64, y and x. M = min(topk, K * H * W).
    """
    heatmap_scores = upcast(heatmap_scores)
    height, width = heatmap_scores.shape[2:]
    is_lower = heatmap_scores != _highest_around(heatmap_scores)
    peaks = heatmap_scores.masked_fill(is_lower, 0).flatten(2)
    # As the original: the best of each class, then the best of these.
    scores, index = peaks.topk(min(topk, height * width), dim=2)
    per_class = scores.shape[2]
    scores, best = scores.flatten(1).topk(min(topk, scores.shape[1] * per_class), dim=1)
    index = index.flatten(1).gather(1, best)
    y = index.div(width, rounding_mode="floor")
    return scores, best.div(per_class, rounding_mode="floor"), torch.stack([y, index % width], -1)


@torch.no_grad()
def _highest_around(maps: Tensor) -> Tensor:
    """`max_pool2d(maps, 3, stride=1, padding=1)`, along one side and then along the other.

    On a CPU PyTorch's pooling of contiguous maps is not vectorised, and takes over ten times as
    long.
    """
    rows = maps.clone()
    torch.maximum(rows[..., :-1], maps[..., 1:], out=rows[..., :-1])
    torch.maximum(rows[..., 1:], maps[..., :-1], out=rows[..., 1:])
    highest = rows.clone()
    torch.maximum(highest[..., :-1, :], rows[..., 1:, :], out=highest[..., :-1, :])
    torch.maximum(highest[..., 1:, :], rows[..., :-1, :], out=highest[..., 1:, :])
    return highest


def decode(
    heatmap_scores: Tensor, offset: Tensor, size: Tensor, topk: int = 100, stride: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of a batch (arXiv 1904.07850, Section 4): see `find_peaks` and `decode_at`.

    As the original, it clips neither scores nor boxes, and needs no threshold; elements of score
    0 fill up an image with few peaks, and are dropped by any score threshold of at least 0.

    Args:
        heatmap_scores: (N, K, H, W) in [0, 1].
        offset: (N, 2, H, W) x and y, in cells.
        size: (N, 2, H, W) width and height, in cells.
        topk: most detections of an image, over all classes.
        stride: pixels of a cell.

    Returns:
        boxes (N, M, 4) XYXY in pixels of the input and scores (N, M), descending, both float32
        (float64 for float64), and classes (N, M) int64. M = min(topk, K * H * W).

    Raises:
        ValueError: a shape is not as above, or `topk` is below 1.
    """
    _check_maps(heatmap_scores, offset, size)
    if topk < 1:
        raise ValueError(f"Expected argument `topk` to be at least 1, but got {topk}")
    scores, classes, cells = find_peaks(heatmap_scores, topk)
    images = torch.arange(len(cells), device=cells.device).repeat_interleave(scores.shape[1])
    at = (values_at(x, images, cells.flatten(0, 1)).view(cells.shape) for x in (offset, size))
    return decode_at(cells, *at, stride), scores, classes


def merge_flipped(
    heatmap_scores: Tensor, offset: Tensor, size: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The flip test: maps of N images from those of the images and of their mirror images.

    As the original: heat map and size are the mean of both, the offset is the image's own.

    Args:
        heatmap_scores: (2N, K, H, W) in [0, 1]: first all N images, then their mirror images
            (left and right exchanged) in the same order.
        offset: (2N, 2, H, W) x and y, in cells.
        size: (2N, 2, H, W) width and height, in cells.

    Returns:
        The three maps, of N images each.

    Raises:
        ValueError: a shape is not as above, or the number of images is odd.
    """
    _check_maps(heatmap_scores, offset, size)
    if len(heatmap_scores) % 2:
        raise ValueError(
            "Expected argument `heatmap_scores` to have images and as many mirror images, "
            f"but got {len(heatmap_scores)} together"
        )

    def mean(maps: Tensor) -> Tensor:
        own, mirrored = maps.chunk(2)
        return (own + mirrored.flip(3)) / 2

    return mean(heatmap_scores), offset.chunk(2)[0], mean(size)


def _check_maps(heatmap_scores: Tensor, offset: Tensor, size: Tensor) -> None:
    """Check shapes and dtypes.

    Raises:
        ValueError: they are not as `decode` says.
    """
    if heatmap_scores.dim() != 4 or not heatmap_scores.is_floating_point():
        raise ValueError(
            "Expected argument `heatmap_scores` to be float of shape (N, K, H, W), "
            f"but got {heatmap_scores.dtype} of shape {tuple(heatmap_scores.shape)}"
        )
    num_images, _, height, width = heatmap_scores.shape
    for name, maps in [("offset", offset), ("size", size)]:
        if maps.shape != (num_images, 2, height, width):
            raise ValueError(
                f"Expected argument `{name}` to have the shape {(num_images, 2, height, width)} "
                f"(N, 2, H, W), but got {tuple(maps.shape)}"
            )
