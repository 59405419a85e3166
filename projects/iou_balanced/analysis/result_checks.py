"""What no detector writes on purpose: scores in percent, boxes as corners or shares of the image.

Letters: D detections.
"""

from collections.abc import Callable, Sequence

import numpy as np

from iou_balanced.formats.plausibility import (
    FEW_BOXES,
    REFUSED_FORMAT,
    REFUSED_SHARES,
    TOLD_FORMAT,
)

__all__ = ["check_boxes", "check_scores", "first_few"]

_NUM_NAMED = 5
_ROUNDING = 1e-3  # a softmax in half precision may give 1.0005


def first_few(places: Sequence[int], describe: Callable[[int], str]) -> str:
    """The first five with commas, and how many more there are."""
    named = ", ".join(describe(int(i)) for i in places[:_NUM_NAMED])
    more = len(places) - _NUM_NAMED
    return f"{named} and {more} more" if more > 0 else named


def check_scores(score: np.ndarray, describe: Callable[[int], str], name: str) -> None:
    """Refuse scores that are no probabilities.

    Args:
        score: (D,) finite.
        describe: says where a detection stands.
        name: of the file.

    Raises:
        ValueError: scores above 1, or below 0.
    """
    for places, question in (
        (np.flatnonzero(score > 1 + _ROUNDING), "are they percent? Divide them by 100"),
        (np.flatnonzero(score < 0), "are they logits? Take their sigmoid"),
    ):
        if len(places):
            raise ValueError(
                f"{name}: {len(places)} of {len(score)} scores are not in 0..1 (they reach from "
                f"{score.min():g} to {score.max():g}); {question}. First: "
                f"{first_few(places, describe)}"
            )


def check_boxes(
    boxes: np.ndarray,
    sizes: np.ndarray,
    describe: Callable[[int], str],
    name: str,
    warn: Callable[[str], None],
) -> None:
    """Refuse boxes of another format, by the thresholds of `BoxFormatCheck`; warn of odd ones.

    Args:
        boxes: (D, 4) x, y, width, height, finite.
        sizes: (D, 2) width and height of the image, 0 where unknown.
        describe: see `check_scores`.
        name: see `check_scores`.
        warn: called with what is odd and can be evaluated.

    Raises:
        ValueError: negative widths or heights; boxes that are corners, or shares of the image.
    """
    corner, sides = boxes[:, :2], boxes[:, 2:]
    _refuse_shares(boxes, sizes, describe, name)
    negative = np.flatnonzero((sides < 0).any(axis=1))
    if len(negative):
        raise ValueError(
            f"{name}: {len(negative)} of {len(boxes)} boxes have a negative width or height: "
            f"COCO's bbox is [x, y, width, height]. First: {first_few(negative, describe)}"
        )
    known = (sizes > 0).all(axis=1)
    slack = np.maximum(1.0, 0.01 * sizes)
    leaves = known & (corner + sides > sizes + slack).any(axis=1)
    as_corners = known & (corner >= 0).all(axis=1) & (sides > corner).all(axis=1)
    as_corners &= (sides <= sizes + 1).all(axis=1)
    other = np.flatnonzero(leaves & as_corners)
    text = (
        f"{name}: {len(other)} of {len(boxes)} boxes leave their image as [x, y, width, height], "
        "COCO's bbox, and fit when they are read as two corners, [x0, y0, x1, y1]: is the file in "
        f"corners? Subtract x0 and y0 from the last two. First: {first_few(other, describe)}"
    )
    # Zero-sized boxes are corners too, where both are the same.
    fit = as_corners | (known & (sides >= corner).all(axis=1))
    is_other = len(other) >= REFUSED_FORMAT * len(boxes) and fit[known].sum() >= 0.99 * known.sum()
    if len(boxes) >= FEW_BOXES and is_other:
        raise ValueError(text)
    if len(other) >= max(TOLD_FORMAT * len(boxes), 2):
        warn(text)
    beyond = leaves | (known & (corner < -slack).any(axis=1))
    outside = np.flatnonzero(beyond)
    if len(outside) and not len(other) >= max(TOLD_FORMAT * len(boxes), 2):
        warn(
            f"{name}: {len(outside)} of {len(boxes)} boxes leave their image; they are evaluated "
            f"as they are. First: {first_few(outside, describe)}"
        )
    empty = np.flatnonzero((sides == 0).any(axis=1))
    if len(empty):
        warn(
            f"{name}: {len(empty)} of {len(boxes)} boxes have no area, and can find nothing. "
            f"First: {first_few(empty, describe)}"
        )


def _refuse_shares(
    boxes: np.ndarray, sizes: np.ndarray, describe: Callable[[int], str], name: str
) -> None:
    is_share = (boxes >= 0).all(axis=1) & (boxes <= 1).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    is_share &= (boxes[:, 2:] < 1).any(axis=1) & (sizes.min(axis=1, initial=np.inf) >= 3)
    shares = np.flatnonzero(is_share)
    if len(shares) and len(shares) >= REFUSED_SHARES * len(boxes):
        raise ValueError(
            f"{name}: {len(shares)} of {len(boxes)} boxes are smaller than a pixel and lie in the "
            "first pixel of their image: are these shares of the image? COCO's bbox is in pixels: "
            "multiply by the image's width and height. First: "
            f"{first_few(shares, describe)}"
        )
