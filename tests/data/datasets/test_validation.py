import copy
import logging

import pytest
from detectron2.structures import BoxMode
from PIL import Image

from iou_balanced.data.datasets.validation import CheckedLoader, Findings, validate_dataset_dicts


@pytest.fixture
def make_record(tmp_path):
    """make(*boxes, **keys): a dict of an image of 40 x 30 with these XYXY boxes of class 0."""

    def make(*boxes, mode=BoxMode.XYXY_ABS, category_id=0, file="a.png"):
        path = tmp_path / file
        if not path.exists() and file == "a.png":
            Image.new("RGB", (40, 30)).save(path)
        annotations = [
            {"bbox": list(b), "bbox_mode": mode, "category_id": category_id} for b in boxes
        ]
        return {"file_name": str(path), "height": 30, "width": 40, "annotations": annotations}

    return make


def _boxes(dicts):
    return [a["bbox"] for d in dicts for a in d["annotations"]]


def test_valid_data_is_returned_as_it_came(make_record):
    record = make_record((0, 0, 40, 30), (1, 2, 3, 4))
    dicts, findings = validate_dataset_dicts([record], num_classes=1)
    assert dicts == [record]
    assert not findings.counts


@pytest.mark.parametrize(
    ("kind", "box"),
    [
        ("no_area", (5, 5, 5, 9)),
        ("no_area", (5, 5, 9, 4)),
        ("outside", (40, 5, 50, 9)),
        ("outside", (5, -9, 9, 0)),
        ("not_finite", (5, float("nan"), 9, 9)),
        ("not_finite", (5, 5, float("inf"), 9)),
        ("not_finite", (5, 5, 9)),
        ("not_finite", (5, "x", 9, 9)),
    ],
)
def test_drops_box(make_record, kind, box):
    record = make_record((1, 2, 3, 4), box)
    dicts, findings = validate_dataset_dicts([record], num_classes=1)
    assert _boxes(dicts) == [[1, 2, 3, 4]]
    assert findings.counts == {kind: 1}
    assert "a.png, box 1" in findings.examples[kind][0]
    assert len(record["annotations"]) == 2  # the caller's dicts are left alone


@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
def test_clips_box_in_its_own_mode(make_record, mode):
    # XYXY (-2, 5, 50, 35) in an image of 40 x 30 becomes (0, 5, 40, 30)
    record = make_record(BoxMode.convert([-2, 5, 50, 35], BoxMode.XYXY_ABS, mode), mode=mode)
    dicts, findings = validate_dataset_dicts([record], num_classes=1)
    expected = {BoxMode.XYXY_ABS: [0, 5, 40, 30], BoxMode.XYWH_ABS: [0, 5, 40, 25]}
    assert _boxes(dicts) == [expected[mode]]
    assert findings.counts == {"clipped": 1}


def test_rounding_in_the_file_is_no_finding(make_record):
    record = make_record((-0.005, 0, 40.005, 30))
    dicts, findings = validate_dataset_dicts([record], num_classes=1)
    assert _boxes(dicts) == [[-0.005, 0, 40.005, 30]]
    assert not findings.counts


@pytest.mark.parametrize("category_id", [1, -1, "horse", None])
def test_drops_unknown_class(make_record, category_id):
    record = make_record((1, 2, 3, 4), category_id=category_id)
    dicts, findings = validate_dataset_dicts([record], num_classes=1)
    assert _boxes(dicts) == []
    assert findings.counts == {"unknown_class": 1}
    assert repr(category_id) in findings.examples["unknown_class"][0]


def test_image_that_loses_its_boxes_stays_and_missing_image_goes(make_record):
    dicts = [make_record((5, 5, 5, 5)), make_record((1, 2, 3, 4), file="gone.png")]
    kept, findings = validate_dataset_dicts(dicts, num_classes=1)
    assert [d["annotations"] for d in kept] == [[]]
    assert findings.counts == {"no_area": 1, "missing_image": 1}
    assert findings.examples["missing_image"][0].endswith("gone.png")


def test_rotated_boxes_are_refused(make_record):
    record = make_record((1, 2, 3, 4), mode=BoxMode.XYWHA_ABS)
    with pytest.raises(ValueError, match="bbox_mode must be XYXY_ABS or XYWH_ABS"):
        validate_dataset_dicts([record], num_classes=1)


def _loader(dicts, **kwargs):
    def load():
        return copy.deepcopy(dicts), Findings()

    return CheckedLoader(load, name="d", class_names=["c"], **kwargs)


def test_one_summary_with_counts_and_first_examples(make_record, caplog):
    load = _loader([make_record((1, 2, 3, 4), *[(k, 5, k, 9) for k in range(8)], (39, 1, 44, 9))])
    with caplog.at_level(logging.WARNING):
        assert _boxes(load()) == _boxes(load()) == [[1, 2, 3, 4], [39.0, 1.0, 40.0, 9.0]]
    (message,) = [r.getMessage() for r in caplog.records if "iou_balanced" in r.name]
    assert "data set 'd', number of findings: 9" in message
    assert "8 x box without area (dropped)" in message
    assert "box 1: (0, 5, 0, 9)" in message
    assert "and 3 more" in message
    assert "1 x box partly outside the image (clipped to it)" in message
    assert "box 9: (39, 1, 44, 9), image 40 x 30" in message


def test_only_the_main_process_logs(make_record, caplog, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    with caplog.at_level(logging.WARNING):
        _loader([make_record((5, 5, 5, 5), (1, 2, 3, 4))])()
    assert not [r for r in caplog.records if "iou_balanced" in r.name]


def test_error_says_what_the_summary_says(make_record):
    load = _loader([make_record((5, 5, 5, 5))], on_invalid="error")
    for _ in range(2):  # each time: a second loader must not get the data that the first refused
        with pytest.raises(ValueError, match=r"(?s)1 x box without area.*a.png, box 0: \(5, 5"):
            load()


def test_no_image_left_is_an_error(make_record):
    with pytest.raises(ValueError, match=r"(?s)no usable image left.*gone.png"):
        _loader([make_record(file="gone.png")])()


def test_bad_on_invalid():
    with pytest.raises(ValueError, match="on_invalid must be 'drop' or 'error', but got 'skip'"):
        _loader([], on_invalid="skip")
