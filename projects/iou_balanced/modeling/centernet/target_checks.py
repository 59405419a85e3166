"""What is wrong with the ground truth of CenterNet. Shapes: G objects of an image, K classes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_arguments(
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor],
    num_classes: int,
    output_size: tuple[int, int],
    stride: int,
) -> None:
    """Check shapes, dtypes and sizes, which need no look at a tensor's values.

    Args:
        gt_boxes: as `center_targets` takes them.
        gt_classes: as `center_targets` takes them.
        num_classes: K.
        output_size: H and W of the heat map.
        stride: pixels of a cell.

    Raises:
        ValueError: one of them is something else.
    """
    if len(gt_boxes) != len(gt_classes):
        raise ValueError(
            "Expected arguments `gt_boxes` and `gt_classes` to have one tensor an image, "
            f"but got {len(gt_boxes)} and {len(gt_classes)}"
        )
    for i, (boxes, classes) in enumerate(zip(gt_boxes, gt_classes, strict=True)):
        if boxes.dim() != 2 or boxes.shape[1] != 4 or classes.shape != boxes.shape[:1]:
            raise ValueError(
                "Expected arguments `gt_boxes` and `gt_classes` to have the shapes (G, 4) and "
                f"(G,), but got {tuple(boxes.shape)} and {tuple(classes.shape)} for image {i}"
            )
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise ValueError(
                "Expected argument `gt_classes` to be of an integer dtype, "
                f"but got {classes.dtype} for image {i}"
            )
    if not all(v >= 1 for v in output_size) or len(output_size) != 2:
        raise ValueError(
            "Expected argument `output_size` to be a height and a width of at least 1, "
            f"but got {tuple(output_size)}"
        )
    for name, value in [("num_classes", num_classes), ("stride", stride)]:
        if not value >= 1:
            raise ValueError(f"Expected argument `{name}` to be at least 1, but got {value}")


def raise_bad_box(
    gt_boxes: Sequence[Tensor], gt_classes: Sequence[Tensor], num_classes: int
) -> None:
    """Name the first box that is not finite or whose class is not in [0, K).

    Raises:
        ValueError: there is one.
    """
    for i, (boxes, classes) in enumerate(zip(gt_boxes, gt_classes, strict=True)):
        for j, (box, c) in enumerate(zip(boxes.tolist(), classes.tolist(), strict=True)):
            if not torch.tensor(box).isfinite().all():
                raise ValueError(
                    f"Expected argument `gt_boxes` to be finite, but got {box} "
                    f"for box {j} of image {i}"
                )
            if not 0 <= c < num_classes:
                raise ValueError(
                    f"Expected argument `gt_classes` to be in 0..{num_classes - 1}, but got {c} "
                    f"for box {j} of image {i}"
                )
