import csv
import json
import math
import sys

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import coco_evaluation
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from iou_balanced.evaluation import MAIN_METRICS, COCOBoxEvaluator

from .helpers import (
    BOXES,
    SIZE,
    coco_dict,
    detections_of,
    evaluate,
    instances,
    random_scene,
    register_json,
)

SCORERS = ["pycocotools", "faster-coco-eval"]


@pytest.fixture(params=SCORERS)
def scorer(request):
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    return request.param


def test_perfect_detections(tmp_path, scorer):
    data = coco_dict(BOXES)
    name = register_json(tmp_path, data)
    evaluator = COCOBoxEvaluator(name, output_dir=str(tmp_path / "out"), scorer=scorer)
    results = evaluate(evaluator, detections_of(data))
    assert list(results) == ["bbox"]
    assert list(results["bbox"]) == [*MAIN_METRICS, "AP-class 0", "AP-class 1"]
    assert all(v == pytest.approx(100) for v in results["bbox"].values())
    assert evaluate(evaluator, detections_of(data)) == results
    assert evaluator.evaluate() == results  # twice without reset: ids are not mapped twice


def test_average_precision_by_hand(tmp_path, scorer):
    # One class, two boxes of 100 x 100. Detection A (score 0.9) is exact. Detection B (score 0.5)
    # is as high as its box and 80 wide: IoU 8000 / 10000 = 0.8. Thresholds 0.5 to 0.75: both are
    # found with precision 1, AP 1. At 0.8 COCO counts an IoU that equals the threshold (less 1e-10)
    # as found: AP 1. At 0.85, 0.9, 0.95 B is false: recall stops at 1/2 with precision 1, and of
    # the 101 recall levels 0, 0.01 .. 1 the first 51 have it: 51/101.
    # AP = (7 * 1 + 3 * 51/101) / 10.
    data = coco_dict([[(0, 50, 50, 100, 100), (0, 250, 250, 100, 100)]], category_ids=(1,))
    name = register_json(tmp_path, data)
    detections = [[(0, 0.9, 50, 50, 100, 100), (0, 0.5, 250, 250, 80, 100)]]
    metrics = evaluate(COCOBoxEvaluator(name, scorer=scorer), detections)["bbox"]
    low = 100 * 51 / 101
    assert metrics["AP"] == pytest.approx((7 * 100 + 3 * low) / 10, abs=1e-9)
    for key in ("AP50", "AP60", "AP70", "AP75", "AP80"):
        assert metrics[key] == pytest.approx(100)
    assert metrics["AP90"] == pytest.approx(low)
    assert math.isnan(metrics["APs"]) and math.isnan(metrics["APm"])
    assert metrics["APl"] == metrics["AP"]
    # One class only: the stock evaluator leaves this key out.
    assert metrics["AP-class 0"] == metrics["AP"]


def reference(json_file, results_file, max_dets=100):
    """pycocotools by itself, on the files."""
    gt = COCO(json_file)
    coco_eval = COCOeval(gt, gt.loadRes(results_file), "bbox")
    coco_eval.params.maxDets = [1, 10, max_dets]
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    p = coco_eval.eval["precision"][..., -1]

    def mean(x):
        return 100 * x[x > -1].mean()

    expected = {"AP": mean(p[..., 0])}
    for key, t in [("50", 0), ("60", 2), ("70", 4), ("75", 5), ("80", 6), ("90", 8)]:
        expected[f"AP{key}"] = mean(p[t][..., 0])
    expected |= {f"AP{key}": mean(p[..., a]) for key, a in [("s", 1), ("m", 2), ("l", 3)]}
    names = [c["name"] for c in gt.loadCats(coco_eval.params.catIds)]
    expected |= {f"AP-{name}": mean(p[:, :, k, 0]) for k, name in enumerate(names)}
    return expected, coco_eval.stats


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_pycocotools(tmp_path, scorer, seed):
    truth, found = random_scene(seed)
    data = coco_dict(truth, category_ids=(9, 2, 44), names=["nine", "two", "x, y"], crowd={4, 9})
    name = register_json(tmp_path, data)
    # Classes count in the order of the ids: 2, 9, 44.
    found = [[((1, 0, 2)[cls], *rest) for cls, *rest in image] for image in found]
    out = tmp_path / "out"
    evaluator = COCOBoxEvaluator(name, output_dir=str(out), scorer=scorer)
    metrics = evaluate(evaluator, found)["bbox"]
    expected, stats = reference(
        MetadataCatalog.get(name).json_file, str(out / "coco_instances_results.json")
    )
    assert metrics.keys() == expected.keys()
    assert 5 < metrics["AP"] < 95 and metrics["AP-nine"] != metrics["AP-two"]
    for key, value in expected.items():
        assert metrics[key] == pytest.approx(value, abs=1e-6), key
    keys = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert [metrics[k] for k in keys] == pytest.approx(100 * stats[:6], abs=1e-6)

    with open(out / "coco_metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["metric", "value"]
    assert {k: float(v) for k, v in rows[1:]} == {f"bbox/{k}": v for k, v in metrics.items()}


@pytest.mark.parametrize("max_dets", [3, 200])
def test_other_limit_of_detections(tmp_path, scorer, max_dets):
    truth, found = random_scene(2, num_classes=1)
    name = register_json(tmp_path, coco_dict(truth, category_ids=(1,)))
    evaluator = COCOBoxEvaluator(
        name, output_dir=str(tmp_path), max_dets_per_image=max_dets, scorer=scorer
    )
    metrics = evaluate(evaluator, found)["bbox"]
    results_file = tmp_path / "coco_instances_results.json"
    if max_dets < 10:
        # Keep the best three of each image by hand; COCO's usual limit then cuts nothing.
        results = sorted(json.loads(results_file.read_text()), key=lambda r: -r["score"])
        kept = {}
        for r in results:
            kept.setdefault(r["image_id"], []).append(r)
        results_file.write_text(json.dumps([r for rs in kept.values() for r in rs[:max_dets]]))
        assert any(len(rs) > max_dets for rs in kept.values())
    expected, _ = reference(MetadataCatalog.get(name).json_file, str(results_file))
    assert metrics == pytest.approx(expected, abs=1e-6)


def test_some_images_only(tmp_path, scorer):
    data = coco_dict(BOXES)
    name = register_json(tmp_path, data)
    evaluator = COCOBoxEvaluator(name, scorer=scorer)
    found = detections_of(data)
    found[1] = []  # nothing is found in the second image
    assert evaluate(evaluator, found)["bbox"]["AP"] < 80
    assert evaluate(evaluator, found, img_ids=[100])["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("processed", [True, False])
def test_nothing_detected(tmp_path, scorer, processed):
    data = coco_dict(BOXES[1:], crowd=())  # class 0 large; class 1 has no box at all
    name = register_json(tmp_path, data)
    evaluator = COCOBoxEvaluator(name, output_dir=str(tmp_path), scorer=scorer)
    metrics = evaluate(evaluator, [[], []] if processed else [])["bbox"]
    assert list(metrics) == [*MAIN_METRICS, "AP-class 0", "AP-class 1"]
    nan = {k for k, v in metrics.items() if math.isnan(v)}
    assert nan == {"APs", "APm", "AP-class 1"}
    assert all(v == 0 for k, v in metrics.items() if k not in nan)
    assert "bbox/APs,nan" in (tmp_path / "coco_metrics.csv").read_text()


def test_result_file_with_annotations(tmp_path):
    data = coco_dict(BOXES)
    name = register_json(tmp_path, data)
    evaluator = COCOBoxEvaluator(name, result_file=str(tmp_path / "sub" / "a_results.json"))
    assert evaluate(evaluator, detections_of(data))["bbox"]["AP"] == pytest.approx(100)
    assert len(json.loads((tmp_path / "sub" / "a_results.json").read_text())) == 3


def test_names_follow_the_category_ids(tmp_path):
    # The metadata numbers the classes against the order of the ids; the names must not be swapped.
    data = coco_dict(BOXES, category_ids=(3, 17), names=["three", "seventeen"])
    name = register_json(tmp_path, data)
    meta = MetadataCatalog.get(name)
    del meta.thing_classes, meta.thing_dataset_id_to_contiguous_id
    meta.set(thing_classes=["seventeen", "three"], thing_dataset_id_to_contiguous_id={17: 0, 3: 1})
    found = detections_of(data, class_of={17: 0, 3: 1})
    found[0] = found[0][:1]  # without the only box of class "seventeen"
    metrics = evaluate(COCOBoxEvaluator(name), found)["bbox"]
    assert metrics["AP-three"] == pytest.approx(100) and metrics["AP-seventeen"] == 0


def test_masks(tmp_path, scorer):
    data = coco_dict(BOXES)
    for ann in data["annotations"]:
        x, y, w, h = ann["bbox"]
        ann["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    name = register_json(tmp_path, data)
    evaluator = COCOBoxEvaluator(name, scorer=scorer)
    evaluator.reset()
    for image, detections in zip(data["images"], detections_of(data), strict=True):
        found = instances(detections)
        masks = np.zeros((len(detections), SIZE, SIZE), dtype=bool)
        for mask, (_, _, x, y, w, h) in zip(masks, detections, strict=True):
            mask[y : y + h, x : x + w] = True
        found.pred_masks = masks
        evaluator.process([{"image_id": image["id"]}], [{"instances": found}])
    results = evaluator.evaluate()
    assert set(results) == {"bbox", "segm"}
    for metrics in results.values():
        assert metrics["AP90"] == pytest.approx(100) and list(metrics)[:10] == list(MAIN_METRICS)


@pytest.mark.parametrize("detected", [True, False])
def test_keypoints_keep_the_stock_metrics(tmp_path, detected):
    data = coco_dict([[(0, 10, 10, 80, 80)]], category_ids=(1,))
    points = np.array([[20 + 2 * i, 30 + i, 2] for i in range(17)], dtype=np.float32)
    data["annotations"][0] |= {"keypoints": points.flatten().tolist(), "num_keypoints": 17}
    name = register_json(tmp_path, data)
    evaluator = COCOBoxEvaluator(name, tasks=("bbox", "keypoints"))
    found = instances([(0, 0.9, 10, 10, 80, 80)] if detected else [])
    found.pred_keypoints = np.tile(points + np.array([0.5, 0.5, 0]), (len(found), 1, 1))
    evaluator.reset()
    evaluator.process([{"image_id": 100}], [{"instances": found}])
    results = evaluator.evaluate()
    assert list(results["keypoints"]) == ["AP", "AP50", "AP75", "APm", "APl"]
    assert results["bbox"]["AP"] == pytest.approx(100 if detected else 0)
    if detected:
        assert results["keypoints"]["AP"] == pytest.approx(100)


def test_stock_module_is_restored(tmp_path, monkeypatch):
    previous = coco_evaluation.COCOeval_opt
    name = register_json(tmp_path, coco_dict(BOXES))
    evaluator = COCOBoxEvaluator(name)

    def broken(*args):
        assert coco_evaluation.COCOeval_opt is not previous
        raise RuntimeError("in the scorer")

    monkeypatch.setattr(evaluator, "_scorer", broken)
    with pytest.raises(RuntimeError, match="in the scorer"):
        evaluate(evaluator, detections_of(coco_dict(BOXES)))
    assert coco_evaluation.COCOeval_opt is previous


def test_bad_arguments(tmp_path, monkeypatch):
    name = register_json(tmp_path, coco_dict(BOXES))
    with pytest.raises(ValueError, match=r"`scorer` to be one of .* but got 'fast'"):
        COCOBoxEvaluator(name, scorer="fast")
    with pytest.raises(ValueError, match=r"`result_file` to end in \.json, but got a\.txt"):
        COCOBoxEvaluator(name, output_dir=str(tmp_path), result_file="a.txt")
    with pytest.raises(ValueError, match="or output_dir to be given"):
        COCOBoxEvaluator(name, result_file="a.json")
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match="pip install faster-coco-eval"):
        COCOBoxEvaluator(name, scorer="faster-coco-eval")
    assert COCOBoxEvaluator(name, scorer="auto")._scorer is COCOeval


def test_pycocotools_scores_unless_another_is_asked_for(tmp_path):
    name = register_json(tmp_path, coco_dict(BOXES))
    assert COCOBoxEvaluator(name)._scorer is COCOeval
    assert COCOBoxEvaluator(name, scorer="auto", use_fast_impl=False)._scorer is COCOeval
