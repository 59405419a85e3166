"""CenterNet's targets by hand, and against loops over objects and cells."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from iou_balanced.modeling.centernet import targets as centernet_targets
from iou_balanced.modeling.centernet.targets import center_targets, count_centers, gaussian_radius

CLASSES = 3


def reference_radius(height, width, overlap=0.7):
    """The least of CenterNet's three "roots" (b + sqrt(b^2 - 4ac)) / 2 of its three equations."""
    h, w, o = float(height), float(width), overlap
    inner_outer = 1, h + w, w * h * (1 - o) / (1 + o)
    inner = 4, 2 * (h + w), (1 - o) * w * h
    outer = 4 * o, -2 * o * (h + w), (o - 1) * w * h
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in (inner_outer, inner, outer))


def reference_targets(boxes, classes, num_classes, height, width, stride):
    """One image, cell by cell: the heat map in float64, and a dict for each object drawn."""
    heatmap, objects = np.zeros((num_classes, height, width)), []
    for box, k in zip(boxes, classes, strict=True):
        x1, x2 = (min(max(v / stride, 0), width - 1) for v in (box[0], box[2]))
        y1, y2 = (min(max(v / stride, 0), height - 1) for v in (box[1], box[3]))
        if not (x2 > x1 and y2 > y1):
            continue
        radius = int(reference_radius(math.ceil(y2 - y1), math.ceil(x2 - x1)))
        sigma = (2 * radius + 1) / 6
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        for y in range(height):
            for x in range(width):
                dy, dx = y - int(cy), x - int(cx)
                if max(abs(dy), abs(dx)) <= radius:
                    value = math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
                    value = 0 if value < np.finfo(np.float64).eps else value
                    heatmap[k, y, x] = max(heatmap[k, y, x], value)
        objects.append(
            {
                "gt_classes": k,
                "cells": [int(cy), int(cx)],
                "offset": [cx - int(cx), cy - int(cy)],
                "size": [x2 - x1, y2 - y1],
                "boxes": [x1 * stride, y1 * stride, x2 * stride, y2 * stride],
            }
        )
    return heatmap, objects


def targets_of(boxes, classes=None, *, size=(12, 16), stride=4, num_classes=CLASSES):
    """Targets of one image."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    classes = torch.tensor([0] * len(boxes) if classes is None else classes, dtype=torch.int64)
    return center_targets([boxes], [classes], num_classes, size, stride)


@pytest.mark.parametrize(
    "height, width, radius",
    [
        # All are the third case: (-1.4 (h + w) + sqrt((1.4 (h + w))^2 + 3.36 h w)) / 2.
        # s = 20: (-28 + sqrt(784 + 336)) / 2 = (-28 + 33.466401) / 2.
        (10, 10, 2.7332005),
        # s = 2: (-2.8 + sqrt(7.84 + 3.36)) / 2 = (-2.8 + 3.3466401) / 2.
        (1, 1, 0.27332005),
        # s = 50: (-70 + sqrt(4900 + 1344)) / 2 = (-70 + 79.018985) / 2.
        (40, 10, 4.5094925),
        # s = 55: (-77 + sqrt(5929 + 2352)) / 2 = (-77 + 91) / 2 = 7, whole.
        (35, 20, 7.0),
    ],
)
def test_radius_by_hand(height, width, radius):
    for h, w in [(height, width), (width, height)]:
        result = gaussian_radius(torch.tensor([h]), torch.tensor([w]))
        assert result.dtype == torch.float64
        assert result.item() == pytest.approx(radius, rel=1e-7)


def test_radius_of_another_overlap():
    # 10 x 10, overlap 0.5: third case a = 2, b = -20, c = -50: (-20 + sqrt(400 + 400)) / 2.
    result = gaussian_radius(torch.tensor([10]), torch.tensor([10]), min_overlap=0.5)
    assert result.item() == pytest.approx(4.1421356)
    with pytest.raises(ValueError, match=r"`min_overlap` to be in \(0, 1\), but got 1"):
        gaussian_radius(torch.tensor([10]), torch.tensor([10]), min_overlap=1)


def test_radius_is_4_overlap_times_the_true_one_of_the_third_case():
    # 10 x 10 moved outwards by r / 2.8 on all sides: IoU = 100 / (10 + 2 r / 2.8)^2 = 0.7.
    radius = gaussian_radius(torch.tensor([10]), torch.tensor([10])).item()
    assert 100 / (10 + 2 * radius / 2.8) ** 2 == pytest.approx(0.7)


def test_integer_radius_of_all_sizes_of_a_map():
    sides = torch.arange(1, 129)
    h, w = (x.flatten() for x in torch.meshgrid(sides, sides, indexing="ij"))
    expected = [int(reference_radius(*x)) for x in zip(h.tolist(), w.tolist(), strict=True)]
    assert gaussian_radius(h, w).long().tolist() == expected


def test_an_object_by_hand():
    # In cells: x from 2.5 to 8.25, y from 4 to 8. Centre (5.375, 6): cell (6, 5), offset
    # (0.375, 0). 4 x 5.75, rounded up 4 x 6: (-14 + sqrt(196 + 80.64)) / 2 = 1.316, radius 1,
    # sigma 0.5: exp(-2) = 0.1353353 beside the centre, exp(-4) = 0.0183156 at the corners.
    targets = targets_of([[10, 16, 33, 32]], [2])
    expected = torch.zeros(1, CLASSES, 12, 16)
    expected[0, 2, 5:8, 4:7] = 0.0183156
    expected[0, 2, 6, 4:7] = expected[0, 2, 5:8, 5] = 0.1353353
    expected[0, 2, 6, 5] = 1
    torch.testing.assert_close(targets.heatmap, expected, rtol=0, atol=1e-7)
    assert targets.image_index.tolist() == [0] and targets.gt_classes.tolist() == [2]
    assert targets.cells.tolist() == [[6, 5]] and targets.offset.tolist() == [[0.375, 0]]
    assert targets.size.tolist() == [[5.75, 4]]
    assert targets.boxes.tolist() == [[10, 16, 33, 32]]


@pytest.mark.parametrize(
    "box, cell, size",
    [
        # Smaller than a cell: radius 0, the centre alone. Centre (4.4375, 4.4375).
        ([17, 17, 18.5, 18.5], [4, 4], [0.375, 0.375]),
        # The centre (-1, 6) is outside; clipped it is x from 0 to 2, y from 5 to 7.
        ([-16, 20, 8, 28], [6, 1], [2, 2]),
        # Over the right and lower border: x from 13 to W - 1 = 15, y from 9 to H - 1 = 11.
        ([52, 36, 80, 80], [10, 14], [2, 2]),
        # All of it in the last column behind W - 1 = 15: no width.
        ([60, 8, 64, 24], None, None),
        # Above the map, and beside it.
        ([8, -20, 24, -4], None, None),
        ([70, 8, 90, 24], None, None),
        # No height; turned around.
        ([8, 8, 24, 8], None, None),
        ([24, 8, 8, 24], None, None),
    ],
)
def test_borders_and_tiny_objects(box, cell, size):
    targets = targets_of([box])
    if cell is None:
        assert not targets.heatmap.any() and targets.boxes.shape == (0, 4)
        return
    # Up to 2 x 2 cells: (-5.6 + sqrt(31.36 + 13.44)) / 2 = 0.55, radius 0.
    expected = torch.zeros(1, CLASSES, 12, 16)
    expected[0, 0, cell[0], cell[1]] = 1
    assert torch.equal(targets.heatmap, expected)
    assert targets.cells.tolist() == [cell] and targets.size.tolist() == [size]


def test_objects_that_share_a_centre():
    # All have the centre (32, 24) px, cell (6, 8). The radius of 4 x 4 cells is 1, of 10 x 12
    # (-30.8 + sqrt(948.64 + 403.2)) / 2 = 2.98, so 2.
    small, large = [24, 16, 40, 32], [8, 4, 56, 44]
    targets = targets_of([small, large, small], [1, 1, 0])
    assert targets.cells.tolist() == [[6, 8]] * 3
    assert targets.size.tolist() == [[4, 4], [12, 10], [4, 4]]
    # Class 1 has the larger Gaussian's values; class 0 that of the small one alone.
    assert torch.equal(targets.heatmap[0, 1], targets_of([large]).heatmap[0, 0])
    assert torch.equal(targets.heatmap[0, 0], targets_of([small]).heatmap[0, 0])
    assert targets.heatmap[0, 1].count_nonzero() == 25
    # Three objects, two centres; the values of objects in one centre are merged by their maximum.
    assert (targets.heatmap == 1).nonzero().tolist() == [[0, 0, 6, 8], [0, 1, 6, 8]]
    merged = targets.max_per_center(torch.tensor([0.25, 0.5, 0.125]))
    assert merged.tolist() == [0.125, 0.5]


def random_batch(num_images, *, generator, size=(24, 40), stride=4):
    """Boxes on, over and beside the border, from a pixel to the whole image; every third empty."""
    height, width = size[0] * stride, size[1] * stride
    gt_boxes, gt_classes = [], []
    for i in range(num_images):
        count = 0 if i % 3 == 1 else 12
        center = torch.rand(count, 2, generator=generator) * 1.2 - 0.1
        center = center * torch.tensor([width, height])
        half = torch.exp(torch.rand(count, 2, generator=generator) * math.log(height)) / 2
        gt_boxes.append(torch.cat([center - half, center + half], dim=1))
        gt_classes.append(torch.randint(CLASSES, (count,), generator=generator))
    return gt_boxes, gt_classes


@pytest.mark.parametrize(("stride", "at_once"), [(4, 2**20), (8, 2**20), (4, 13)])
def test_batch_equals_the_loop(stride, at_once, monkeypatch):
    monkeypatch.setattr(centernet_targets, "_CELLS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(stride)
    gt_boxes, gt_classes = random_batch(5, generator=generator, stride=stride)
    before = [x.clone() for x in gt_boxes]
    targets = center_targets(gt_boxes, gt_classes, CLASSES, (24, 40), stride)
    assert all(torch.equal(a, b) for a, b in zip(gt_boxes, before, strict=True))
    expected = [
        reference_targets(b.tolist(), c.tolist(), CLASSES, 24, 40, stride)
        for b, c in zip(gt_boxes, gt_classes, strict=True)
    ]
    heatmap = torch.from_numpy(np.stack([x for x, _ in expected]))
    assert targets.heatmap.dtype == torch.float32
    # float32: some 1e-7 of the exponent, which is up to 9.
    torch.testing.assert_close(targets.heatmap.double(), heatmap, rtol=2e-6, atol=0)
    assert torch.equal(targets.heatmap == 1, heatmap == 1)
    positive = targets.heatmap[targets.heatmap > 0]
    assert positive.min() > math.exp(-9)

    objects = [(i, x) for i, (_, found) in enumerate(expected) for x in found]
    assert len(objects) > 20  # of 36: the batch has some that are left out
    assert targets.image_index.tolist() == [i for i, _ in objects]
    for name in ("gt_classes", "cells", "offset", "size", "boxes"):
        values = torch.tensor([x[name] for _, x in objects])
        result = getattr(targets, name)
        assert result.shape == values.shape
        torch.testing.assert_close(result, values, rtol=0, atol=2e-5, check_dtype=False)


def test_values_per_center_have_the_order_of_the_heat_map():
    gt_boxes, gt_classes = random_batch(4, generator=torch.Generator().manual_seed(1))
    gt_boxes[0][5:8] = torch.tensor([40.0, 24, 72, 56])
    gt_classes[0][5:8] = 1
    targets = center_targets(gt_boxes, gt_classes, CLASSES, (24, 40))
    values = torch.arange(len(targets.cells)).float()
    expected = {}
    rows = (targets.image_index, targets.gt_classes, *targets.cells.unbind(1))
    for place, value in zip(zip(*(x.tolist() for x in rows), strict=True), values, strict=True):
        expected[place] = max(value.item(), expected.get(place, 0))
    centers = [tuple(x) for x in (targets.heatmap == 1).nonzero().tolist()]
    assert targets.num_centers == len(centers) <= len(values) - 2
    counts = count_centers(gt_boxes, gt_classes, CLASSES, (24, 40))
    assert counts == (len(values), len(centers))
    assert targets.max_per_center(values).tolist() == [expected[x] for x in centers]


def test_a_large_gaussian_is_1_at_its_centre_only():
    # 1000 x 1000 cells: the radius is 273, and the next cell exp(-18 / 547^2) = 1 - 6.0e-5.
    targets = targets_of([[4, 4, 4004, 4004]], size=(1004, 1004), num_classes=1)
    assert (targets.heatmap == 1).nonzero().tolist() == [[0, 0, 501, 501]]
    assert targets.heatmap[0, 0, 501, 502].item() == pytest.approx(1 - 6.016e-5, abs=2e-7)
    assert targets.heatmap[0, 0, 501, 501 + 273 : 501 + 275].ne(0).tolist() == [True, False]


class _Recorder(TorchDispatchMode):
    """Names of all tensor operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        if func.name() in ("aten::index.Tensor", "aten::index_put_"):
            self.names += ["mask" for x in args[1] if x is not None and x.dtype == torch.bool]
        return func(*args, **(kwargs or {}))


def test_neither_a_loop_over_objects_nor_a_wait_for_each():
    recorded = []
    for count in (2, 50):
        low = torch.rand(count, 2) * 40
        boxes = [torch.cat([low, low + 20], dim=1)] * 2
        with _Recorder() as recorder:
            center_targets(boxes, [torch.zeros(count).long()] * 2, CLASSES, (16, 16))
        recorded.append(recorder.names)
    assert recorded[0] == recorded[1]
    # A GPU waits for these; the one list of three numbers is no operation on the CPU.
    waits = ("mask", "aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2")
    assert not set(waits) & set(recorded[0])


@pytest.mark.parametrize("num_images", [0, 2])
def test_no_objects(num_images):
    boxes = [torch.zeros(0, 4)] * num_images
    classes = [torch.zeros(0, dtype=torch.int64)] * num_images
    targets = center_targets(boxes, classes, CLASSES, (6, 5))
    assert targets.heatmap.shape == (num_images, CLASSES, 6, 5) and not targets.heatmap.any()
    assert targets.cells.shape == targets.offset.shape == targets.size.shape == (0, 2)
    assert targets.boxes.shape == (0, 4) and targets.image_index.shape == (0,)
    assert targets.gt_classes.dtype == targets.cells.dtype == torch.int64
    assert targets.max_per_center(torch.zeros(0)).shape == (0,)


def test_bad_arguments():
    box, label = torch.tensor([[0.0, 0, 8, 8]]), torch.tensor([0])
    nan = torch.tensor([[0.0, 0, 8, 8], [0, math.nan, 8, 8]])
    cases = [
        (([box], [], 1, (4, 4)), "one tensor an image, but got 1 and 0"),
        (([box[:, :3]], [label], 1, (4, 4)), r"got \(1, 3\) and \(1,\) for image 0"),
        (([box, box], [label, label[:0]], 1, (4, 4)), r"got \(1, 4\) and \(0,\) for image 1"),
        (([box], [label.float()], 1, (4, 4)), "integer dtype, but got torch.float32 for image 0"),
        (([box], [label], 1, (4, 0)), r"`output_size` .* but got \(4, 0\)"),
        (([box], [label], 0, (4, 4)), "`num_classes` to be at least 1, but got 0"),
        (([box], [label], 1, (4, 4), 0), "`stride` to be at least 1, but got 0"),
        (([box, box], [label, label + 3], 3, (4, 4)), r"in 0\.\.2, but got 3 for box 0 of image 1"),
        (([box], [label - 1], 3, (4, 4)), r"in 0\.\.2, but got -1 for box 0 of image 0"),
        (([nan], [label.expand(2)], 1, (4, 4)), "finite, but got .*nan.* for box 1 of image 0"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            center_targets(*arguments)
