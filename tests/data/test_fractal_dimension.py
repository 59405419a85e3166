"""How evenly classes are spread over the images: box counting by hand, and its way to the file."""

import json
import math

import numpy as np
import pytest
from detectron2.structures import BoxMode

from iou_balanced.data import ClassCounts
from iou_balanced.data.class_counts.__main__ import count_json_file
from iou_balanced.data.class_counts.fractal_dimension import fractal_dimensions


def test_by_hand():
    # Class 0: four centres in the four quarters, G = 1 and 2 (2^2 <= 4): N = 1, 4: slope
    # log 4 / log 2 = 2. Class 1: four along the upper edge: N = 1, 2: slope 1. Class 2: four in
    # one place: N = 1, 1, slope 0, which counts as 1. Class 3: three objects are too few.
    centers = [
        *[(0.2, 0.2), (0.7, 0.2), (0.2, 0.7), (0.7, 0.7)],
        *[(0.1, 0.1), (0.3, 0.1), (0.6, 0.1), (0.9, 0.1)],
        *[(0.4, 0.4)] * 4,
        *[(0.1, 0.9), (0.9, 0.1), (0.5, 0.5)],
    ]
    classes = np.repeat([0, 1, 2, 3], [4, 4, 4, 3])
    found = fractal_dimensions(np.array(centers), classes, 5)
    assert found.tolist() == pytest.approx([2, 1, 1, 1, 1])


def test_a_line_through_three_points():
    # Nine centres: G = 1, 2, 3. On the diagonal N = 1, 2, 3: slope 1 exactly. In the two quarters
    # at the left, all nine: x < 1/3, N = 1, 2, 3 too. With N = 1, 4, 5 the least squares over
    # (0, log 2, log 3) are worked out with numpy's own fit.
    diagonal = np.linspace(0.05, 0.95, 9)
    found = fractal_dimensions(np.stack([diagonal, diagonal], axis=1), np.zeros(9, int), 1)
    assert found[0] == pytest.approx(1)
    some = np.array([(0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9), (0.5, 0.5)] + [(0.1, 0.1)] * 4)
    slope, _ = np.polyfit(np.log([1, 2, 3]), np.log([1, 4, 5]), 1)
    assert fractal_dimensions(some, np.zeros(9, int), 1)[0] == pytest.approx(slope)


def test_all_over_the_image_is_about_2():
    centers = np.random.default_rng(0).random((20000, 2))
    assert 1.9 < fractal_dimensions(centers, np.zeros(20000, int), 1)[0] <= 2.0001


def record(boxes, mode=BoxMode.XYXY_ABS, **more):
    annotations = [{"bbox": box, "bbox_mode": mode, "category_id": 0, **more} for box in boxes]
    return {"file_name": "a.png", "width": 100, "height": 50, "annotations": annotations}


def test_of_boxes_in_both_modes():
    corners = [[0, 0, 20, 20], [60, 0, 100, 10], [0, 30, 10, 50], [70, 30, 90, 50]]
    sides = [[x, y, x2 - x, y2 - y] for x, y, x2, y2 in corners]
    for boxes, mode in ((corners, BoxMode.XYXY_ABS), (sides, BoxMode.XYWH_ABS)):
        records = [record(boxes, mode)]
        counts = ClassCounts.from_dicts(records, ["a"]).with_fractal_dimensions(records)
        assert counts.fractal_dimensions == pytest.approx((2.0,))
    crowd = [record(corners), record([[0, 0, 1, 1]], iscrowd=1)]
    counts = ClassCounts.from_dicts(crowd, ["a"]).with_fractal_dimensions(crowd)
    assert counts.fractal_dimensions == pytest.approx((2.0,))


def test_images_without_a_size_have_none():
    records = [{"annotations": record([[0, 0, 5, 5]])["annotations"]}]
    counts = ClassCounts.from_dicts(records, ["a"])
    assert counts.with_fractal_dimensions(records) is counts
    assert counts.fractal_dimensions is None


def test_the_file_keeps_them(tmp_path):
    counts = ClassCounts(
        ("a", "b"), (4, 2), (3, 1), num_images=3, fractal_dimensions=(math.pi / 2, 1.0)
    )
    loaded = ClassCounts.load(counts.save(tmp_path / "counts.json"))
    assert loaded.fractal_dimensions == counts.fractal_dimensions
    assert loaded.reordered(["b", "a"]).fractal_dimensions == (1.0, math.pi / 2)
    old = ClassCounts(("a", "b"), (4, 2), (3, 1), num_images=3)
    assert ClassCounts.load(old.save(tmp_path / "old.json")).fractal_dimensions is None
    assert old == counts  # they are about the same data


@pytest.mark.parametrize("bad", [(1.0,), (1.0, 0.0), (1.0, math.nan)])
def test_bad_dimensions(bad):
    with pytest.raises(ValueError, match=r"`fractal_dimensions` .*above 0.*2 classes"):
        ClassCounts(("a", "b"), (4, 2), (3, 1), num_images=3, fractal_dimensions=bad)


def test_of_a_coco_file(tmp_path):
    boxes = [[0, 0, 20, 20], [60, 0, 40, 10], [0, 30, 10, 20], [70, 30, 20, 20]]
    data = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 50}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for i, b in enumerate(boxes, start=1)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert count_json_file(str(tmp_path / "a.json")).fractal_dimensions == pytest.approx((2.0,))
