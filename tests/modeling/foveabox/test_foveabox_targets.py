"""FoveaBox's labels and targets by hand, and against the published loop."""

import math

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

from iou_balanced.losses import elementwise_box_iou
from iou_balanced.modeling import FoveaBoxTransform
from iou_balanced.modeling.foveabox.targets import fovea_mask, match_points

STRIDES = [8, 16, 32, 64, 128]
BASE_SIZES = [16, 32, 64, 128, 256]
SCALE_RANGES = [(1, 64), (32, 128), (64, 256), (128, 512), (256, 2048)]


def points(height, width, stride):
    """(height * width, 2) x and y of the cells' centres, row by row."""
    rows = [[(x + 0.5) * stride, (y + 0.5) * stride] for y in range(height) for x in range(width)]
    return torch.tensor(rows)


def cells_of(box, *, height=8, width=8, stride=8, sigma=0.4):
    """{(column, row)} of the fovea of one box on a map of this size."""
    mask = fovea_mask(points(height, width, stride), stride, torch.tensor([box]).float(), sigma)
    assert mask.shape == (height * width, 1) and mask.dtype == torch.bool
    return {(i % width, i // width) for i in mask[:, 0].nonzero()[:, 0].tolist()}


def grid(columns, rows):
    return {(x, y) for x in columns for y in rows}


# Columns of a map of 8 cells of 8 px. A fovea from a to b has the cells ceil(a / 8 - 0.5) to
# floor(b / 8 - 0.5): those whose centre (4, 12, 20, ... px) lies in it.
@pytest.mark.parametrize(
    "x1, x2, columns",
    [
        # Centre 32, half of the width 20, shrunk 8: from 24 to 40. 2.5 -> 3; 4.5 -> 4.
        (12, 52, [3, 4]),
        # Centre 28, half 10, shrunk 4: from 24 to 32. 2.5 -> 3; 3.5 -> 3.
        (18, 38, [3]),
        # Ends on centres belong to it: centre 28, half 20, shrunk 8: from 20 to 36, 2 to 4.
        (8, 48, [2, 3, 4]),
        # Narrower than a cell, with a centre in it: from 19 to 21. 1.875 -> 2; 2.125 -> 2.
        (17.5, 22.5, [2]),
        # Narrower than a cell and between two centres: from 23 to 25. 2.375 -> 3; 2.625 -> 2.
        (21.5, 26.5, []),
        # All of the map: from 19.2 to 44.8. 1.9 -> 2; 5.1 -> 5.
        (0, 64, [2, 3, 4, 5]),
        # Before the first centre: from 1.2 to 2.8. ceil(-0.35) = 0; floor(-0.15) = -1 -> 0.
        (0, 4, [0]),
        # Behind the last centre: from 61.2 to 62.8. ceil(7.15) = 8 -> 7; floor(7.35) = 7.
        (60, 64, [7]),
        # The box begins before the map: from 2 to 10. ceil(-0.25) = 0; floor(0.75) = 0.
        (-4, 16, [0]),
    ],
)
def test_cells_of_a_fovea(x1, x2, columns):
    # Along the other axis from 24 to 40: cells 3 and 4, as above.
    assert cells_of([x1, 12, x2, 52]) == grid(columns, [3, 4])
    assert cells_of([12, x1, 52, x2]) == grid([3, 4], columns)


def test_cells_depend_on_stride_and_sigma():
    # Stride 16: from 24 to 40 is from 1 to 2. Stride 32: from 0.25 -> 1 to 0.75 -> 0.
    assert cells_of([12, 12, 52, 52], height=4, width=4, stride=16) == grid([1, 2], [1, 2])
    assert cells_of([12, 12, 52, 52], height=2, width=2, stride=32) == set()
    # sigma 1 is the box: from 12 to 52 px, cells 1 to 6.
    assert cells_of([12, 12, 52, 52], sigma=1.0) == grid(range(1, 7), range(1, 7))


def test_a_map_that_is_not_square():
    # 3 rows and 8 columns: the row is clamped to 2. From 40 to 56 px is 4.5 -> 5 to 6.5 -> 6.
    assert cells_of([28, 0, 68, 24], height=3) == grid([5, 6], [1])
    assert cells_of([28, 20, 68, 24], height=3) == grid([5, 6], [2])


def owners(boxes, sizes, strides, scale_ranges, sigma=0.4):
    centers = [points(h, w, s) for (h, w), s in zip(sizes, strides, strict=True)]
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return match_points(centers, strides, scale_ranges, boxes, sigma=sigma)


@pytest.mark.parametrize(
    "side, levels",
    [
        (0.5, []),
        (1, [0]),
        (31, [0]),
        (32, [0, 1]),
        (64, [0, 1, 2]),
        (65, [1, 2]),
        (128, [1, 2, 3]),
        (256, [2, 3, 4]),
        (512, [3, 4]),
        (513, [4]),
        (2048, [4]),
        (2049, []),
    ],
)
def test_scale_ranges_have_both_ends(side, levels):
    # Of a square the scale is its side. In the middle of a cell of each level it has that cell.
    middle = torch.tensor([1088.0, 1088.0])
    for level, stride in enumerate(STRIDES):
        center = (middle / stride).floor() * stride + stride / 2
        box = torch.cat([center - side / 2, center + side / 2])[None]
        sizes = [(2176 // s, 2176 // s) for s in STRIDES]
        found = match_points(
            [points(*sizes[level], stride)], [stride], [SCALE_RANGES[level]], box, sigma=0.4
        )
        assert bool((found == 0).any()) is (level in levels), level


def test_scale_is_the_root_of_the_area():
    # 8 x 32 px is 16: inside [16, 20], although neither side is. 8 x 33 px is 16.2.
    assert (owners([[24, 0, 32, 32]], [(8, 8)], [8], [(16, 20)]) == 0).any()
    assert (owners([[24, 0, 32, 33]], [(8, 8)], [8], [(16, 20)]) == 0).any()
    assert (owners([[24, 0, 32, 33]], [(8, 8)], [8], [(8, 16)]) == 1).all()


def test_overlapping_objects():
    # One level of 8 x 8 cells of 8 px. 0: from 19.2 to 44.8 px, cells 2 to 5. 1 has the cells 3
    # and 4, and is smaller, though listed later or earlier. 2: 16 x 64 px with an area of 1,024,
    # centre x 36 and y 32: column from 32.8 to 39.2, 3.6 -> 4 to 4.4 -> 4; rows 2 to 5.
    large, square, tall = [0, 0, 64, 64], [12, 12, 52, 52], [28, 0, 44, 64]
    expected = torch.full((8, 8), -1)
    expected[2:6, 2:6] = 0
    expected[3:5, 3:5] = 1  # 1,600 px
    expected[2:6, 4] = 2  # 1,024 px
    for order in [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1)]:
        boxes = [(large, square, tall)[i] for i in order]
        found = owners(boxes, [(8, 8)], [8], [(1, 64)]).view(8, 8)
        names = torch.tensor([*order, -1])
        assert torch.equal(names[found], expected), order


def test_of_equally_small_objects_the_last_one_wins():
    # 20 x 80 and 80 x 20 px with the same centre share the cells of both, 3 and 4.
    tall, wide = [22, -8, 42, 72], [-8, 22, 72, 42]
    for boxes in ([tall, wide], [wide, tall]):
        found = owners(boxes, [(8, 8)], [8], [(1, 64)]).view(8, 8)
        assert found[3, 3] == 1
    found = owners([tall] * 40, [(8, 8)], [8], [(1, 64)])
    assert set(found.tolist()) == {39, 40}


def test_an_object_has_points_on_each_level_of_its_scale():
    # 40 px: P3 and P4, see above for the cells; and not P5, whose range begins at 64.
    sizes = [(8, 8), (4, 4), (2, 2)]
    found = owners([[12, 12, 52, 52]], sizes, STRIDES[:3], SCALE_RANGES[:3])
    assert found.shape == (64 + 16 + 4,)
    p3, p4 = found[:64].view(8, 8), found[64:80].view(4, 4)
    assert (p3 == 0).nonzero().tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]
    assert (p4 == 0).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert (found[80:] == 1).all()


def test_without_objects_all_is_background():
    found = owners([], [(4, 4), (2, 2)], [8, 16], SCALE_RANGES[:2])
    assert found.tolist() == [0] * 20


def published_loop(boxes, sizes):
    """Object of each point, -1 for none: levels, then objects by size, then slices of the map."""
    found = []
    scales = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    for (height, width), stride, (low, high) in zip(sizes, STRIDES, SCALE_RANGES, strict=True):
        table = torch.full((height, width), -1)
        fitting = [i for i in range(len(boxes)) if low <= scales[i] <= high]
        for i in sorted(fitting, key=lambda i: -scales[i].item()):  # stable
            x1, y1, x2, y2 = (boxes[i].double() / stride).tolist()
            indices = []
            for start, end, count in [(x1, x2, width), (y1, y2, height)]:
                half = (end - start) / 2
                first = math.ceil(start + 0.6 * half - 0.5)
                last = math.floor(start + 1.4 * half - 0.5)
                indices.append([min(max(index, 0), count - 1) for index in (first, last)])
            (left, right), (top, bottom) = indices
            table[top : bottom + 1, left : right + 1] = i
        found.append(table.flatten())
    return torch.cat(found)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_published_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    size, count = torch.tensor([608, 480]), [0, 2, 5, 20, 60, 120][seed]
    sizes = [(math.ceil(480 / s), math.ceil(608 / s)) for s in STRIDES]
    # All scales alike often; no coordinate is a round number, where float32 could decide.
    side = torch.exp(torch.rand(count, 2, generator=generator) * math.log(150)) * 3
    center = torch.rand(count, 2, generator=generator) * size
    boxes = torch.cat([center - side / 2, center + side / 2], dim=1)
    boxes[:, 0::2], boxes[:, 1::2] = boxes[:, 0::2].clamp(0, 608), boxes[:, 1::2].clamp(0, 480)
    boxes = torch.cat([boxes, boxes[:2]])  # two of them twice
    centers = [points(h, w, s) for (h, w), s in zip(sizes, STRIDES, strict=True)]
    found = match_points(centers, STRIDES, SCALE_RANGES, boxes, sigma=0.4)
    expected = published_loop(boxes, sizes)
    found[found == len(boxes)] = -1
    assert torch.equal(found, expected)
    assert (expected >= 0).sum() >= count


# Encoding


def square(x, y, size):
    return torch.tensor([[x - size / 2, y - size / 2, x + size / 2, y + size / 2]])


def test_targets_by_hand():
    # Point (36, 20) with base size 16; box from (20, 12) to (100, 28): the distances are 16, 8,
    # 64 and 8 px, over 16: 1, 0.5, 4, 0.5.
    deltas = FoveaBoxTransform().get_deltas(square(36, 20, 16.0), torch.tensor([[20, 12, 100, 28]]))
    expected = torch.tensor([[0.0, -math.log(2), math.log(4), -math.log(2)]])
    torch.testing.assert_close(deltas, expected)


def test_targets_are_clamped():
    # Distances 0.5, 400, -3 and 16 px over 16: 1/32 -> 1/16, 25 -> 16, below 0 -> 1/16, 1.
    box = torch.tensor([[99.5, -300.0, 97.0, 116.0]])
    deltas = FoveaBoxTransform().get_deltas(square(100, 100, 16.0), box)
    expected = torch.tensor([[-math.log(16), math.log(16), -math.log(16), 0.0]])
    torch.testing.assert_close(deltas, expected)
    deltas = FoveaBoxTransform(min_ratio=0.5, max_ratio=2).get_deltas(square(100, 100, 16.0), box)
    torch.testing.assert_close(deltas, expected.sign() * math.log(2))


def test_decoding_by_hand():
    # Base size 32: 32 * (1, 2, 0.5, 4) = 32, 64, 16, 128 px from (100, 100).
    deltas = torch.tensor([[1.0, 2.0, 0.5, 4.0]]).log()
    boxes = FoveaBoxTransform().apply_deltas(deltas, square(100, 100, 32.0))
    torch.testing.assert_close(boxes, torch.tensor([[68.0, 36.0, 116.0, 228.0]]))


def test_decoding_does_not_overflow_but_goes_beyond_the_targets():
    anchors = square(0, 0, 16.0).expand(3, 4)
    big = torch.tensor([math.log(32), 5.0, 1000.0])[:, None].expand(3, 4).requires_grad_()
    boxes = FoveaBoxTransform().apply_deltas(big, anchors)
    # 16 * 32, and Detectron2's bound of 16 * 1000 / 16.
    torch.testing.assert_close(boxes[:, 2], torch.tensor([512.0, 1000.0, 1000.0]))
    boxes.sum().backward()
    assert big.grad.isfinite().all()
    small = FoveaBoxTransform().apply_deltas(torch.full((1, 4), -1000.0), anchors[:1])
    assert torch.equal(small, torch.zeros(1, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decoded_in_float32(dtype):
    deltas = torch.randn(20, 4).to(dtype)
    corner = torch.rand(20, 2) * 2000
    anchors = torch.cat([corner, corner + 64], dim=1)
    boxes = FoveaBoxTransform().apply_deltas(deltas, anchors)
    assert boxes.dtype == torch.float32
    assert torch.equal(boxes, FoveaBoxTransform().apply_deltas(deltas.float(), anchors))


def test_round_trip_from_boxes_over_targets_to_boxes():
    # Detectron2's generator with offset 0.5 makes the squares: their centres are the points.
    generator = DefaultAnchorGenerator(
        sizes=[[s] for s in BASE_SIZES], aspect_ratios=[1.0], strides=STRIDES, offset=0.5
    )
    sizes = [(60, 76), (30, 38), (15, 19), (8, 10), (4, 5)]
    anchors = generator([torch.zeros(1, 1, *size) for size in sizes])
    centers = [boxes.get_centers() for boxes in anchors]
    for found, size, stride in zip(centers, sizes, STRIDES, strict=True):
        assert torch.equal(found, points(*size, stride))
    side = torch.exp(torch.rand(40, 2) * math.log(10)) * 30
    corner = torch.rand(40, 2) * (torch.tensor([600.0, 480.0]) - side).clamp(min=1)
    gt_boxes = torch.cat([corner, corner + side], dim=1)
    owner = match_points(centers, STRIDES, SCALE_RANGES, gt_boxes, sigma=0.4)
    positive = owner < len(gt_boxes)
    assert len(owner[positive].unique()) > 30
    anchors = torch.cat([boxes.tensor for boxes in anchors])[positive]
    matched = gt_boxes[owner[positive]]
    transform = FoveaBoxTransform()
    decoded = transform.apply_deltas(transform.get_deltas(anchors, matched), anchors)
    torch.testing.assert_close(decoded, matched, rtol=1e-5, atol=1e-2)
    assert (elementwise_box_iou(decoded, matched) > 0.999).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"min_ratio": 0.0}, "`min_ratio` and `max_ratio` with 0 < min_ratio < max_ratio, but got"),
        ({"min_ratio": 2.0, "max_ratio": 1.0}, "but got 2.0 and 1.0"),
        ({"scale_clamp": 1.0}, r"`scale_clamp` to be at least log\(max_ratio\) = 2.773.* got 1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FoveaBoxTransform(**arguments)
