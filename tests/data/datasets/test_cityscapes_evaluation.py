"""COCO metrics on Cityscapes: perfect detections, and broken ones with known AP."""

import math

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from iou_balanced.data import register_cityscapes
from iou_balanced.evaluation import COCOBoxEvaluator

from .cityscapes_tree import SIZE, TRAIN, VAL, make_cityscapes

LINDAU, FRANKFURT = "lindau_000000_000019", "frankfurt_000000_000294"


def evaluate(name, detections):
    """`detections`: {stem: [(class, score, x, y, width, height), ...]}."""
    classes = MetadataCatalog.get(name).thing_classes
    evaluator = COCOBoxEvaluator(name)
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        stem = record["file_name"].rsplit("/", 1)[-1].removesuffix("_leftImg8bit.png")
        found = detections.get(stem, [])
        instances = Instances(SIZE[::-1])
        boxes = torch.tensor([row[2:] for row in found], dtype=torch.float32).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.tensor([float(row[1]) for row in found])
        instances.pred_classes = torch.tensor([classes.index(row[0]) for row in found]).long()
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()["bbox"]


def truth(name):
    """Detections equal to the boxes that are no crowd."""
    classes = MetadataCatalog.get(name).thing_classes
    found = {}
    for record in DatasetCatalog.get(name):
        stem = record["file_name"].rsplit("/", 1)[-1].removesuffix("_leftImg8bit.png")
        found[stem] = [
            (classes[a["category_id"]], 0.9, *BoxMode.convert(a["bbox"], a["bbox_mode"], 1))
            for a in record["annotations"]
            if not a["iscrowd"]
        ]
    return found


@pytest.fixture
def val(tmp_path):
    return register_cityscapes(root=make_cityscapes(tmp_path, "val", VAL), split="val")


@pytest.fixture
def perfect(val):
    """{stem: detections}: both cars and the rider, and the person, who is no crowd."""
    return {
        LINDAU: [
            ("car", 0.9, 10, 10, 40, 40),
            ("car", 0.8, 100, 10, 40, 40),
            ("rider", 0.9, 200, 10, 20, 40),
        ],
        FRANKFURT: [("person", 0.5, 120, 60, 10, 40)],
    }


def test_perfect_detections(val, perfect):
    metrics = evaluate(val, perfect)
    # The cars have 1600 pixels and are medium; rider (800) and person (400) are small.
    for key in ("AP", "AP50", "AP75", "AP90", "APs", "APm", "AP-car", "AP-rider", "AP-person"):
        assert metrics[key] == pytest.approx(100), key
    assert all(math.isnan(metrics[key]) for key in ("APl", "AP-bus", "AP-bicycle"))


def test_all_boxes_of_the_training_split(tmp_path):
    name = register_cityscapes(root=make_cityscapes(tmp_path, "train", TRAIN), split="train")
    metrics = evaluate(name, truth(name))
    assert metrics["AP"] == pytest.approx(100)
    # A hidden car's whole box is no longer right: 30 of its 40 columns show, so IoU is 0.75.
    found = truth(name)
    stem = "aachen_000000_000019"
    (hidden,) = [i for i, row in enumerate(found[stem]) if row[2:] == (10, 20, 30, 40)]
    found[stem][hidden] = ("car", 0.9, 10, 20, 40, 40)
    metrics = evaluate(name, found)
    # Above 0.75 one of two cars is found.
    assert metrics["AP75"] == pytest.approx(100) and 0 < metrics["AP-car"] < 100
    assert metrics["AP80"] < 100


def test_broken_detections_by_hand(val, perfect):
    # Car B is found by a box of 32 x 40 in its 40 x 40: IoU 0.8. At the 7 thresholds from 0.5 to
    # 0.8 AP is 1; at 0.85, 0.9 and 0.95 recall ends at 1/2 with precision 1: 51 of 101 levels.
    # The rider is not found: AP 0. The person is: AP 1.
    perfect[LINDAU] = [("car", 0.9, 10, 10, 40, 40), ("car", 0.8, 100, 10, 32, 40)]
    metrics = evaluate(val, perfect)
    car = 100 * (7 + 3 * 51 / 101) / 10
    assert metrics["AP-car"] == pytest.approx(car)
    assert metrics["AP-rider"] == 0 and metrics["AP-person"] == pytest.approx(100)
    assert metrics["AP"] == pytest.approx((car + 0 + 100) / 3)


# XYWH in the image with two groups of persons, at 0 to 40 and at 200 to 240.
IN_A_GROUP = (5, 65, 20, 20)
BETWEEN_THE_GROUPS = (60, 65, 20, 20)


def with_a_person(perfect, box):
    """A better score than that of the person who is there."""
    return {**perfect, FRANKFURT: [*perfect[FRANKFURT], ("person", 0.95, *box)]}


def test_a_detection_on_a_group_does_not_count(val, perfect):
    for _ in range(3):  # any number of them
        perfect = with_a_person(perfect, IN_A_GROUP)
    assert evaluate(val, perfect)["AP-person"] == pytest.approx(100)


def test_a_detection_beside_the_groups_counts(val, perfect):
    # The false one comes first: precision is 1/2 where the person is found.
    metrics = evaluate(val, with_a_person(perfect, BETWEEN_THE_GROUPS))
    assert metrics["AP-person"] == pytest.approx(50)
    # A group of persons excuses nothing of another class.
    perfect[FRANKFURT].append(("rider", 0.95, *IN_A_GROUP))
    assert evaluate(val, perfect)["AP-rider"] == pytest.approx(50)


def test_all_groups_as_one_excuse_what_is_between(tmp_path, perfect):
    name = register_cityscapes(root=tmp_path, split="val", groups="class", name="as_one")
    metrics = evaluate(name, with_a_person(perfect, BETWEEN_THE_GROUPS))
    assert metrics["AP-person"] == pytest.approx(100)
