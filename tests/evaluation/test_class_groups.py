"""AP of tail and head, and AP next to the training counts."""

import csv
import logging
import math

import numpy as np
import pytest
from detectron2.utils import comm

from iou_balanced.data import ClassCounts
from iou_balanced.evaluation import (
    MAIN_METRICS,
    ClassGroups,
    COCOBoxEvaluator,
    VOCDetectionEvaluator,
)

from .helpers import (
    SIZE,
    coco_dict,
    detections_of,
    evaluate,
    instances,
    register_dicts,
    register_json,
)

# Training images: 1 + 2 + 7 + 90 = 100, so that the rarest classes have shares of 1%, 3% and 10%.
# In an order of its own; the evaluation's is gull, owl, crow, finch.
COUNTS = ClassCounts(
    class_names=["crow", "finch", "gull", "owl"],
    instances=[9, 200, 1, 3],
    images=[7, 90, 1, 2],
    num_images=95,
    name="birds",
)
NAMES = ["gull", "owl", "crow", "finch"]
# No owl is in the evaluated set. The crows are the two boxes of test_average_precision_by_hand.
TRUTH = [
    [(0, 10, 10, 50, 50), (2, 50, 50, 100, 100), (2, 250, 250, 100, 100)],
    [(3, 20, 20, 40, 40), (3, 200, 20, 40, 40)],
]
# The gull is found; of the crows one exactly, the other with IoU 0.8; one finch of two.
FOUND = [
    [(0, 0.9, 10, 10, 50, 50), (2, 0.9, 50, 50, 100, 100), (2, 0.5, 250, 250, 80, 100)],
    [(3, 0.9, 20, 20, 40, 40)],
]
# Of the 101 recall levels the 51 up to 1/2 are reached with one box of two. For the crows that
# holds at the thresholds 0.85, 0.9 and 0.95, and both are found at the other seven.
HALF = 100 * 51 / 101
CROW = (7 * 100 + 3 * HALF) / 10
AP = {"gull": 100, "owl": math.nan, "crow": CROW, "finch": HALF}


@pytest.fixture
def birds(tmp_path):
    data = coco_dict(TRUTH, category_ids=(2, 3, 5, 8), names=NAMES)
    return register_json(tmp_path, data), data


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("as_file", [True, False])
def test_tail_and_head(birds, tmp_path, as_file, caplog):
    counts = COUNTS.save(tmp_path / "counts.json") if as_file else COUNTS
    out = tmp_path / "out"
    evaluator = COCOBoxEvaluator(birds[0], output_dir=str(out), class_counts=counts)
    with caplog.at_level(logging.INFO, logger="iou_balanced"):
        metrics = evaluate(evaluator, FOUND)["bbox"]
    # 10% is nearer to 8.67% than 3%: gull, owl and crow are the tail; the owl has no AP.
    expected = {"AP_tail": (100 + CROW) / 2, "AP_head": HALF}
    expected |= {f"AP-{name}": value for name, value in AP.items()}
    assert list(metrics) == [*MAIN_METRICS, *expected]
    assert {k: metrics[k] for k in expected} == pytest.approx(expected, nan_ok=True)
    assert metrics["AP"] == pytest.approx((100 + CROW + HALF) / 3)

    rows = read(out / "class_metrics.csv")
    assert rows[0] == ["class", "train_instances", "train_images", "group", "AP", "AP50"]
    assert [row[:4] for row in rows[1:]] == [
        ["gull", "1", "1", "tail"],
        ["owl", "3", "2", "tail"],
        ["crow", "9", "7", "tail"],
        ["finch", "200", "90", "head"],
    ]
    assert [row[4] for row in rows[1:]] == [repr(metrics[f"AP-{name}"]) for name in NAMES]
    ap50 = [float(row[5]) for row in rows[1:]]
    assert ap50 == pytest.approx([100, math.nan, 100, HALF], nan_ok=True)
    assert dict(read(out / "coco_metrics.csv"))["bbox/AP_tail"] == repr(metrics["AP_tail"])

    table = caplog.text.split("Per-class bbox AP:\n")[1].splitlines()
    assert table[0] == "tail: 3 of 4 classes, with 10.00% of the images (tail ratio 8.67%)"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1:7]]
    assert cells[0] == ["class", "instances", "images", "group", "AP", "AP50"]
    assert cells[2:] == [
        ["gull", "1", "1", "tail", "100.0", "100.0"],
        ["owl", "3", "2", "tail", "-", "-"],
        ["crow", "9", "7", "tail", "85.1", "100.0"],
        ["finch", "200", "90", "head", "50.5", "50.5"],
    ]
    main = caplog.text.split("Evaluation results for bbox:\n")[1].splitlines()[0]
    assert main.replace("|", " ").split() == [*MAIN_METRICS, "AP_tail", "AP_head"]


@pytest.mark.parametrize(
    ("tail_ratio", "tail", "head"),
    [
        (0.03, 100, (CROW + HALF) / 2),  # gull and owl
        (0.0, math.nan, (100 + CROW + HALF) / 3),
        (1.0, (100 + CROW + HALF) / 3, math.nan),
    ],
)
def test_tail_ratio(birds, tail_ratio, tail, head):
    evaluator = COCOBoxEvaluator(birds[0], class_counts=COUNTS, tail_ratio=tail_ratio)
    metrics = evaluate(evaluator, FOUND)["bbox"]
    assert [metrics["AP_tail"], metrics["AP_head"]] == pytest.approx([tail, head], nan_ok=True)


def test_tail_without_ground_truth(birds):
    # The owl alone has 0.02 of the images, and none is evaluated.
    images = {"crow": 50, "finch": 48, "gull": 90, "owl": 4}
    counts = ClassCounts(list(images), images.values(), images.values(), 99)
    metrics = evaluate(COCOBoxEvaluator(birds[0], class_counts=counts, tail_ratio=0.02), FOUND)
    assert math.isnan(metrics["bbox"]["AP_tail"])
    assert metrics["bbox"]["AP_head"] == pytest.approx((100 + CROW + HALF) / 3)


def test_nothing_changes_without_counts(birds, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="iou_balanced"):
        metrics = evaluate(COCOBoxEvaluator(birds[0], output_dir=str(tmp_path / "out")), FOUND)
    assert list(metrics["bbox"]) == [*MAIN_METRICS, *(f"AP-{name}" for name in NAMES)]
    assert not list(tmp_path.rglob("class_metrics*"))
    assert "| category   | AP" in caplog.text and "tail" not in caplog.text


def test_nothing_detected(birds, tmp_path):
    evaluator = COCOBoxEvaluator(birds[0], output_dir=str(tmp_path), class_counts=COUNTS)
    metrics = evaluate(evaluator, [])["bbox"]
    assert metrics["AP_tail"] == metrics["AP_head"] == 0
    rows = read(tmp_path / "class_metrics.csv")
    assert [row[4:] for row in rows[1:]] == [["0.0"] * 2, ["nan"] * 2, ["0.0"] * 2, ["0.0"] * 2]


def test_masks(birds, tmp_path):
    data = birds[1]
    for ann in data["annotations"]:
        x, y, w, h = ann["bbox"]
        ann["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    name = register_json(tmp_path, data)
    out = tmp_path / "out"
    evaluator = COCOBoxEvaluator(name, output_dir=str(out), class_counts=COUNTS)
    evaluator.reset()
    for image, detections in zip(data["images"], detections_of(data), strict=True):
        found = instances(detections)
        masks = np.zeros((len(detections), SIZE, SIZE), dtype=bool)
        for mask, (cls, _, x, y, w, h) in zip(masks, detections, strict=True):
            mask[y : y + h, x : x + w] = cls != 3  # boxes of finches without a mask
        found.pred_masks = masks
        evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
    results = evaluator.evaluate()
    assert list(results["segm"])[10:12] == ["AP_tail", "AP_head"]
    assert results["bbox"]["AP_head"] == pytest.approx(100)
    assert results["segm"]["AP_tail"] == pytest.approx(100)
    assert results["segm"]["AP_head"] == 0
    assert float(read(out / "class_metrics.csv")[4][4]) == pytest.approx(100)
    assert float(read(out / "class_metrics_segm.csv")[4][4]) == 0


def test_other_classes(birds, tmp_path):
    path = tmp_path / "counts.json"
    ClassCounts(["gull", "owl", "crow", "tit"], [1] * 4, [1] * 4, 9).save(path)
    message = r"counts\.json to have the 4 classes .*they lack 'finch'; they have also 'tit'"
    with pytest.raises(ValueError, match=message):
        COCOBoxEvaluator(birds[0], class_counts=str(path))
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        COCOBoxEvaluator(birds[0], class_counts=str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=r"`tail_ratio` to be in \[0, 1\], but got 8.67"):
        COCOBoxEvaluator(birds[0], class_counts=COUNTS, tail_ratio=8.67)


def test_only_who_evaluates_reads_the_file(birds, monkeypatch):
    # On another machine the main process's file may not be there.
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    COCOBoxEvaluator(birds[0], class_counts="none.json")
    with pytest.raises(FileNotFoundError):
        COCOBoxEvaluator(birds[0], distributed=False, class_counts="none.json")


def test_without_annotations(birds, tmp_path):
    data = {k: v for k, v in birds[1].items() if k != "annotations"}
    evaluator = COCOBoxEvaluator(register_json(tmp_path, data), class_counts=COUNTS)
    assert evaluate(evaluator, FOUND) == {}


def test_groups_follow_the_images():
    # Images 4, 6, 6 and 84 of 100: the rarest one, three and four classes have 4%, 16% and 100%.
    counts = ClassCounts(["a", "b", "c", "d"], [20, 9, 8, 84], [4, 6, 6, 84], 99)
    groups = ClassGroups(counts, ["d", "c", "b", "a"], tail_ratio=0.14)
    assert groups.is_tail.tolist() == [False, True, True, True]
    lines = groups.format_table({}).splitlines()
    assert [line.split()[1] for line in lines[3:]] == ["a", "c", "b", "d"]


def test_voc(tmp_path, caplog):
    annotations = [
        {"category_id": k, "bbox": [x, y, x + w, y + h], "bbox_mode": 0, "difficult": 0}
        for k, x, y, w, h in TRUTH[0]
    ]
    name = register_dicts([{"image_id": 100, "file_name": "-", "annotations": annotations}], NAMES)
    evaluator = VOCDetectionEvaluator(name, str(tmp_path), class_counts=COUNTS, metric="area")
    with caplog.at_level(logging.INFO, logger="iou_balanced"):
        results = evaluate(evaluator, FOUND[:1])
    # By area, the crows have AP 1/2 at the thresholds of 0.85 and above. There is no finch.
    crow = (7 * 100 + 3 * 50) / 10
    for metrics in results.values():
        assert list(metrics)[7:9] == ["AP_tail", "AP_head"] and list(metrics)[9] == "AP-gull"
        assert math.isnan(metrics["AP_head"])
    assert results["bbox"]["AP_tail"] == pytest.approx((100 + crow) / 2)
    assert results["bbox_11point"]["AP_tail"] != results["bbox"]["AP_tail"]
    rows = read(tmp_path / "class_metrics.csv")
    assert rows[3][:4] == ["crow", "9", "7", "tail"]
    assert [float(x) for x in rows[3][4:]] == pytest.approx([crow, 100])
    assert "Training counts and AP (area):\ntail: 3 of 4 classes" in caplog.text
    with pytest.raises(ValueError, match=r"class counts 'birds' .* they lack 'dodo'"):
        VOCDetectionEvaluator(register_dicts([], ["dodo"]), class_counts=COUNTS)
