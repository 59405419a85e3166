"""SSD and FoveaBox against the references beside this file, and those against hand work."""

import math
import random
from functools import cache
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from iou_balanced import losses
from iou_balanced.modeling.ssd import default_boxes

from .foveabox import reference_foveabox as fovea
from .ssd import reference_ssd as ssd

MODELS = Path(__file__).resolve().parents[2] / "configs/common/models"
CLASSES = 3
# The default losses of the configs, and the arguments of IoU-balanced ones in their place.
PAIR = {"eta": 0.5, "lam": 1.0, "normalize": True}
WEIGHTINGS = [{}, {"eta": 1.5}, {"lam": 1.5, "weight": 2.0}, PAIR]


@cache
def load(name):
    model = LazyConfig.load(str(MODELS / f"{name}.py")).model
    model.num_classes = CLASSES
    return instantiate(model).train()


def maps(sizes):
    return [torch.zeros(1, 1, height, width) for height, width in sizes]


def close(a, b, atol=1e-3):
    torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=0, atol=atol)


# Percent of 300: 7, 15, then +(90 - 15) // 4 = 18; VOC: 10, 20, +17. Of 512: 4, 10, +80 // 5 = 16,
# cut to whole pixels (20.48, 51.2, 133.12, ...); VOC: 7, 15, +15 (35.84, 76.8, 153.6, ...).
SIZES = {
    (300, "coco"): [21, 45, 99, 153, 207, 261, 315],
    (300, "voc"): [30, 60, 111, 162, 213, 264, 315],
    (512, "coco"): [20, 51, 133, 215, 296, 378, 460, 542],
    (512, "voc"): [35, 76, 153, 230, 307, 384, 460, 537],
}


@pytest.mark.parametrize("key", SIZES, ids=str)
def test_default_boxes(key):
    levels, (first, lowest) = ssd.LEVELS[key[0]], ssd.FIRST_AND_LOWEST[key]
    sizes = default_boxes.ssd_box_sizes(key[0], len(levels), (lowest / 100, 0.9), first / 100)
    assert ssd.box_sizes(*key) == list(zip(SIZES[key], SIZES[key][1:], strict=False))
    assert [tuple(pair) for pair in sizes] == ssd.box_sizes(*key)
    arguments = {"min_max_sizes": sizes, "aspect_ratios": ssd.ASPECT_RATIOS[key[0]]}
    strides = [step for _, step in levels]
    generators = [default_boxes.DefaultBoxGenerator(strides=strides, **arguments)]
    if key[1] == "coco":
        generators.append(load(f"ssd{key[0]}").anchor_generator)
    expected = ssd.default_boxes_by_level(*key)
    # 38^2 * 4 + (19^2 + 10^2 + 5^2) * 6 + (3^2 + 1) * 4, the paper's 8732.
    assert sum(len(level) for level in expected) == {300: 8732, 512: 24564}[key[0]]
    for generator in generators:
        found = generator(maps([(cells, cells) for cells, _ in levels]))
        for (cells, _), ours, theirs in zip(levels, found, expected, strict=True):
            # Cell by cell, in whatever order inside a cell.
            ours, theirs = (
                sorted([i * cells**2 // len(x), *box] for i, box in enumerate(x))
                for x in (ours.tensor.tolist(), theirs)
            )
            close(ours, theirs)


def test_default_boxes_by_hand():
    boxes = ssd.default_boxes(300, "coco")
    # The first cell's centre is (4, 4). 21 / 2 = 10.5; sqrt(21 * 45) = 30.7409; 21 * sqrt(2) =
    # 29.6985 and 21 / sqrt(2) = 14.8492.
    close(boxes[0], (-6.5, -6.5, 14.5, 14.5))
    close(boxes[1], (-11.3704, -11.3704, 19.3704, 19.3704))
    close(boxes[2], (-10.8492, -3.4246, 18.8492, 11.4246))
    close(boxes[3], (-3.4246, -10.8492, 11.4246, 18.8492))
    # The last of 38 cells: (37 + 1 / 2) * 8 = 300, on the image's edge. Last level: 150 -+ 130.5.
    assert boxes[4 * 38 * 38 - 4] == (289.5, 289.5, 310.5, 310.5)
    assert boxes[-4] == (19.5, 19.5, 280.5, 280.5)


def match(gt_boxes, boxes, threshold=0.5):
    gt_boxes, boxes = (torch.tensor(x).float().reshape(-1, 4) for x in (gt_boxes, boxes))
    matched = default_boxes.match_default_boxes(gt_boxes, boxes, iou_threshold=threshold)
    assert matched.dtype == torch.int64 and matched.shape == (len(boxes),)
    return matched.tolist()


@pytest.mark.parametrize("name", ssd.BY_HAND)
def test_match_by_hand(name):
    gt_boxes, boxes, expected = ssd.BY_HAND[name]
    assert ssd.assign(gt_boxes, boxes) == expected
    assert match(gt_boxes, boxes) == expected


def test_match_of_small_whole_numbers():
    # IoUs of such boxes are equal or well apart; many boxes and objects are the same.
    for seed in range(300):
        numbers, threshold = random.Random(seed), [0.5, 0.3, 0.7][seed % 3]
        sides = numbers.choices([(0, 3), (0, 5), (2, 4), (1, 6), (4, 6), (2, 7)], k=40)
        boxes = [(x[0], y[0], x[1], y[1]) for x, y in zip(sides[:20], sides[20:], strict=True)]
        boxes, gt_boxes = boxes[: numbers.randint(1, 14)], boxes[14 : 14 + numbers.randint(0, 6)]
        expected = ssd.assign(gt_boxes, boxes, threshold)
        assert ssd.is_an_assignment(expected, gt_boxes, boxes, threshold)
        assert match(gt_boxes, boxes, threshold) == expected, seed


def corners(number, count, side):
    points = [(number() * 290, number() * 290) for _ in range(count)]
    return [(x, y, x + side(300 - x), y + side(300 - y)) for x, y in points]


OBJECTS = {
    "tiny": lambda r: corners(r, 6, lambda room: 1 + 9 * r()),
    "any size": lambda r: corners(r, 7, lambda room: 5 + (room - 5) * r()),
    "border": lambda r: [(0, 290, 30 + r(), 300), (280 - r(), 0, 300, 40), (0, 0, 3, 300)],
    "huge": lambda r: [(0, 0, 300, 300), (r(), r(), 299, 298), (20, 0, 300, 260 + r())],
    "overlapping": lambda r: [(20 * r(), 20 * r(), 90 + r(), 99 * r() + 30) for _ in range(6)],
    "equal": lambda r: [(30, 40, 99 + r(), 88)] * 4 + [(100, 100, 102, 101)] * 3,
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("seed", range(3))
def test_match_of_the_boxes_of_ssd300(kind, seed):
    boxes = torch.tensor(ssd.default_boxes(300, "coco")).tolist()
    gt_boxes = torch.tensor(OBJECTS[kind](random.Random(seed).random)).tolist()
    matched = match(gt_boxes, boxes)
    assert set(range(len(gt_boxes))) <= set(matched)
    assert ssd.is_an_assignment(matched, gt_boxes, boxes)


def test_the_check_of_assignments_finds_mistakes():
    gt_boxes, boxes, matched = ssd.BY_HAND["shared"]
    assert ssd.is_an_assignment(matched, gt_boxes, boxes)
    for wrong in [[0, 0, -1], [1, 0, -1], [0, -1, -1], [1, -1, -1], [0, 1, 0]]:
        assert not ssd.is_an_assignment(wrong, gt_boxes, boxes)


def test_ssd_losses_by_hand():
    # Equal logits: every sample costs log 2, one positive and its three negatives of five. The
    # regressed box is 1 px beside the 10 px of its object: 0.5 * 1^2, and IoU 90 / 110.
    box, delta = (0, 0, 10, 10), (1, 0, 0, 0)
    assert ssd.encode((-4, 1, 16, 11), box) == pytest.approx((1, 1, math.log(2) / 0.2, 0))
    assert ssd.decode(delta, box) == pytest.approx((1, 0, 11, 10))
    deltas = torch.tensor([[delta] * 6], dtype=torch.float64)
    data = torch.zeros(1, 6, 2).double(), deltas, [[1, 0, 1, 1, 1, 1]], [[box] * 6], [box] * 6
    cls, loc = ssd.ssd_loss(*data, eta=1.5, lam=1.5, weight=2.0)
    assert cls.item() == pytest.approx(4 * math.log(2))
    assert loc.item() == pytest.approx(2 * (9 / 11) ** 1.5 * 0.5)


def compare_losses(detector, weighting, cls_loss, beta, inputs, reference):
    """Values and gradients of both losses; `inputs` is (anchors, labels, gt_boxes, columns)."""
    anchors, labels, gt_boxes, columns = inputs
    counts = [len(level) for level in anchors]
    data = [torch.randn(len(labels), sum(counts), n, requires_grad=True) for n in (columns, 4)]
    logits, deltas = ([*x.split(counts, dim=1)] for x in data)
    plain = detector.cls_loss, detector.box_loss
    if "eta" in weighting:
        detector.cls_loss = cls_loss(weighting["eta"])
    if "lam" in weighting:
        kwargs = {k: v for k, v in weighting.items() if k != "eta"}
        detector.box_loss = losses.IoUBalancedSmoothL1Loss(beta=beta, **kwargs)
    try:
        with EventStorage():
            ours = detector.losses(anchors, logits, list(labels), deltas, list(gt_boxes))
    finally:
        detector.cls_loss, detector.box_loss = plain
    exact = [x.detach().double().requires_grad_() for x in data]
    theirs = reference(*exact, labels.tolist(), gt_boxes.tolist(), **weighting)
    for a, b in zip((ours["loss_cls"], ours["loss_box_reg"]), theirs, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-5, abs=1e-7)
        grads = torch.autograd.grad(a, data, materialize_grads=True, retain_graph=True)
        for x, y in zip(grads, torch.autograd.grad(b, exact, materialize_grads=True), strict=True):
            torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=str)
def test_ssd_losses(weighting):
    corner = torch.rand(40, 2) * 200
    boxes = torch.cat([corner, corner + 20 + torch.rand(40, 2) * 60], dim=1)
    gt_boxes = boxes + torch.randn(3, 40, 4) * 4
    # 4 and 15 positives, where the negatives run out, and none, where no negative counts.
    labels = torch.full((3, 40), CLASSES)
    labels[0, [1, 9, 21, 38]], labels[0, 5] = torch.tensor([0, 1, 2, 0]), -1
    labels[1, 10:25] = torch.arange(15) % CLASSES
    for truth in (labels, torch.full_like(labels, CLASSES)):
        compare_losses(
            load("ssd300"),
            weighting,
            lambda eta: losses.IoUBalancedCrossEntropyLoss(eta=eta, reduction="none"),
            1.0,
            ([Boxes(boxes[:25]), Boxes(boxes[25:])], truth, gt_boxes, CLASSES + 1),
            lambda *data, **weighting: ssd.ssd_loss(*data, boxes.tolist(), **weighting),
        )


def check_fovea_labels(gt_boxes, image):
    detector = load("foveabox")
    sizes = [[math.ceil(side / level.stride) for side in image] for level in fovea.LEVELS]
    anchors = detector.anchor_generator(maps(sizes))
    truth = Instances(image)
    truth.gt_boxes = Boxes(torch.tensor(gt_boxes, dtype=torch.float32).reshape(-1, 4))
    truth.gt_classes = torch.arange(len(gt_boxes)) % CLASSES
    (labels,), (boxes,) = detector.label_anchors(anchors, [truth])
    gt_boxes = truth.gt_boxes.tensor.tolist()
    expected, i = fovea.assign(gt_boxes, sizes), 0
    for level, (height, width), cells, places in zip(
        fovea.LEVELS, sizes, expected, anchors, strict=True
    ):
        centres = [(column + 0.5, row + 0.5) for row in range(height) for column in range(width)]
        close((places.get_centers() / level.stride).tolist(), centres)
        for column, row in centres:
            objects = cells.get((int(row), int(column)), [])
            allowed = [(g % CLASSES, gt_boxes[g]) for g in objects] or [(CLASSES, None)]
            box = boxes[i].tolist() if objects else None
            assert (labels[i].item(), box) in allowed, (level, row, column)
            i += 1
    assert len(labels) == i
    return expected


@pytest.mark.parametrize("name", fovea.BY_HAND)
def test_fovea_labels_by_hand(name):
    gt_boxes, rectangles = fovea.BY_HAND[name]
    by_hand = [{} for _ in fovea.LEVELS]
    for level, (top, bottom), (left, right), g in rectangles:
        for row in range(top, bottom + 1):
            by_hand[level].update({(row, column): [g] for column in range(left, right + 1)})
    assert check_fovea_labels(gt_boxes, fovea.IMAGE) == by_hand


@pytest.mark.parametrize("image", [(203, 331), (642, 807), (899, 467)])
def test_fovea_labels(image):
    positives = 0
    for seed in range(8):
        gt_boxes = fovea.random_objects(seed, image, count=6 * seed)
        positives += sum(map(len, check_fovea_labels(gt_boxes, image)))
    assert positives > 300


def test_fovea_coding():
    # The cell at (52, 52) of P3: 20 and 44 px over 16. 300 / 16 and 0.5 / 16 are out of bounds.
    close(fovea.encode((52, 52), (32, 32, 96, 96), 16), [math.log(1.25)] * 2 + [math.log(2.75)] * 2)
    wide = fovea.encode((300, 100), (0, 99.5, 600, 100.5), 16)
    assert wide == pytest.approx([math.log(16), -math.log(16)] * 2)
    detector, grid = load("foveabox"), [(5, 6), (3, 3), (2, 2), (1, 1), (1, 1)]
    transform = detector.box2box_transform
    for level, anchors in zip(fovea.LEVELS, detector.anchor_generator(maps(grid)), strict=True):
        centres, bases = anchors.get_centers().tolist(), [level.base] * len(anchors)
        corner = torch.rand(len(anchors), 2) * 60 - 10
        boxes = torch.cat([corner, corner + torch.rand(len(anchors), 2) * 900], dim=1)
        # Below log(1000 / 16), where Detectron2's transforms cut what a network says.
        deltas = (torch.randn(len(anchors), 4) * 2).clamp(max=4.1)
        targets = map(fovea.encode, centres, boxes.tolist(), bases)
        close(transform.get_deltas(anchors.tensor, boxes).tolist(), list(targets), 1e-4)
        decoded = torch.tensor([*map(fovea.decode, centres, deltas.tolist(), bases)])
        torch.testing.assert_close(transform.apply_deltas(deltas, anchors.tensor), decoded)


def test_fovea_losses_by_hand():
    # p = 1 / 2 everywhere: (1 / 2)^1.5 * log 2 = f, 0.4 f for the positive and 0.6 f for each of
    # two cells of background, over 1 + 1. The regressed box is 16 px to each side of the centre,
    # and the object a quarter of it: 4 * (log 2 - 0.11 / 2), times 3 * 0.25^1.5.
    labels, boxes = [[0, 1, 1]], [[(12, 12, 28, 28)] * 3]
    data = torch.zeros(1, 3, 1).double(), torch.zeros(1, 3, 4).double(), labels, boxes
    cls, loc = fovea.foveabox_loss(*data, [(20, 20)] * 3, [16] * 3, eta=1.5, lam=1.5, weight=3.0)
    assert cls.item() == pytest.approx((0.4 + 2 * 0.6) * 0.5**1.5 * math.log(2) / 2)
    assert loc.item() == pytest.approx(4 * (math.log(2) - 0.055) * 3 * 0.25**1.5)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=str)
def test_fovea_losses(weighting):
    anchors = load("foveabox").anchor_generator(maps([(3, 4), (2, 2), (1, 1), (1, 1), (1, 1)]))
    centres = torch.cat([x.get_centers() for x in anchors])
    bases = [level.base for level, x in zip(fovea.LEVELS, anchors, strict=True) for _ in x]
    size = torch.tensor(bases)[None, :, None] * torch.rand(3, len(bases), 4) * 2
    gt_boxes = torch.cat([centres - size[..., :2], centres + size[..., 2:]], dim=-1)
    labels = torch.randint(0, CLASSES + 1, (3, len(bases)))
    labels[1], labels[0, 3] = CLASSES, -1
    where = centres.tolist(), bases
    for truth in (labels, torch.full_like(labels, CLASSES)):
        compare_losses(
            load("foveabox"),
            weighting,
            lambda eta: losses.IoUBalancedFocalLoss(eta=eta, alpha=0.4, gamma=1.5),
            0.11,
            (anchors, truth, gt_boxes, CLASSES),
            lambda *data, **weighting: fovea.foveabox_loss(*data, *where, **weighting),
        )
