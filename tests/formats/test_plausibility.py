import numpy as np
import pytest

from iou_balanced.formats.findings import Findings
from iou_balanced.formats.plausibility import BoxFormatCheck


def check(boxes, width=640, height=480, box_format="xywh"):
    """Findings of boxes."""
    found, suspicion = Findings(), BoxFormatCheck("boxes.json", box_format)
    for i, box in enumerate(boxes):
        suspicion.add(*map(float, box), width, height, f"box {i}")
    suspicion.report(found)
    return dict(found.counts)


def objects(rng, number, least, most, width=640, height=480):
    """Random boxes inside the image, sides in [least, most] of the image's."""
    size = rng.uniform(least, most, (number, 2)) * [width, height]
    corner = rng.uniform(0, 1, (number, 2)) * ([width, height] - size)
    return np.concatenate([corner, size], axis=1)


KINDS_OF_VALID_DATA = {
    "usual": (0.05, 0.5),
    "large": (0.6, 1.0),
    "tiny": (0.001, 0.004),  # 0.5 to 2.5 pixels
    "whole images": (0.999, 1.0),
}


@pytest.mark.parametrize("kind", KINDS_OF_VALID_DATA)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", [1, 5, 300])
def test_valid_data_raises_no_alarm(kind, seed, number):
    boxes = objects(np.random.default_rng(seed), number, *KINDS_OF_VALID_DATA[kind])
    assert check(boxes) == {}
    assert check(np.rint(boxes)) == {}  # in whole pixels
    corners = boxes.copy()
    corners[:, 2:] += corners[:, :2]
    assert check(corners, box_format="xyxy") == {}
    as_voc_counts = np.rint(corners) + np.array([1, 1, 0, 0])
    assert check(as_voc_counts, box_format="xyxy") == {}


@pytest.mark.parametrize("seed", range(3))
def test_objects_beyond_the_border_raise_no_alarm(seed):
    # As whole bodies of persons at the border are annotated: a third of the boxes stick out.
    rng = np.random.default_rng(seed)
    boxes = objects(rng, 300, 0.05, 0.5)
    boxes[:50, 0] = rng.uniform(0.7, 0.99, 50) * 640
    boxes[50:100, 1] = rng.uniform(0.7, 0.99, 50) * 480
    boxes[100:150, :2] = -0.5 * boxes[100:150, 2:]
    assert check(boxes) == {}


def test_a_few_objects_in_the_corner_raise_no_alarm():
    boxes = [*objects(np.random.default_rng(0), 100, 0.05, 0.5), (0, 0, 0.7, 0.7), (0, 0, 1, 1)]
    assert check(boxes) == {}


def test_images_of_a_pixel_or_two_raise_no_alarm():
    assert check([(0, 0, 0.9, 1)] * 5, width=1, height=1) == {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("number", [8, 300])
def test_corners_are_refused(seed, number):
    boxes = objects(np.random.default_rng(seed), number, 0.2, 0.5)
    boxes[:, 2:] += boxes[:, :2]
    with pytest.raises(ValueError, match=r'boxes.json: .*corners.*bbox_format="xyxy".*box \d: bo'):
        check(boxes)


def test_few_corners_are_told():
    assert check([(300, 200, 600, 400), (320, 200, 500, 470)]) == {"xyxy": 2}
    # Among others, a fifth of a merged file.
    boxes = objects(np.random.default_rng(0), 100, 0.05, 0.2)
    boxes[:50, 2:] += boxes[:50, :2]
    counts = check(boxes)
    assert set(counts) == {"xyxy"} and 20 <= counts["xyxy"] <= 50


@pytest.mark.parametrize("number", [1, 8, 300])
@pytest.mark.parametrize("centers", [False, True])
def test_shares_are_refused(number, centers):
    boxes = objects(np.random.default_rng(0), number, 0.05, 1.0, 1, 1)
    if centers:  # as YOLO's text files have them
        boxes[:, :2] += boxes[:, 2:] / 2
    with pytest.raises(ValueError, match=rf"{number} of {number} boxes are smaller than a pixel"):
        check(boxes)


def test_some_shares_are_told():
    rng = np.random.default_rng(0)
    boxes = [*objects(rng, 80, 0.05, 0.5), *objects(rng, 20, 0.05, 0.9, 1, 1)]
    assert check(boxes) == {"shares": 20}


def test_no_boxes():
    assert check([]) == {}


@pytest.mark.parametrize("seed", range(3))
def test_width_and_height_in_the_place_of_a_corner_are_refused(seed):
    boxes = objects(np.random.default_rng(seed), 40, 0.05, 0.4)
    with pytest.raises(ValueError, match=r"end before they begin .*VOC's xmax and ymax are the"):
        check(boxes, box_format="xyxy")
    assert check([(300, 200, 50, 40), (310, 220, 40, 30)], box_format="xyxy") == {"xywh": 2}


def test_stray_clicks_raise_no_alarm():
    boxes = objects(np.random.default_rng(0), 100, 0.05, 0.4)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:3, 2:] = boxes[:3, :2]
    boxes[3, [0, 2]] = boxes[3, [2, 0]]  # drawn from the right
    assert check(boxes, box_format="xyxy") == {}


def test_shares_as_corners_are_refused():
    boxes = objects(np.random.default_rng(0), 9, 0.05, 0.4, 1, 1)
    boxes[:, 2:] += boxes[:, :2]
    with pytest.raises(ValueError, match=r"9 of 9 boxes are smaller .*VOC's bndbox is in pixels"):
        check(boxes, box_format="xyxy")
