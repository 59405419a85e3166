"""Whatever is in an annotation: it is trained on as it is, mended, or dropped with a finding."""

import json
import math

import pytest
from detectron2.structures import BoxMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iou_balanced.data.datasets.validation import validate_dataset_dicts
from iou_balanced.formats.coco_file import CocoFile

WIDTH, HEIGHT, K = 40, 30, 3
junk = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.floats(), st.integers(), st.lists(st.none())
)
values = st.one_of(st.floats(), st.integers(-100, 100), st.floats(-50, 90), junk)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.jpg"
    path.touch()
    return str(path)


annotations = st.fixed_dictionaries(
    {"category_id": st.one_of(st.integers(-1, K), junk)},
    optional={"bbox": st.one_of(st.lists(values, min_size=3, max_size=5), junk)},
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(annotations, max_size=4))
def test_what_remains_can_be_trained_on(image, found):
    records = [
        {
            "file_name": image,
            "width": WIDTH,
            "height": HEIGHT,
            "annotations": [{**a, "bbox_mode": BoxMode.XYWH_ABS} for a in found],
        }
    ]
    (record,), findings = validate_dataset_dicts(records, num_classes=K)
    dropped = len(found) - len(record["annotations"])
    kinds = ("not_finite", "unknown_class", "no_area", "outside")
    assert sum(findings.counts[kind] for kind in kinds) == dropped
    for annotation in record["annotations"]:
        x, y, w, h = annotation["bbox"]
        assert all(type(v) in (int, float) and math.isfinite(v) for v in (x, y, w, h))
        assert w > 0 and h > 0 and 0 <= annotation["category_id"] < K
        assert x >= -0.01 and y >= -0.01 and x + w <= WIDTH + 0.02 and y + h <= HEIGHT + 0.02
    # Once more: nothing is left to mend or to drop.
    again, more = validate_dataset_dicts([record], num_classes=K)
    assert again == [record] and not more.counts


entries = st.dictionaries(
    st.sampled_from(["id", "image_id", "category_id", "bbox", "iscrowd", "area", "ignore"]),
    st.one_of(values, st.lists(values, min_size=4, max_size=4), st.just(1)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=st.lists(entries, max_size=4))
def test_a_file_is_read_or_refused_by_name(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("files") / "a.json"
    data = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": found,
    }
    path.write_text(json.dumps(data))
    file = CocoFile(path)
    boxes = list(file.boxes())
    assert len(boxes) + file.findings.counts.total() >= len(found)
    for box in boxes:
        assert box.iscrowd in (0, 1) and all(math.isfinite(float(v)) for v in box.bbox)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(st.text(max_size=40), st.recursive(junk, st.lists, max_leaves=5).map(json.dumps))
)
def test_any_text_is_read_or_refused_by_name(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("files") / "a.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ValueError, match=r"a\.json"):
        CocoFile(path)
