"""Result files that are not what they should be, with the first offenders named."""

import json

import numpy as np
import pytest

from iou_balanced.analysis import read_detections, read_ground_truth

from .reference import coco_json, coco_results, random_data

TRUTH, FOUND = random_data(0, num_images=20)
RESULTS = [
    {**x, "bbox": [round(v, 1) for v in np.clip(x["bbox"], 1, 190)]}
    for x in coco_results(FOUND, np.ones(20, int))
]


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(coco_json(TRUTH)))
    return read_ground_truth(path)


def changed(number, **values):
    return [{**x, **values} if i < number else x for i, x in enumerate(RESULTS)]


def corners():
    def moved(x, y, w, h):
        x, y = 2 * x, 2 * y
        return [x, y, min(x + w, 400), min(y + h, 400)]

    return [{**x, "bbox": moved(*x["bbox"])} for x in RESULTS]


REFUSED = {
    "unknown image": (
        changed(7, image_id=900),
        r"7 of \d+ detections are of images .* image_id 900 \(first at \[0\]\). It has 20: 1, 2",
    ),
    "unknown category": (changed(1, category_id=90), r"categories .* category_id 90"),
    "classes from 0": (
        [{**x, "category_id": x["category_id"] - 1} for x in RESULTS],
        "Are these classes counted from 0",
    ),
    "NaN score": (
        changed(2, score=float("nan")),
        r"the score of 2 of \d+ detections is not a finite number: \[0\] nan, \[1\] nan",
    ),
    "score as text": (changed(1, score="high"), r"\[0\] 'high'"),
    "no score": (changed(1, score=None), r"\[0\] None"),
    "percent": (
        [{**x, "score": 100 * x["score"]} for x in RESULTS],
        r"scores are not in 0..1 \(they reach from .*\); are they percent\? Divide them by 100",
    ),
    "logits": (changed(6, score=-3.0), r"6 of \d+ scores .* logits.* and 1 more"),
    "corners": (corners(), r"fit when they are read as two corners.*First: \[\d+\] \(image"),
    "shares": (
        [{**x, "bbox": [v / 400 for v in x["bbox"]]} for x in RESULTS],
        "shares of the image",
    ),
    "negative sides": (changed(1, bbox=[5, 5, -3, 4]), "negative width or height"),
    "three numbers": (changed(1, bbox=[1, 2, 3]), r"bbox of 1 of .* four finite numbers"),
    "infinite box": (changed(1, bbox=[1, 2, float("inf"), 3]), r"bbox of 1 of "),
    "no box": ([{k: v for k, v in RESULTS[0].items() if k != "bbox"}], r"\[0\] lacks 'bbox'"),
    "no object": ([3], r"\[0\] is no object"),
    "ground truth": (coco_json(TRUTH), r"an object with the keys .* \(the ground truth\?\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(truth, tmp_path, case):
    results, message = REFUSED[case]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=message) as error:
        read_detections(path, truth)
    assert "mine.json" in str(error.value)


def test_warned_of(truth):
    warnings = []
    odd = changed(3, bbox=[10, 10, 0, 5])
    odd[5] = {**odd[5], "bbox": [350, 10, 100, 20]}
    found = read_detections(odd, truth, warn=warnings.append)
    assert len(found) == len(RESULTS)
    assert any("3 of" in w and "no area" in w and "[0]" in w for w in warnings)
    assert any("leave their image" in w and "[5]" in w for w in warnings)


def test_good_files_say_nothing(truth):
    warnings = []
    found = read_detections(RESULTS, truth, warn=warnings.append)
    assert not warnings and len(found) == len(RESULTS)
    assert len(read_detections([], truth, warn=warnings.append)) == 0
    # Ids of another type are the same ids.
    text = [{**x, "image_id": str(x["image_id"])} for x in RESULTS]
    np.testing.assert_array_equal(read_detections(text, truth).image, found.image)


def test_no_file(truth, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        read_detections(tmp_path / "nowhere.json", truth)
    with pytest.raises(ValueError, match="is a folder"):
        read_detections(tmp_path, truth)
    (tmp_path / "half.json").write_text('[{"image_id": 1')
    with pytest.raises(ValueError, match=r"half.json is not JSON"):
        read_detections(tmp_path / "half.json", truth)


def test_ground_truth_without_objects(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({**coco_json(TRUTH), "annotations": []}))
    with pytest.raises(ValueError, match="has no objects to find"):
        read_ground_truth(path)
    with pytest.raises(ValueError, match="only a folder in VOC format has splits"):
        read_ground_truth(path, split="val")
