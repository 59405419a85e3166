"""Boxes from polygons: by hand, and against cityscapesscripts' own instance images."""

import json
import sys

import numpy as np
import pytest
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from pycocotools import mask as mask_utils

from iou_balanced.data.datasets.cityscapes_polygons import category_names, visible_objects

from .cityscapes_tree import STREET, TRAIN, polygons, rectangle

PERSON, RIDER, CAR, TRUCK, BUS = 24, 25, 26, 27, 28


def rows(content, **options):
    objects, hidden = visible_objects(content, **options)
    return [(x.category_id, x.bbox, x.area, x.is_group) for x in objects], hidden


def test_the_8_classes():
    names = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert list(category_names().values()) == names
    assert list(category_names()) == [24, 25, 26, 27, 28, 31, 32, 33]


def test_street_by_hand():
    expected = [
        (CAR, (10, 20, 30, 40), 1200, False),  # 40 wide, of which the next car hides 10
        (CAR, (40, 20, 40, 40), 1600, False),  # neither the plate nor what is deleted hides it
        (PERSON, (110, 10, 10, 60), 600, False),  # the right half
        (RIDER, (150, 50, 10, 30), 300, False),
        (PERSON, (180, 40, 50, 60), 3000, True),
        (PERSON, (0, 100, 10, 20), 200, True),
        (TRUCK, (240, 100, 16, 28), 448, False),  # 256 - 240 by 128 - 100
    ]
    assert rows(polygons(STREET)) == (expected, 1)  # the bicycle is hidden


def test_street_by_whole_polygons():
    objects, hidden = rows(polygons(STREET), boxes="polygon")
    boxes = [box for _, box, _, is_group in objects if not is_group]
    assert boxes == [
        (10, 20, 40, 40),
        (40, 20, 40, 40),
        (100, 10, 20, 60),
        (150, 50, 10, 30),
        (240, 100, 16, 28),
    ]
    # Areas are of what is visible, and what is hidden is no object, here too.
    assert [area for _, _, area, _ in objects] == [1200, 1600, 600, 300, 3000, 200, 448]
    assert hidden == 1


def test_all_groups_of_a_class_as_one():
    more = rectangle("cargroup", 30, 90, 10, 10)
    objects, hidden = rows(polygons([*STREET, more]), groups="class")
    groups = [row for row in objects if row[-1]]
    # From 0 to 230 and from 40 to 120; 3000 + 200 pixels.
    assert groups == [(PERSON, (0, 40, 230, 80), 3200, True), (CAR, (30, 90, 10, 10), 100, True)]
    assert len(objects) == 7 and hidden == 1


def test_a_triangle():
    # Both ends of a side belong to it: 41 x 41, and 41 + 40 + ... + 1 pixels.
    expected = [(BUS, (10, 10, 41, 41), 41 * 42 // 2, False)]
    assert rows(polygons(TRAIN["bochum_000000_000313"])) == (expected, 0)


def random_content(seed, size=(256, 128)):
    """Stars of all kinds of labels, many over each other and some beyond the image."""
    rng = np.random.default_rng(seed)
    labels = [*category_names().values(), "persongroup", "cargroup", "bicyclegroup", "caravan"]
    labels += ["pole", "static", "sky", "license plate", "trailer"]
    objects = []
    for _ in range(60):
        corners = rng.integers(3, 12)
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = np.exp(rng.uniform(0, np.log(60))) * rng.uniform(0.3, 1, corners)
        points = (
            rng.uniform(0, size, 2) + np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
        )
        objects.append({"label": str(rng.choice(labels)), "polygon": points.round().tolist()})
        if rng.random() < 0.1:
            objects[-1]["deleted"] = 1
    return polygons(objects, size)


def instances_of(content):
    """(label id, XYWH, area, is_group) of each number in cityscapesscripts' instance image."""
    annotation = Annotation()
    annotation.fromJsonText(json.dumps(content))
    image = np.asarray(createInstanceImage(annotation, "ids"))
    found = []
    for number in np.unique(image):
        label = int(number) // 1000 if number >= 1000 else int(number)
        if label in category_names():
            mask = mask_utils.encode(np.asfortranarray(image == number, dtype=np.uint8))
            box = tuple(int(v) for v in mask_utils.toBbox(mask))
            found.append((label, box, int(mask_utils.area(mask)), bool(number < 1000)))
    return sorted(found)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_instance_images(seed):
    content = random_content(seed)
    expected = instances_of(content)
    objects, _ = rows(content, groups="class")
    assert sorted(objects) == expected
    assert sum(row[-1] for row in expected) >= 2  # groups too
    # Each group by itself: the pixels are the same.
    apart, _ = rows(content)
    for label in (PERSON, CAR):
        area = {
            name: sum(a for i, _, a, is_group in found if is_group and i == label)
            for name, found in (("one", objects), ("each", apart))
        }
        assert area["one"] == area["each"]
    assert [row for row in apart if not row[-1]] == [row for row in objects if not row[-1]]


def test_a_polygon_that_nothing_hides_has_its_extent():
    content = random_content(0)
    for item in content["objects"][1:]:
        item.update(label="car", deleted=0)
        alone = {**content, "objects": [item]}
        xs, ys = zip(*item["polygon"], strict=True)
        x0, y0 = max(min(xs), 0), max(min(ys), 0)
        x1, y1 = min(max(xs) + 1, 256), min(max(ys) + 1, 128)
        assert rows(alone, boxes="polygon")[0][0][1] == (x0, y0, x1 - x0, y1 - y0)
        if min(xs) >= 0 and min(ys) >= 0 and max(xs) < 256 and max(ys) < 128:
            assert rows(alone) == rows(alone, boxes="polygon")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"label": "cargroups", "polygon": []}, r"objects\[1\] has the label 'cargroups'"),
        ({"label": "group", "polygon": []}, r"objects\[1\] has the label 'group'"),
        ({"label": "car", "polygon": [[1, 2]]}, r"objects\[1\], a car: polygon .* cannot be drawn"),
        ({"label": "car", "polygon": [[1], [2]]}, r"a car: polygon \[\[1\], \[2\]\] cannot be"),
    ],
)
def test_what_cannot_be_read(item, message):
    with pytest.raises(ValueError, match=message):
        visible_objects(polygons([item]))


def test_without_cityscapesscripts(monkeypatch):
    monkeypatch.setitem(sys.modules, "cityscapesscripts.helpers", None)
    with pytest.raises(ImportError, match="pip install cityscapesScripts"):
        category_names()
