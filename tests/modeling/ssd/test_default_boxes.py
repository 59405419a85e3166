import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from torchvision.ops import box_iou

from iou_balanced.modeling import DefaultBoxGenerator, match_default_boxes, ssd_box_sizes
from iou_balanced.modeling.ssd.default_boxes import _share_out, match_images

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


class TestBoxSizes:
    # Percents of the image: the first scale, then low + i * step with the step cut to a percent.
    @pytest.mark.parametrize(
        ("size", "levels", "scale_range", "first", "expected"),
        [
            # (90 - 20) // 4 = 17
            (300, 6, (0.2, 0.9), 0.1, [30, 60, 111, 162, 213, 264, 315]),
            # 75 // 4 = 18
            (300, 6, (0.15, 0.9), 0.07, [21, 45, 99, 153, 207, 261, 315]),
            # 75 // 5 = 15
            (512, 7, (0.15, 0.9), 0.07, [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6]),
            # 80 // 5 = 16
            (
                512,
                7,
                (0.1, 0.9),
                0.04,
                [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72],
            ),
            # One step only; and a step that would give one level more.
            (100, 3, (0.5, 0.9), 0.2, [20, 50, 90, 130]),
            (100, 12, (0.2, 0.99), 0.1, [10, *range(20, 98, 7)]),
        ],
    )
    def test_by_hand(self, size, levels, scale_range, first, expected):
        sizes = ssd_box_sizes(size, levels, scale_range, first, whole_pixels=False)
        expected = list(pairwise(expected))
        torch.testing.assert_close(torch.tensor(sizes), torch.tensor(expected, dtype=torch.float32))
        whole = ssd_box_sizes(size, levels, scale_range, first)
        assert whole == [(int(low), int(high)) for low, high in expected]

    @pytest.mark.parametrize(
        ("levels", "scale_range", "first", "message"),
        [
            (2, (0.2, 0.9), 0.1, "`num_levels` to be at least 3, but got 2"),
            (6, (0.9, 0.2), 0.1, r"but got 0\.1 and \(0\.9, 0\.2\)"),
            (6, (0.2, 0.9), 0.2, r"but got 0\.2 and \(0\.2, 0\.9\)"),
            (6, (0.2, 0.9), 0.0, r"but got 0\.0 and"),
            (6, (0.2, 0.23), 0.1, "a percent or more a level apart"),
        ],
    )
    def test_arguments_that_make_no_sense(self, levels, scale_range, first, message):
        with pytest.raises(ValueError, match=message):
            ssd_box_sizes(300, levels, scale_range, first)


def maps(*sizes):
    return [torch.zeros(2, 1, height, width) for height, width in sizes]


class TestGenerator:
    def test_by_hand(self):
        generator = DefaultBoxGenerator(
            min_max_sizes=[(4, 9), (16, 25)], aspect_ratios=[[4], []], strides=[8, 100]
        )
        assert generator.num_anchors == generator.num_cell_anchors == [4, 2]
        first, second = generator(maps((2, 1), (1, 2)))
        # Sides 4; sqrt(4 * 9) = 6; 4 * sqrt(4) by 4 / sqrt(4), which is 8 by 2; and 2 by 8. The
        # first cell's centre is (4, 4), that of the next row (4, 12).
        assert first.tensor.tolist() == [
            [2, 2, 6, 6],
            [1, 1, 7, 7],
            [0, 3, 8, 5],
            [3, 0, 5, 8],
            [2, 10, 6, 14],
            [1, 9, 7, 15],
            [0, 11, 8, 13],
            [3, 8, 5, 16],
        ]
        # Sides 16 and sqrt(16 * 25) = 20 around (50, 50) and, the next column, (150, 50).
        assert second.tensor.tolist() == [
            [42, 42, 58, 58],
            [40, 40, 60, 60],
            [142, 42, 158, 58],
            [140, 40, 160, 60],
        ]

    @pytest.mark.parametrize("folder", ["COCO", "VOC"])
    @pytest.mark.parametrize(("size", "count"), [(300, 8732), (512, 24564)])
    def test_as_many_boxes_as_in_the_paper(self, folder, size, count):
        model = LazyConfig.load(str(CONFIGS / folder / f"ssd{size}.py")).model
        with torch.device("meta"):
            backbone = instantiate(model.backbone)
            features = backbone(torch.zeros(1, 3, size, size))
        generator = instantiate(model.anchor_generator)
        boxes = generator([torch.zeros(1, 1, *x.shape[2:]) for x in features.values()])
        assert sum(len(x) for x in boxes) == count
        assert generator.num_anchors == list(model.head.num_anchors)
        low, high = generator.min_max_sizes[-1]
        # The last level is one cell, in the middle of the image.
        middle = torch.tensor([size / 2] * 4)
        corners = torch.tensor([-1.0, -1, 1, 1]) / 2
        torch.testing.assert_close(boxes[-1].tensor[0], middle + low * corners)
        torch.testing.assert_close(boxes[-1].tensor[1], middle + math.sqrt(low * high) * corners)

    def test_sizes_of_the_configs(self):
        first = {
            (folder, size): [
                low
                for low, _ in instantiate(
                    LazyConfig.load(str(CONFIGS / folder / f"ssd{size}.py")).model.anchor_generator
                ).min_max_sizes
            ]
            for folder in ("COCO", "VOC")
            for size in (300, 512)
        }
        assert first == {
            ("COCO", 300): [21, 45, 99, 153, 207, 261],
            ("VOC", 300): [30, 60, 111, 162, 213, 264],
            ("COCO", 512): [20, 51, 133, 215, 296, 378, 460],
            ("VOC", 512): [35, 76, 153, 230, 307, 384, 460],
        }

    def test_boxes_are_no_weights_and_follow_the_device(self):
        generator = DefaultBoxGenerator(min_max_sizes=[(4, 9)], aspect_ratios=[[2, 3]], strides=[8])
        assert not generator.state_dict() and not list(generator.parameters())
        assert (
            generator.to("meta")([torch.zeros(1, 1, 5, 4, device="meta")])[0].device.type == "meta"
        )
        assert repr(generator).startswith(
            "DefaultBoxGenerator(\n  min_max_sizes=[(4, 9)], aspect_r"
        )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"strides": [8]}, "one entry for each level, but got 2, 2 and 1"),
            ({"min_max_sizes": [(4, 9), (9, 9)]}, r"level 1 to have 0 < min < max.*got \(9, 9\)"),
            ({"min_max_sizes": [(0, 9), (9, 10)]}, r"level 0 to have"),
            ({"aspect_ratios": [[2], [2, 1]]}, r"level 1 .* ratios greater than 1 .*\[2, 1\]"),
            ({"strides": [8, 0]}, "level 1 .* stride greater than 0.* 0$"),
        ],
    )
    def test_arguments_that_make_no_sense(self, change, message):
        arguments = {
            "min_max_sizes": [(4, 9), (9, 20)],
            "aspect_ratios": [[2], [2]],
            "strides": [8, 16],
        }
        with pytest.raises(ValueError, match=message):
            instantiate(L(DefaultBoxGenerator)(**{**arguments, **change}))

    def test_another_number_of_maps(self):
        generator = DefaultBoxGenerator(min_max_sizes=[(4, 9)], aspect_ratios=[[2]], strides=[8])
        with pytest.raises(ValueError, match="`features` to have 1 levels, but got 2"):
            generator(maps((1, 1), (1, 1)))


def match(gt_boxes, default_boxes, **kwargs):
    boxes = [torch.tensor(x, dtype=torch.float32).reshape(-1, 4) for x in (gt_boxes, default_boxes)]
    matches = match_default_boxes(*boxes, **kwargs)
    assert matches.dtype == torch.int64 and matches.shape == (len(default_boxes),)
    return matches.tolist()


class TestMatching:
    def test_every_box_above_the_threshold(self):
        # 10 x 10 objects; boxes shifted by 0, 2 and 4 pixels: IoU 1, 80 / 120 and 60 / 140.
        boxes = [[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [50, 50, 60, 60]]
        assert match([[0, 0, 10, 10]], boxes) == [0, 0, -1, -1]
        assert match([[0, 0, 10, 10]], boxes, iou_threshold=0.7) == [0, -1, -1, -1]
        assert match([[0, 0, 10, 10]], boxes, iou_threshold=0.4) == [0, 0, 0, -1]

    def test_the_threshold_itself_is_enough(self):
        # The second box is half of the object.
        assert match([[0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 5, 10]]) == [0, 0]

    def test_a_box_above_the_threshold_goes_to_its_best_object(self):
        # Box 1 has IoU 100 / 120 with object 0 and 100 / 110 with object 1; each has its own too.
        objects = [[0, 0, 10, 12], [0, 0, 10, 11]]
        boxes = [[0, 0, 10, 12], [0, 0, 10, 10], [0, 0, 10, 11]]
        assert match(objects, boxes) == [0, 1, 1]

    def test_an_object_below_the_threshold_gets_its_best_box(self):
        # 4 x 4 in 10 x 10 is 0.16, and 4 x 4 in 20 x 20 is 0.04.
        assert match([[1, 1, 5, 5]], [[0, 0, 20, 20], [0, 0, 10, 10]]) == [-1, 0]

    def test_objects_that_share_their_best_box(self):
        # Both are inside box 0: IoU 0.36 and 0.16. Box 1, 20 x 20, has 36 / 400 and 16 / 400. The
        # larger one wins box 0, whichever comes first, and the other gets box 1.
        large, small = [1, 1, 7, 7], [2, 2, 6, 6]
        boxes = [[0, 0, 10, 10], [0, 0, 20, 20], [50, 50, 60, 60]]
        assert match([large, small], boxes) == [0, 1, -1]
        assert match([small, large], boxes) == [1, 0, -1]

    def test_who_loses_a_box_may_take_that_of_another(self):
        # IoU with boxes 0, 1, 2:       A: 0.9  0.8  0.1    B: 1.0  0.0  0.0   C: 0.0  0.7  0.2
        # B takes box 0 from A, A then takes box 1, which C wanted and had alone, and C box 2.
        iou = torch.tensor([[0.9, 0.8, 0.1], [1.0, 0.0, 0.0], [0.0, 0.7, 0.2]])
        assert _share_out(iou).tolist() == [1, 0, 2]
        # The order of the objects does not matter.
        assert _share_out(iou[[2, 1, 0]]).tolist() == [2, 0, 1]
        # With two boxes C gets none.
        assert _share_out(iou[:, :2]).tolist() == [1, 0, -1]

    def test_equal_objects_and_boxes(self):
        # Object 0 gets box 0 and object 1 the equal box 1; box 2 is of both equally: the lower one.
        box = [0, 0, 10, 10]
        assert match([box, box], [box, box, box]) == [0, 1, 0]
        # More objects than boxes: the lowest ones.
        assert match([box, box, box], [box, box]) == [0, 1]

    def test_an_object_that_touches_no_box(self):
        assert match([[50, 50, 60, 60]], [[0, 0, 10, 10], [20, 20, 30, 30]]) == [-1, -1]
        # It does not disturb the others, in whatever order.
        assert match([[50, 50, 60, 60], [0, 0, 9, 10]], [[0, 0, 10, 10], [20, 20, 30, 30]]) == [
            1,
            -1,
        ]
        objects = [[50, 50, 60, 60], [0, 0, 9, 10], [60, 50, 60.5, 60], [0, 0, 8, 10]]
        assert match(objects, [[0, 0, 10, 10], [20, 20, 30, 30]]) == [1, -1]

    def test_no_objects_or_no_boxes(self):
        assert match([], [[0, 0, 10, 10]] * 3) == [-1] * 3
        assert match([[0, 0, 10, 10]], []) == []

    def test_a_batch_is_its_images(self):
        torch.manual_seed(8)
        boxes = torch.rand(200, 4) * 40
        boxes[:, 2:] += boxes[:, :2] + 4
        # With and without shared boxes, and without objects.
        images = [torch.cat([x, x + 6 + 3 * x], dim=1) for x in map(torch.rand, [(9, 2), (1, 2)])]
        images = [images[0] * 9, torch.zeros(0, 4), images[1] * 9, images[0] * 2, images[0] * 0.1]
        batch = match_images(images, boxes, 0.4)
        assert len(batch) == len(images)
        for objects, found in zip(images, batch, strict=True):
            assert torch.equal(found, match_default_boxes(objects, boxes, 0.4))
        assert match_images([], boxes) == []

    def test_arguments_are_not_touched(self):
        objects, boxes = torch.rand(4, 4), torch.rand(30, 4)
        objects[:, 2:] += 1
        boxes[:, 2:] += 1
        copies = objects.clone(), boxes.clone()
        match_default_boxes(objects, boxes)
        assert torch.equal(objects, copies[0]) and torch.equal(boxes, copies[1])

    @pytest.mark.parametrize("seed", range(6))
    def test_crowds_of_small_objects(self, seed):
        # Tens of objects in the cells of a few boxes: long chains of objects that want the same.
        torch.manual_seed(seed)
        generator = DefaultBoxGenerator(
            min_max_sizes=[(12, 30), (30, 50)], aspect_ratios=[[2], [2, 3]], strides=[8, 16]
        )
        boxes = torch.cat([x.tensor for x in generator(maps((4, 4), (2, 2)))])
        corner = torch.rand(40, 2) * 24
        objects = torch.cat([corner, corner + 2 + torch.rand(40, 2) ** 3 * 20], dim=1)
        matches = match_default_boxes(objects, boxes)
        # The greedy rule as it is written, on a copy of the overlaps.
        iou = box_iou(objects, boxes)
        free = iou.clone()
        expected = torch.full((len(boxes),), -1)
        while free.max() > 1e-6:
            i, r = divmod(int(free.argmax()), len(boxes))
            expected[r] = i
            free[i] = free[:, r] = 0
        others = expected < 0
        best, owner = iou.max(dim=0)
        expected[others & (best >= 0.5)] = owner[others & (best >= 0.5)]
        assert matches.tolist() == expected.tolist()
        assert len(set(matches.tolist()) - {-1}) == 40
