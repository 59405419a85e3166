"""SSD (arXiv 1512.02325), as naively as it can be written: a reference of the tests.

Loops over boxes, one number at a time, written from the paper (sections 2.1 and 2.2) and from what
its authors' Caffe code does where the paper leaves it open, not from the package. Boxes are XYXY
in pixels; G objects, R default boxes, K classes, N images.
"""

import math

import torch

from ...losses import paper

# Cells along a side of each level, and pixels from one cell to the next. A step is a whole number,
# 8 for the 38 cells of 300 px, so that the last cells' centres can lie outside the image.
LEVELS = {
    300: [(38, 8), (19, 16), (10, 32), (5, 64), (3, 100), (1, 300)],
    512: [(64, 8), (32, 16), (16, 32), (8, 64), (4, 128), (2, 256), (1, 512)],
}
# 4 boxes a cell (1, 1', 2, 1/2) or 6 (also 3 and 1/3): the paper leaves 3 out of the first level
# and of the last two.
ASPECT_RATIOS = {300: [[2], [2, 3], [2, 3], [2, 3], [2], [2]]}
ASPECT_RATIOS[512] = [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]
# In percent of the image: the scale of the first level, and s_min of Eq. 4, which counts from the
# second level on. s_max is 90.
FIRST_AND_LOWEST = {
    (300, "voc"): (10, 20),
    (300, "coco"): (7, 15),
    (512, "voc"): (7, 15),
    (512, "coco"): (4, 10),
}


def box_sizes(image_size, dataset):
    """(s_k, s_k+1) of each level in pixels.

    Eq. 4 in whole percent, with the step rounded down; the code then cuts the sizes to whole
    pixels, which matters to 512 only (4% are 20.48 px, 20 here).
    """
    first, lowest = FIRST_AND_LOWEST[image_size, dataset]
    count = len(LEVELS[image_size])
    step = (90 - lowest) // (count - 2)
    percents = [first]
    for k in range(count):
        percents.append(lowest + step * k)
    sizes = []
    for k in range(count):
        sizes.append((image_size * percents[k] // 100, image_size * percents[k + 1] // 100))
    return sizes


def default_boxes_by_level(image_size, dataset):
    """A list of boxes for each level: rows, columns, then s, s', and the aspect ratios."""
    levels = []
    sizes = box_sizes(image_size, dataset)
    for i, (cells, step) in enumerate(LEVELS[image_size]):
        size, next_size = sizes[i]
        shapes = [(size, size)]
        between = math.sqrt(size * next_size)
        shapes.append((between, between))
        for ratio in ASPECT_RATIOS[image_size][i]:
            shapes.append((size * math.sqrt(ratio), size / math.sqrt(ratio)))
            shapes.append((size / math.sqrt(ratio), size * math.sqrt(ratio)))
        boxes = []
        for row in range(cells):
            for column in range(cells):
                x, y = (column + 0.5) * step, (row + 0.5) * step
                for width, height in shapes:
                    boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        levels.append(boxes)
    return levels


def default_boxes(image_size, dataset):
    """All default boxes (x1, y1, x2, y2), not clipped, in the order of the levels."""
    boxes = []
    for level in default_boxes_by_level(image_size, dataset):
        boxes += level
    return boxes


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def overlaps_of(gt_boxes, default_boxes):
    """{(default box, object): IoU} of the pairs that overlap; the code's bound is 1e-6."""
    overlaps = {}
    for r in range(len(default_boxes)):
        for g in range(len(gt_boxes)):
            overlap = iou(default_boxes[r], gt_boxes[g])
            if overlap > 1e-6:
                overlaps[r, g] = overlap
    return overlaps


def assign(gt_boxes, default_boxes, threshold=0.5):
    """The object of each default box, or -1: "Matching strategy" of section 2.2.

    First the best pair of all, again and again, each object and each default box once at most;
    an object that overlaps no box that is left gets none. Then every other default box takes its
    best object if their overlap reaches the threshold. Ties: the lower default box, then the
    lower object.
    """
    overlaps = overlaps_of(gt_boxes, default_boxes)
    matched = [-1] * len(default_boxes)
    waiting = set(range(len(gt_boxes)))
    while True:
        best = 0.0
        for (r, g), overlap in overlaps.items():
            if matched[r] == -1 and g in waiting and overlap > best:
                best, best_r, best_g = overlap, r, g
        if best == 0.0:
            break
        matched[best_r] = best_g
        waiting.remove(best_g)
    free = [r for r in range(len(default_boxes)) if matched[r] == -1]
    for r in free:
        best = 0.0
        for g in range(len(gt_boxes)):
            overlap = overlaps.get((r, g), 0.0)
            if overlap >= threshold and overlap > best:
                best = overlap
                matched[r] = g
    return matched


def is_an_assignment(matched, gt_boxes, default_boxes, threshold=0.5, tolerance=1e-5):
    """Whether `matched` is what the procedure of `assign` can give under some order of ties.

    An object smaller than the default boxes overlaps many of them equally, and rounding says
    which of them is the best: overlaps within the tolerance count as ties.
    """
    overlaps = overlaps_of(gt_boxes, default_boxes)

    def explain(taken, waiting):
        left = [(r, g) for r, g in overlaps if r not in taken and g in waiting]
        if not left:
            return rest_is_right(taken)
        best = max(overlaps[pair] for pair in left)
        for r, g in left:
            overlap = overlaps[r, g]
            possible = overlap >= best - tolerance and matched[r] == g
            if possible and explain(taken | {r}, waiting - {g}):
                return True
        return False

    def rest_is_right(taken):
        for r in range(len(default_boxes)):
            if r in taken:
                continue
            best = max((overlaps.get((r, g), 0.0) for g in range(len(gt_boxes))), default=0.0)
            if matched[r] == -1:
                if best >= threshold + tolerance:
                    return False
            else:
                overlap = overlaps.get((r, matched[r]), 0.0)
                if overlap < best - tolerance or overlap < threshold - tolerance:
                    return False
        return True

    return explain(frozenset(), frozenset(range(len(gt_boxes))))


def encode(gt_box, box, variances=(0.1, 0.2)):
    """Eq. 2 of the paper, divided by the code's variances."""
    width, height = box[2] - box[0], box[3] - box[1]
    gt_width, gt_height = gt_box[2] - gt_box[0], gt_box[3] - gt_box[1]
    return (
        ((gt_box[0] + gt_box[2]) / 2 - (box[0] + box[2]) / 2) / width / variances[0],
        ((gt_box[1] + gt_box[3]) / 2 - (box[1] + box[3]) / 2) / height / variances[0],
        math.log(gt_width / width) / variances[1],
        math.log(gt_height / height) / variances[1],
    )


def decode(delta, box, variances=(0.1, 0.2)):
    """The inverse of `encode`."""
    width, height = box[2] - box[0], box[3] - box[1]
    x = (box[0] + box[2]) / 2 + variances[0] * delta[0] * width
    y = (box[1] + box[3]) / 2 + variances[0] * delta[1] * height
    width *= math.exp(variances[1] * delta[2])
    height *= math.exp(variances[1] * delta[3])
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def background_loss(logits):
    """-log of the softmax of the last column, from a list of numbers."""
    largest = max(logits)
    return math.log(sum(math.exp(x - largest) for x in logits)) + largest - logits[-1]


def mine_hard_negatives(logits, labels, ratio=3):
    """Background rows of one image with the highest loss, `ratio` for each positive at most."""
    background = len(logits[0]) - 1
    positives = [r for r in range(len(labels)) if 0 <= labels[r] < background]
    negatives = [r for r in range(len(labels)) if labels[r] == background]
    negatives.sort(key=lambda r: background_loss(logits[r]), reverse=True)
    return negatives[: ratio * len(positives)]


def ssd_loss(
    logits,
    deltas,
    labels,
    gt_boxes,
    default_boxes,
    *,
    eta=0,
    lam=0,
    weight=1.0,
    beta=1.0,
    normalize=False,
    ratio=3,
):
    """Eq. 1 to 3, divided by the positives of the batch (by 1 where there are none).

    eta, lam, weight and normalize are those of IoU-balanced losses (arXiv 1908.05641, Eq. 3 to
    7); eta = lam = 0 with weight 1 is SSD itself, beta = 1 its smooth L1. The sums of Eq. 4 and 7
    run over all positives of the batch.

    Args:
        logits, deltas: (N, R, K + 1) and (N, R, 4), float64.
        labels: N lists of R numbers: -1 ignored, 0 to K - 1, K background.
        gt_boxes: N lists of R boxes, the object of each default box.
        default_boxes: R boxes.

    Returns:
        The two losses, scalars with gradient.
    """
    background = logits.shape[2] - 1
    positives, sampled = [], []
    for n in range(len(labels)):
        hard = mine_hard_negatives(logits[n].tolist(), labels[n], ratio)
        for r in range(len(labels[n])):
            if 0 <= labels[n][r] < background:
                positives.append((n, r))
                sampled.append((n, r))
            elif r in hard:
                sampled.append((n, r))
    divisor = max(len(positives), 1)
    if not sampled:
        return logits.sum() * 0.0, deltas.sum() * 0.0

    ious, targets = [], []
    for n, r in positives:
        regressed = decode(deltas[n, r].tolist(), default_boxes[r])
        ious.append(iou(regressed, gt_boxes[n][r]))
        targets.append(encode(gt_boxes[n][r], default_boxes[r]))
    sampled_labels = [labels[n][r] for n, r in sampled]
    sampled_logits = torch.stack([logits[n, r] for n, r in sampled])
    terms = paper.iou_balanced_softmax_terms(sampled_logits, sampled_labels, ious, eta=eta)
    table = paper.iou_balanced_smooth_l1_terms(
        torch.stack([deltas[n, r] for n, r in positives]),
        torch.tensor(targets, dtype=torch.float64),
        ious,
        lam=lam,
        weight=weight,
        beta=beta,
        normalize=normalize,
    )
    return sum(terms) / divisor, sum(term for row in table for term in row) / divisor


# Hand work: objects, default boxes, and the object of each box at a threshold of 0.5.
LEFT, RIGHT, FAR = (0, 0, 10, 10), (5, 0, 15, 10), (40, 40, 50, 50)
BY_HAND = {
    # Heights 9 and 8: IoU 0.9 and 0.8 with LEFT, 45 / 145 = 0.310 and 40 / 140 = 0.286 with
    # RIGHT. LEFT is the best of both; the higher one gets it, and RIGHT goes to the other,
    # although 0.286 < 0.5 and although RIGHT overlaps the higher one more.
    "shared": ([(0, 0, 10, 9), (0, 0, 10, 8)], [LEFT, RIGHT, FAR], [0, 1, -1]),
    "shared, other order": ([(0, 0, 10, 8), (0, 0, 10, 9)], [LEFT, RIGHT, FAR], [1, 0, -1]),
    # 100 / 150 twice: all boxes above the threshold, not the best one alone.
    "two boxes": ([(0, 0, 15, 10)], [LEFT, RIGHT, FAR], [0, 0, -1]),
    # The object is one box, and half of the other: 0.5 is enough.
    "on the threshold": ([(0, 0, 10, 5)], [(0, 0, 10, 5), LEFT], [0, 0]),
    "no overlap": ([(70, 70, 80, 80)], [LEFT, RIGHT, FAR], [-1, -1, -1]),
    # 4 / 100, and still the best that there is.
    "tiny": ([(44, 44, 46, 46)], [LEFT, RIGHT, FAR], [-1, -1, 0]),
    "two objects, one box": ([(0, 0, 10, 8), (0, 0, 10, 9)], [LEFT], [1]),
    "no objects": ([], [LEFT, FAR], [-1, -1]),
    # 0.9 with LEFT for the first, 90 / 110 = 0.818 with RIGHT for the third. The second, 80 / 120
    # with LEFT and 70 / 130 with RIGHT, gets the last box: 10 / 190, where the third has 50 / 150.
    "chain": (
        [(0, 0, 10, 9), (2, 0, 12, 10), (6, 0, 16, 10)],
        [LEFT, RIGHT, (11, 0, 21, 10)],
        [0, 2, 1],
    ),
}
