"""What evaluators leave for the analysis: from it, the same numbers."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from iou_balanced.analysis import analyze
from iou_balanced.analysis.run_folder import read_run_folder
from iou_balanced.data import register_coco_json, register_voc
from iou_balanced.evaluation import COCOBoxEvaluator, VOCDetectionEvaluator

from .helpers import coco_dict, evaluate, random_scene, register_dicts, register_json, unique_name
from .test_voc import random_voc, run


def analysed(folder):
    inputs = read_run_folder(folder)
    truth = inputs.read_ground_truth()
    return truth, analyze(truth, {"x": inputs.detections}, draws=2, permutations=0).runs["x"]


def assert_same(table, metrics):
    shared = set(table) & set(metrics)
    assert {"AP", "AP50", "AP90", "APs"} <= shared
    for name in shared:
        assert table[name]["value"] == pytest.approx(metrics[name], abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("model", [None, ["class 1", "unseen", "class 0"]])
def test_a_json_file_and_classes_of_another_order(model, tmp_path):
    boxes, found = random_scene(1, num_classes=2)
    name = register_json(tmp_path, coco_dict(boxes))
    if model:
        places = {0: 2, 1: 0}
        found = [[(places[k], *rest) for k, *rest in rows] for rows in found]
    evaluator = COCOBoxEvaluator(name, output_dir=str(tmp_path / "out"), class_names=model)
    results = evaluate(evaluator, found)["bbox"]
    truth, table = analysed(tmp_path / "out")
    assert list(truth.class_names) == (model or ["class 0", "class 1"])
    assert_same(table, results)
    assert read_run_folder(tmp_path / "out").data_set == name


def test_corners_and_categories_that_are_left_out(tmp_path):
    boxes, found = random_scene(2, num_classes=3)
    data = coco_dict(boxes, category_ids=(3, 17, 40))
    for annotation in data["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x, y, x + w, y + h]
    (tmp_path / "truth.json").write_text(json.dumps(data))
    name = register_coco_json(
        name=unique_name(),
        json_file=str(tmp_path / "truth.json"),
        image_root=str(tmp_path),
        class_names=["class 2", "class 0"],
        bbox_format="xyxy",
    )
    places = {2: 0, 0: 1}
    found = [[(places[k], *rest) for k, *rest in rows if k in places] for rows in found]
    results = evaluate(COCOBoxEvaluator(name, output_dir=str(tmp_path / "out")), found)["bbox"]
    truth, table = analysed(tmp_path / "out")
    assert truth.class_names == ["class 2", "class 0"]
    assert_same(table, results)


def test_dicts_only(tmp_path):
    boxes, found = random_scene(3, num_classes=2)
    records = [
        {
            "image_id": 100 + i,
            "file_name": str(tmp_path / f"{i}.png"),
            "width": 400,
            "height": 400,
            "annotations": [{"category_id": k, "bbox": box, "bbox_mode": 1} for k, *box in rows],
        }
        for i, rows in enumerate(boxes)
    ]
    name = register_dicts(records, ["a", "b"])
    results = evaluate(COCOBoxEvaluator(name, output_dir=str(tmp_path / "out")), found)["bbox"]
    truth, table = analysed(tmp_path / "out")
    assert truth.file_names[0] == str(tmp_path / "0.png")
    assert_same(table, results)


def test_difficult_objects_of_voc_are_left_aside(tmp_path):
    images, outputs = random_voc(tmp_path / "VOC2007", 5)
    name = register_voc(years=2007, split="test", root=str(tmp_path), name=unique_name("voc"))
    out = tmp_path / "out"
    evaluator = VOCDetectionEvaluator(name, str(out))
    results = run(evaluator, dict(enumerate(outputs.values(), start=1)))["bbox"]
    truth, table = analysed(out)
    objects = [x for rows in images.values() for x in rows]
    assert int(truth.ignored.sum()) == sum(difficult for *_, difficult in objects) > 0
    assert not truth.crowd.any() and len(truth.class_names) == 20
    np.testing.assert_allclose(
        truth.boxes[:, 2:], [(b[2] - b[0] + 1, b[3] - b[1] + 1) for _, b, _ in objects]
    )
    detections = json.loads((out / "coco_instances_results.json").read_text())
    boxes = np.concatenate([x["instances"].pred_boxes.tensor.numpy() for x in outputs.values()])
    boxes[:, 2:] -= boxes[:, :2]
    found = np.array(sorted(x["bbox"] for x in detections))
    np.testing.assert_allclose(found, sorted(boxes.tolist()), atol=1e-4)
    # The area under the curve, once at 101 recalls and once as it is.
    assert table["AP"]["value"] == pytest.approx(results["AP"], abs=1.5)
    assert len(detections) == len(boxes) and MetadataCatalog.get(name).get("json_file") is None
