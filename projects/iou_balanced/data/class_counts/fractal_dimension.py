"""How evenly the objects of a class are spread over the images (FRACAL, arXiv 2410.11774).

Shapes: n objects, K classes.
"""

from collections.abc import Sequence

import numpy as np
from detectron2.structures import BoxMode

LARGEST_GRID = 64
"""Cells along a side of the finest grid, as in the authors' code."""
_FEWEST = 4
"""A class with fewer objects has dimension 1, as in the authors' code."""


def fractal_dimensions(
    centers: np.ndarray, classes: np.ndarray, num_classes: int, *, largest_grid: int = LARGEST_GRID
) -> np.ndarray:
    """The box-counting dimension of each class's centres, laid over each other in one unit square.

    With N_G the cells of a G x G grid in which the class has a centre, it is the slope of the
    least-squares line of log N_G over log G, for G from 1 on, as long as the class has G^2 objects
    at least: 2 for centres all over the image, 1 along a line. Below 1 it is 1.

    Args:
        centers: (n, 2) x and y in [0, 1], shares of the image's width and height.
        classes: (n,) in [0, K).
        num_classes: K.
        largest_grid: of G.

    Returns:
        (K,) float64, in [1, 2].
    """
    counts = np.bincount(classes, minlength=num_classes)
    grids = np.arange(1, largest_grid + 1)
    occupied = np.ones((largest_grid, num_classes))
    for i, grid in enumerate(grids):
        cells = np.clip((centers * grid).astype(np.int64), 0, grid - 1)
        seen = np.zeros(num_classes * grid**2, dtype=bool)
        seen[(classes * grid + cells[:, 1]) * grid + cells[:, 0]] = True
        occupied[i] = seen.reshape(num_classes, -1).sum(axis=1)
    found = np.ones(num_classes)
    for k in np.flatnonzero(counts >= _FEWEST):
        used = grids**2 <= counts[k]
        x, y = np.log(grids[used]), np.log(occupied[used, k])
        x = x - x.mean()
        found[k] = max((x * y).sum() / (x**2).sum(), 1.0)
    return found


def centers_of(
    dataset_dicts: Sequence[dict], *, ignore_difficult: bool = False
) -> tuple[np.ndarray, np.ndarray] | None:
    """The boxes' centres and classes as `fractal_dimensions` wants them; crowds do not count.

    Args:
        dataset_dicts: in Detectron2's format.
        ignore_difficult: see `ClassCounts.from_dicts`.

    Returns:
        (n, 2) and (n,); None where images have no size, or boxes are of another kind.
    """
    boxes, sizes, classes = [], [], []
    for record in dataset_dicts:
        for a in record.get("annotations", ()):
            if a.get("iscrowd") or (ignore_difficult and a.get("difficult")):
                continue
            mode = a.get("bbox_mode")
            if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS) or "bbox" not in a:
                return None
            if not record.get("width") or not record.get("height"):
                return None
            x, y, *far = (float(v) for v in a["bbox"])
            is_far = mode == BoxMode.XYXY_ABS
            boxes.append(
                [(x + far[0]) / 2, (y + far[1]) / 2] if is_far else [x + far[0] / 2, y + far[1] / 2]
            )
            sizes.append((record["width"], record["height"]))
            classes.append(a["category_id"])
    centers = np.array(boxes, dtype=np.float64).reshape(-1, 2)
    return centers / np.array(sizes, dtype=np.float64).reshape(-1, 2), np.array(classes, dtype=int)
