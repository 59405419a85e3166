"""VOCDetectionEvaluator where the model's classes are not those of the data set."""

import csv
import logging
import math

import numpy as np
import pytest

from iou_balanced.data import ClassCounts
from iou_balanced.evaluation import VOCDetectionEvaluator

from .helpers import evaluate, random_scene, register_dicts

NAMES = ["cat", "dog", "emu"]


def records(truth, order):
    """Annotations whose class k of `NAMES` has the number that `order` gives it."""
    return [
        {
            "image_id": 100 + i,
            "file_name": "-",
            "annotations": [
                {"category_id": order.index(NAMES[k]), "bbox": box, "bbox_mode": 1, "difficult": 0}
                for k, *box in boxes
                if NAMES[k] in order
            ],
        }
        for i, boxes in enumerate(truth)
    ]


@pytest.mark.parametrize("order", [["emu", "cat", "dog"], ["dog", "cat", "emu"]])
def test_another_order_gives_the_same(order, tmp_path):
    truth, found = random_scene(seed=3)
    results, files = [], []
    for i, own in enumerate((NAMES, order)):
        name = register_dicts(records(truth, own), own)
        folder = tmp_path / str(i)
        evaluator = VOCDetectionEvaluator(name, str(folder), class_names=NAMES)
        assert evaluator.class_names == NAMES
        results.append(evaluate(evaluator, found))
        # Those in COCO's format have the ids of the data set.
        written = [f for f in folder.iterdir() if f.suffix != ".json"]
        texts = {f.name.replace(name, "val"): f.read_text() for f in written}
        files.append(texts)
    assert results[0] == results[1]
    assert [k for k in results[0]["bbox"] if k.startswith("AP-")] == [f"AP-{n}" for n in NAMES]
    assert len({results[0]["bbox"][f"AP-{n}"] for n in NAMES}) == 3  # else no order would matter
    assert files[0] == files[1] and "comp4_det_val_emu.txt" in files[0]
    # The default are the data set's own: another result, because these ids are not the model's.
    assert evaluate(VOCDetectionEvaluator(name), found)["bbox"]["AP"] < results[0]["bbox"]["AP"] / 2


def test_a_data_set_that_lacks_a_class(tmp_path, caplog):
    truth, found = random_scene(seed=4)
    own = ["emu", "cat"]
    counts = ClassCounts(NAMES, [90, 5, 2], [90, 5, 2], 97)
    name = register_dicts(records(truth, own), own)
    with caplog.at_level(logging.WARNING):
        evaluator = VOCDetectionEvaluator(
            name, str(tmp_path), class_names=NAMES, class_counts=counts
        )
    (record,) = [r for r in caplog.records if "of the model's 3 classes" in r.getMessage()]
    assert record.getMessage() == (
        f"'{name}' has 2 of the model's 3 classes: the AP of the others is NaN and in no mean "
        "('dog')."
    )
    result = evaluate(evaluator, found)["bbox"]
    whole = register_dicts(records(truth, NAMES), NAMES)
    expected = evaluate(VOCDetectionEvaluator(whole), found)["bbox"]
    assert math.isnan(result["AP-dog"]) and expected["AP-dog"] > 0
    for cls in own:
        assert result[f"AP-{cls}"] == expected[f"AP-{cls}"]
    assert result["AP"] == pytest.approx(np.mean([expected["AP-cat"], expected["AP-emu"]]))
    # Dogs and emus have 7 of 97 images, near the 8.67% of the tail.
    assert result["AP_tail"] == result["AP-emu"] and result["AP_head"] == result["AP-cat"]
    with open(tmp_path / "class_metrics.csv") as f:
        rows = list(csv.reader(f))
    assert [row[0] for row in rows[1:]] == NAMES and rows[2][4:] == ["nan", "nan"]


def test_nothing_is_said_where_all_are_there(caplog):
    VOCDetectionEvaluator(register_dicts([], NAMES), class_names=NAMES[::-1])
    assert not caplog.records


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (["cat", "fox"], "has 1 classes that the model does not have: 'fox'.*'cat', 'dog', 'emu'"),
        (["Cat"], "differ in upper and lower case or blanks only: 'Cat' and 'cat'"),
    ],
)
def test_a_class_that_the_model_does_not_have(own, message):
    with pytest.raises(ValueError, match=message):
        VOCDetectionEvaluator(register_dicts([], own), class_names=NAMES)


@pytest.mark.parametrize("category_id", [2, -1])
def test_a_category_id_outside_the_classes(category_id):
    truth = [[(0, 10, 10, 20, 20)]]
    (record,) = records(truth, NAMES)
    record["annotations"][0]["category_id"] = category_id
    name = register_dicts([record], ["dog", "cat"])
    with pytest.raises(ValueError, match=f"category_id {category_id} is none of its 2 classes"):
        VOCDetectionEvaluator(name, class_names=NAMES)
