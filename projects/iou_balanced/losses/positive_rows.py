"""Where the positives and the ignored rows of dense predictions are, and which rows go together.

Shapes: N images, Ri anchors of level i, R of all levels, K foreground classes, P positives.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

# Elements worked on at a time: on a CPU the temporaries stay in the cache, on a GPU it bounds
# their memory while kernels stay large.
_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}


class Chunk(NamedTuple):
    """Rows that are worked on together."""

    rows: slice
    """Of the flattened logits."""
    positives: slice
    """Which of the index's positives are in these rows."""
    ignored: Tensor
    """The rows to leave out, relative to the first."""


class RowIndex(NamedTuple):
    """What is where in the flattened (num_rows, K) logits of one level."""

    rows: Tensor
    """(P,) rows of the positives, ascending."""
    classes: Tensor
    """(P,)"""
    chunks: list[Chunk]


def index_rows(gt_labels: Tensor, num_classes: int) -> RowIndex:
    """The index of logits that came as one tensor; labels of any shape."""
    return index_levels(gt_labels.reshape(1, -1), [gt_labels.numel()], num_classes)[0][0]


def index_levels(
    gt_labels: Tensor, sizes: list[int], num_classes: int
) -> tuple[list[RowIndex], list[Tensor | slice]]:
    """Index each level's rows; a GPU is waited for three times, however many levels there are.

    Args:
        gt_labels: (N, R), the levels one after the other.
        sizes: Ri of each level.
        num_classes: K.

    Returns:
        The index of each level, and for each where its positives stand in `gt_labels[pos_mask]`.
    """
    num_images, device = len(gt_labels), gt_labels.device
    flat = gt_labels.reshape(-1)
    positives = ((flat >= 0) & (flat < num_classes)).nonzero().squeeze(1)
    ignored = (flat < 0).nonzero().squeeze(1)
    classes, order = flat[positives].long(), None
    if len(sizes) > 1:
        # From image by image to level by level, where each level's rows are together.
        positives, order = _level_major(positives, sizes, num_images).sort()
        ignored = _level_major(ignored, sizes, num_images).sort().values
        classes = classes[order]

    step = max(_CHUNK.get(device.type, 1 << 24) // max(num_classes, 1), 1)
    firsts = [num_images * first for first in itertools.accumulate([0, *sizes])]
    bounds = [[*range(first, last, step), last] for first, last in itertools.pairwise(firsts)]
    flat_bounds = torch.tensor(list(itertools.chain(*bounds)), device=device)
    # One transfer to the host for all chunks of all levels.
    places_of = torch.stack([torch.searchsorted(x, flat_bounds) for x in (positives, ignored)])
    splits = iter(zip(*places_of.tolist(), strict=True))

    levels: list[RowIndex] = []
    places: list[Tensor | slice] = []
    for first, limits in zip(firsts, bounds, strict=False):
        own = [next(splits) for _ in limits]
        begin, end = own[0][0], own[-1][0]
        chunks = [
            Chunk(
                slice(start - first, stop - first),
                slice(pos0 - begin, pos1 - begin),
                ignored[ignored0:ignored1] - start,
            )
            for (start, stop), ((pos0, ignored0), (pos1, ignored1)) in zip(
                itertools.pairwise(limits), itertools.pairwise(own), strict=True
            )
        ]
        levels.append(RowIndex(positives[begin:end] - first, classes[begin:end], chunks))
        places.append(slice(None) if order is None else order[begin:end])
    return levels, places


def _level_major(rows: Tensor, sizes: list[int], num_images: int) -> Tensor:
    """Rows of the flattened (N, R) -> of the levels' flattened (N, Ri), one after the other."""
    num_anchors = sum(sizes)
    image = torch.div(rows, max(num_anchors, 1), rounding_mode="floor")
    anchor = rows - image * num_anchors
    ends = torch.tensor(list(itertools.accumulate(sizes)), device=rows.device)
    size = torch.tensor(sizes, device=rows.device)
    level = torch.bucketize(anchor, ends, right=True)
    first = (ends - size)[level]
    return num_images * first + image * size[level] + anchor - first
