"""FoveaBox (arXiv 1904.03797), as naively as it can be written: a reference of the tests.

Loops over objects and cells, one number at a time, written from the paper and from
what its authors' code, now MMDetection's, does where the paper leaves it open; not from the
package. The arithmetic of the regions is exact (fractions). Boxes are XYXY in pixels; N images, P
positives.
"""

import math
import random
from fractions import Fraction
from typing import NamedTuple

import torch

from ...losses import paper
from ..ssd.reference_ssd import iou


class Level(NamedTuple):
    stride: int
    base: int
    """Length that the targets are divided by, in pixels."""
    smallest: int
    largest: int
    """Bounds of the root of an object's area, in pixels; both belong to the level."""


# P3 to P7. The paper's ranges are [r / 2, 2 r] with r = 32 to 512 px; the authors' settings open
# the first downwards and the last upwards.
LEVELS = (
    Level(8, 16, 1, 64),
    Level(16, 32, 32, 128),
    Level(32, 64, 64, 256),
    Level(64, 128, 128, 512),
    Level(128, 256, 256, 2048),
)
SHRINK = Fraction(2, 5)


def area(box):
    x1, y1, x2, y2 = (Fraction(x) for x in box)
    return (x2 - x1) * (y2 - y1)


def belongs_to(box, level):
    return level.smallest**2 <= area(box) <= level.largest**2


def cell_range(low, high, stride, count):
    """First and last cell along one axis whose centre lies in the fovea, as the code finds them.

    The fovea is the object shrunk around its centre, its ends included. An index beyond the map
    becomes the cell at the border, so that a fovea between the border and the first centre still
    has its cell. Elsewhere a fovea without a centre gives first > last: no cell.
    """
    low, high = Fraction(low), Fraction(high)
    centre, half = (low + high) / 2, (high - low) / 2 * SHRINK
    first = math.ceil((centre - half) / stride - Fraction(1, 2))
    last = math.floor((centre + half) / stride - Fraction(1, 2))
    return min(max(first, 0), count - 1), min(max(last, 0), count - 1)


def fovea(box, level, height, width):
    """The cells (row, column) of one object on a map of height x width cells."""
    left, right = cell_range(box[0], box[2], level.stride, width)
    top, bottom = cell_range(box[1], box[3], level.stride, height)
    cells = []
    for row in range(height):
        for column in range(width):
            if top <= row <= bottom and left <= column <= right:
                cells.append((row, column))
    return cells


def assign(gt_boxes, sizes, levels=LEVELS):
    """{(row, column): objects} for each level; a cell that is missing is background.

    Where foveas overlap, the smallest object wins; all objects of that area are listed, because
    neither the paper nor the code says which of them it is.

    Args:
        gt_boxes: boxes of one image.
        sizes: (height, width) in cells, for each level.
    """
    result = []
    for level, (height, width) in zip(levels, sizes, strict=True):
        claims = {}
        for g in range(len(gt_boxes)):
            if not belongs_to(gt_boxes[g], level):
                continue
            for cell in fovea(gt_boxes[g], level, height, width):
                claims.setdefault(cell, []).append(g)
        for cell, objects in claims.items():
            # The coordinates came from float32, and with them the areas' last digits.
            limit = min(area(gt_boxes[g]) for g in objects) * (1 + Fraction(1, 10**5))
            claims[cell] = [g for g in objects if area(gt_boxes[g]) <= limit]
        result.append(claims)
    return result


def encode(centre, box, base):
    """Logarithms of the distances to the four sides over `base`, within 1/16 and 16."""
    x, y = centre
    target = []
    for distance in (x - box[0], y - box[1], box[2] - x, box[3] - y):
        target.append(math.log(min(max(distance / base, 1 / 16), 16)))
    return target


def decode(centre, delta, base):
    """The box of a prediction."""
    x, y = centre
    left, top, right, bottom = (base * math.exp(number) for number in delta)
    return (x - left, y - top, x + right, y + bottom)


def foveabox_loss(
    logits,
    deltas,
    labels,
    gt_boxes,
    centres,
    bases,
    *,
    eta=0,
    lam=0,
    weight=1.0,
    beta=0.11,
    normalize=False,
    alpha=0.4,
    gamma=1.5,
):
    """Focal loss over P + N, and smooth L1 over P (over 1 where there are no positives).

    eta, lam, weight and normalize are those of IoU-balanced losses (arXiv 1908.05641, Eq. 3 to
    7); eta = lam = 0 with weight 1 is FoveaBox itself.

    Args:
        logits, deltas: (N, R, K) and (N, R, 4), float64.
        labels: N lists of R numbers: -1 ignored, 0 to K - 1, K background.
        gt_boxes: N lists of R boxes, the object of each cell.
        centres, bases: R points (x, y), and the `base` of their levels.

    Returns:
        The two losses, scalars with gradient.
    """
    num_images, num_cells, num_classes = logits.shape
    positives, flat_labels = [], []
    for n in range(num_images):
        for r in range(num_cells):
            flat_labels.append(labels[n][r])
            if 0 <= labels[n][r] < num_classes:
                positives.append((n, r))

    ious, targets = [], []
    for n, r in positives:
        regressed = decode(centres[r], deltas[n, r].tolist(), bases[r])
        ious.append(iou(regressed, gt_boxes[n][r]))
        targets.append(encode(centres[r], gt_boxes[n][r], bases[r]))
    rows = paper.iou_balanced_focal_terms(
        logits.reshape(-1, num_classes), flat_labels, ious, eta=eta, alpha=alpha, gamma=gamma
    )
    loss_cls = sum(term for row in rows for term in row) / (len(positives) + num_images)
    if not positives:
        return loss_cls, deltas.sum() * 0.0
    table = paper.iou_balanced_smooth_l1_terms(
        torch.stack([deltas[n, r] for n, r in positives]),
        torch.tensor(targets, dtype=torch.float64),
        ious,
        lam=lam,
        weight=weight,
        beta=beta,
        normalize=normalize,
    )
    return loss_cls, sum(term for row in table for term in row) / len(positives)


# Hand work on an image of 128 x 160 px (maps of 16 x 20, 8 x 10, 4 x 5, 2 x 3 and 1 x 2 cells): the
# objects, and what is positive, (level, rows, columns, object). A centre is (i + 1 / 2) * stride,
# so 4, 12, 20, ... on P3, 8, 24, 40, ... on P4 and 16, 48, 80, ... on P5.
IMAGE = (128, 160)
BY_HAND = {
    # 64 px belong to P3, P4 and P5, bounds included. The fovea is 48 -+ 0.4 * 32 = 35.2 to 60.8:
    # centres 36 to 60 (cells 4 to 7), 40 and 56 (2 and 3), and 48 (1).
    "three levels": (
        [(16, 16, 80, 80)],
        [(0, (4, 7), (4, 7), 0), (1, (2, 3), (2, 3), 0), (2, (1, 1), (1, 1), 0)],
    ),
    # 32 px: P3 and P4. 56 -+ 6.4 = 49.6 to 62.4: 52 and 60 (6 and 7), 56 (3).
    "two levels": ([(40, 40, 72, 72)], [(0, (6, 7), (6, 7), 0), (1, (3, 3), (3, 3), 0)]),
    # 8.6 to 9.4 lies between the centres 4 and 12.
    "no centre": ([(8, 40, 10, 81)], []),
    # 0.6 to 1.4 lies before the first centre, and 158.6 to 159.4 after the last, 156: the cell at
    # the border. Rows: 60.5 -+ 8.2 = 52.3 to 68.7: 60 and 68 (7 and 8).
    "left border": ([(0, 40, 2, 81)], [(0, (7, 8), (0, 0), 0)]),
    "right border": ([(158, 40, 160, 81)], [(0, (7, 8), (19, 19), 0)]),
    # 96 px, P4 and P5: 64 -+ 19.2 = 44.8 to 83.2: 56 and 72 (3 and 4), 48 and 80 (1 and 2). 42 px,
    # P3 and P4: 69 -+ 8.4 = 60.6 to 77.4: 68 and 76 (8 and 9), 72 (4), where the smaller one wins.
    "overlap": (
        [(48, 48, 90, 90), (16, 16, 112, 112)],
        [
            (0, (8, 9), (8, 9), 0),
            (1, (3, 4), (3, 4), 1),
            (1, (4, 4), (4, 4), 0),
            (2, (1, 2), (1, 2), 1),
        ],
    ),
    # The root of 0.5 is below 1.
    "too small": ([(52, 52, 52.5, 53)], []),
    "no objects": ([], []),
}


def random_objects(seed, image, count):
    """Boxes of all sizes and shapes, at the border too, and some of them twice.

    Their edges, whole numbers + 0.33, keep the foveas' ends off the centres of cells, and no area
    is a bound of a level: rounding decides nothing.
    """
    numbers = random.Random(seed)

    def side(end):
        length = int(2 ** numbers.uniform(1, math.log2(end)))
        low = numbers.randint(0, end - length - 1) + 0.33
        border = [(0, length + 0.33), (end - length - 0.33, end)]
        return numbers.choice([(low, low + length)] * 5 + border)

    boxes = []
    while len(boxes) < count:
        (y1, y2), (x1, x2) = side(image[0]), side(image[1])
        if round((x2 - x1) * (y2 - y1), 3) not in [4**k for k in range(12)]:
            boxes += [(x1, y1, x2, y2)] * numbers.choice([1] * 9 + [2])
    return boxes
