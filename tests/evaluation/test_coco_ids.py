"""What is scored has ids of our own: any ids, areas and flags of a file give the same numbers."""

import contextlib
import copy
import json
import math

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from iou_balanced.data import register_coco_json
from iou_balanced.evaluation import COCOBoxEvaluator, VOCDetectionEvaluator, load_ground_truth

from .helpers import SIZE, coco_dict, instances, random_scene, register_dicts, unique_name

SCORERS = ["pycocotools", "faster-coco-eval"]
CLASSES = ["cat", "dog", "owl"]


def reference(data, results):
    """pycocotools by itself on a file of ids from 1: {metric: value}."""
    with contextlib.redirect_stdout(None):
        truth = COCO()
        truth.dataset = copy.deepcopy(data)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    p = evaluation.eval["precision"][..., -1]  # (T, R, K, A)

    def mean(x):
        return 100 * x[x > -1].mean() if (x > -1).any() else math.nan

    expected = {"AP": mean(p[..., 0]), "AP50": mean(p[0, ..., 0]), "AP90": mean(p[8, ..., 0])}
    expected |= {f"AP{key}": mean(p[..., a]) for key, a in [("s", 1), ("m", 2), ("l", 3)]}
    return expected | {f"AP-{name}": mean(p[:, :, k, 0]) for k, name in enumerate(CLASSES)}


def scene(seed):
    """A valid file with ids from 1, crowds and ties among the scores, and the model's results."""
    truth, found = random_scene(seed)
    rng = np.random.default_rng(seed)
    data = coco_dict(truth, category_ids=(1, 2, 3), names=CLASSES)
    for image in data["images"]:
        image["id"] -= 99
    for annotation in data["annotations"]:
        annotation["image_id"] -= 99
        annotation["iscrowd"] = int(rng.random() < 0.1)
        # So that areas that are taken from the box instead would be seen.
        annotation["area"] *= float(rng.choice([0.3, 1.0]))
    found = [[(k, round(s, 1), *box) for k, s, *box in image] for image in found]
    return data, [instances(image) for image in found]


def results_of(data, predictions):
    results = []
    for image, found in zip(data["images"], predictions, strict=True):
        results += instances_to_coco_json(found, image["id"])
    return [{**r, "category_id": r["category_id"] + 1} for r in results]


def score(tmp_path, data, predictions, scorer, image_ids=None, **kwargs):
    """Through the loader, as a user's file: `image_ids` is what the loaded images are to have."""
    images = tmp_path / "images"
    images.mkdir(exist_ok=True)
    for image in data["images"]:
        path = images / image["file_name"]
        if not path.exists():
            Image.new("L", (SIZE, SIZE)).save(path)
    json_file = tmp_path / "instances.json"
    json_file.write_text(json.dumps(data))
    name = register_coco_json(
        name=unique_name("ids"), json_file=str(json_file), image_root=str(images)
    )
    evaluator = COCOBoxEvaluator(name, distributed=False, scorer=scorer, **kwargs)
    evaluator.reset()
    by_file = {
        image["file_name"]: found for image, found in zip(data["images"], predictions, strict=True)
    }
    for record in DatasetCatalog.get(name):
        found = by_file[record["file_name"].rsplit("/", 1)[-1]]
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def text_in_order(number):
    return f"im{number:04d}"


# new id of an image, of an annotation; the order of the images' ids is that of the numbers
IDS = {
    "from 0": (lambda i: i - 1, lambda i: i - 1),
    "gaps": (lambda i: 7 * i, lambda i: 1000 - 3 * i),
    "negative": (lambda i: i - 50, lambda i: -i),
    "text": (text_in_order, lambda i: f"a{i}"),
    "text of numbers": (lambda i: i, str),
    "as floats": (float, float),
    "beyond 64 bits": (lambda i: 2**63 + i, lambda i: 2**70 + i),
    "all the same": (lambda i: i, lambda i: 1),
    "missing": (lambda i: i, None),
}


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("ids", IDS)
def test_any_ids(tmp_path, scorer, ids):
    for seed in (0, 1):
        data, predictions = scene(seed)
        expected = reference(data, results_of(data, predictions))
        image_id, annotation_id = IDS[ids]
        changed = copy.deepcopy(data)
        for image in changed["images"]:
            image["id"] = image_id(image["id"])
        for annotation in changed["annotations"]:
            annotation["image_id"] = image_id(annotation["image_id"])
            if annotation_id is None:
                del annotation["id"]
            else:
                annotation["id"] = annotation_id(annotation["id"])
        found = score(tmp_path, changed, predictions, scorer)
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, abs=1e-9, nan_ok=True), (seed, key)
        assert 5 < found["AP"] < 95


@pytest.mark.parametrize("scorer", SCORERS)
def test_any_values(tmp_path, scorer):
    """Each annotation has its area, flag and references in another guise."""
    rng = np.random.default_rng(3)
    for seed in (2, 3):
        data, predictions = scene(seed)
        changed = copy.deepcopy(data)
        for plain, annotation in zip(data["annotations"], changed["annotations"], strict=True):
            area, crowd = plain["area"], plain["iscrowd"]
            kind = rng.integers(5)
            if kind == 0:
                del annotation["area"]
            else:
                annotation["area"] = [None, str(area), area, "none"][kind - 1]
            if kind in (0, 1, 4):  # the box's, as the file does not say it
                plain["area"] = plain["bbox"][2] * plain["bbox"][3]
            forms = [crowd, str(crowd), float(crowd), bool(crowd)] + [None] * (not crowd)
            annotation["iscrowd"] = forms[rng.integers(len(forms))]
            if annotation["iscrowd"] is None and rng.random() < 0.5:
                del annotation["iscrowd"]
            annotation["ignore"] = [0, 1, "0", False, "1"][rng.integers(5)]
            annotation["image_id"] = [plain["image_id"], str(plain["image_id"])][rng.integers(2)]
            annotation["category_id"] = float(plain["category_id"])
            annotation["bbox"] = [str(v) if rng.random() < 0.3 else v for v in plain["bbox"]]
        expected = reference(data, results_of(data, predictions))
        found = score(tmp_path, changed, predictions, scorer)
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, abs=1e-9, nan_ok=True), (seed, key)


def test_pycocotools_itself_reads_annotation_id_0_as_no_match():
    # Why the ids are our own: the same file, and AP is another.
    data = coco_dict([[(0, 10, 10, 50, 50)], [(0, 10, 10, 50, 50)]], (1, 2, 3), CLASSES)
    results = [
        {"image_id": i, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9}
        for i in (100, 101)
    ]
    assert reference(data, results)["AP-cat"] == pytest.approx(100)
    data["annotations"][0]["id"] = 0
    assert reference(data, results)["AP-cat"] < 51


def test_results_are_written_with_the_files_ids(tmp_path):
    data = coco_dict([[(0, 10, 10, 50, 50)], [(1, 10, 10, 50, 50)]], names=CLASSES[:2])
    for image, number in zip(data["images"], ("b/2", "a/1"), strict=True):
        image["id"] = number
    for annotation, number in zip(data["annotations"], ("b/2", "a/1"), strict=True):
        annotation["image_id"] = number
    predictions = [instances([(0, 0.9, 10, 10, 50, 50)]), instances([(1, 0.8, 10, 10, 50, 50)])]
    out = tmp_path / "out"
    kwargs = {"output_dir": str(out), "result_file": "server_results.json"}
    assert score(tmp_path, data, predictions, "auto", **kwargs)["AP"] == pytest.approx(100)
    for file in ("coco_instances_results.json", "server_results.json"):
        found = json.loads((out / file).read_text())
        ids = [(r["image_id"], r["category_id"], round(r["score"], 2)) for r in found]
        assert sorted(ids) == [("a/1", 17, 0.8), ("b/2", 3, 0.9)]


def test_images_that_the_ground_truth_does_not_have(tmp_path):
    data = coco_dict([[(0, 10, 10, 50, 50)]], names=CLASSES[:2])
    name = register_dicts([], CLASSES)
    evaluator = COCOBoxEvaluator(name)
    evaluator.reset()
    evaluator.process([{"image_id": 100}], [{"instances": instances([])}])
    with pytest.raises(ValueError, match="image 100 was processed, and is not in its ground truth"):
        evaluator.evaluate()
    assert data["images"][0]["id"] == 100


def test_two_images_of_one_id_in_dicts():
    record = {"image_id": 1, "file_name": "a.png", "width": 9, "height": 9, "annotations": []}
    name = register_dicts([record, {**record, "file_name": "b.png"}], CLASSES)
    with pytest.raises(ValueError, match=r"two images have the id 1: a\.png and b\.png"):
        COCOBoxEvaluator(name)


class TestClassNames:
    """The model's classes: another order, more of them, others."""

    data = coco_dict(
        [[(0, 10, 10, 50, 50), (1, 100, 100, 50, 50)]], category_ids=(1, 2), names=["dog", "cat"]
    )

    def evaluate(self, tmp_path, class_names, found, **kwargs):
        predictions = [instances([(k, 0.9, *box) for k, *box in found])]
        kwargs["class_names"] = class_names
        return score(tmp_path, self.data, predictions, "auto", **kwargs)

    def test_another_order_is_mapped(self, tmp_path):
        found = [(1, 10, 10, 50, 50), (0, 100, 100, 50, 50)]  # dog is 1 and cat is 0 here
        out = tmp_path / "out"
        metrics = self.evaluate(tmp_path, ["cat", "dog"], found, output_dir=str(out))
        assert [k for k in metrics if k.startswith("AP-")] == ["AP-cat", "AP-dog"]
        assert metrics["AP"] == pytest.approx(100)
        rows = json.loads((out / "coco_instances_results.json").read_text())
        assert [r["category_id"] for r in rows] == [1, 2]  # the file's: dog, cat
        # In the order of the file each is taken for the other.
        assert self.evaluate(tmp_path, None, found)["AP"] == 0

    def test_a_class_that_the_data_set_lacks(self, tmp_path, caplog):
        found = [(2, 10, 10, 50, 50), (0, 100, 100, 50, 50), (1, 5, 5, 20, 20)]
        out = tmp_path / "out"
        names = ["cat", "cow", "dog"]
        metrics = self.evaluate(tmp_path, names, found, output_dir=str(out))
        assert metrics["AP"] == pytest.approx(100) and math.isnan(metrics["AP-cow"])
        assert "has 2 of the model's 3 classes: the AP of the others is NaN" in caplog.text
        rows = json.loads((out / "coco_instances_results.json").read_text())
        assert [r["category_id"] for r in rows] == [1, 2]  # no category for cows

    def test_a_class_that_the_model_lacks(self, tmp_path):
        with pytest.raises(ValueError, match=r"'dog'. The 2 classes of .*'dog', 'cat'.* 'cat'"):
            self.evaluate(tmp_path, ["cat"], [])

    def test_another_spelling(self, tmp_path):
        with pytest.raises(ValueError, match=r"blanks only: 'dog' and 'Dog'"):
            self.evaluate(tmp_path, ["Dog", "cat"], [])

    def test_of_dicts(self):
        box = {"bbox": [10, 10, 60, 60], "bbox_mode": 0, "category_id": 0}
        record = {"image_id": 100, "file_name": "a", "width": 99, "height": 99}
        name = register_dicts([{**record, "annotations": [box]}], ["dog"])
        evaluator = COCOBoxEvaluator(name, class_names=["cat", "dog"])
        evaluator.reset()
        found = instances([(1, 0.9, 10, 10, 50, 50)])
        evaluator.process([{"image_id": 100}], [{"instances": found}])
        metrics = evaluator.evaluate()["bbox"]
        assert metrics["AP-dog"] == pytest.approx(100) and math.isnan(metrics["AP-cat"])


def test_ground_truth_of_a_file_with_masks_for_some(tmp_path):
    data = coco_dict([[(0, 10, 10, 50, 50), (1, 100, 100, 50, 50)]], names=CLASSES[:2])
    data["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 60, 10, 60]]
    data["annotations"][1]["segmentation"] = [100, 100, 150, 150]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    name = register_coco_json(name=unique_name(), json_file=str(path), image_root=str(tmp_path))
    evaluator = COCOBoxEvaluator(name, tasks=["bbox", "segm"])
    evaluator.reset()
    evaluator.process([{"image_id": 100}], [{"instances": instances([])}])
    with pytest.raises(ValueError, match=r"1 of its objects have none, first .*annotations\[1\]"):
        evaluator.evaluate()
    truth = load_ground_truth(name)
    assert ["segmentation" in a for a in truth.dataset["annotations"]] == [True, False]
    assert MetadataCatalog.get(name).json_file == str(path)


@pytest.mark.parametrize("size", [(SIZE, SIZE), (None, None), (SIZE // 2, SIZE)])
def test_masks_are_drawn_at_the_images_size(tmp_path, size):
    data = coco_dict([[(0, 10, 10, 50, 50)]], names=CLASSES[:2])
    data["images"][0].update(width=size[0], height=size[1])
    data["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 60, 10, 60]]
    found = instances([(0, 0.9, 10, 10, 50, 50)])
    found.pred_masks = np.zeros((1, SIZE, SIZE), dtype=bool)
    found.pred_masks[:, 10:60, 10:60] = True
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    Image.new("L", (SIZE, SIZE)).save(tmp_path / data["images"][0]["file_name"])
    name = register_coco_json(name=unique_name(), json_file=str(path), image_root=str(tmp_path))
    evaluator = COCOBoxEvaluator(name)
    evaluator.reset()
    evaluator.process([{"image_id": 100}], [{"instances": found}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)


def test_keypoints_that_some_objects_lack(tmp_path):
    data = coco_dict([[(0, 10, 10, 50, 50), (0, 100, 100, 50, 50)]], names=CLASSES[:2])
    points = [v for i in range(17) for v in (20 + i, 20 + 2 * i, 2)]
    data["annotations"][0]["keypoints"] = points  # without num_keypoints
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    name = register_coco_json(name=unique_name(), json_file=str(path), image_root=str(tmp_path))
    evaluator = COCOBoxEvaluator(name, tasks=("bbox", "keypoints"))
    evaluator.reset()
    found = instances([(0, 0.9, 10, 10, 50, 50)])
    shift = np.array([0.5, 0.5, 0])
    found.pred_keypoints = np.array(points, dtype=np.float32).reshape(1, 17, 3) + shift
    evaluator.process([{"image_id": 100}], [{"instances": found}])
    assert evaluator.evaluate()["keypoints"]["AP"] == pytest.approx(100)


def one_box(**values):
    box = {"bbox": [10, 10, 60, 60], "bbox_mode": 0, "category_id": 0, **values}
    record = {"image_id": 100, "file_name": "a.png", "width": 99, "height": 99}
    return register_dicts([{**record, "annotations": [box]}], ["dog"])


@pytest.mark.parametrize("segmentation", [[], [[]], [[10, 10, 60, 60]], None, "none", [1, 2, 3]])
def test_dicts_whose_segmentation_is_no_mask(segmentation):
    evaluator = COCOBoxEvaluator(one_box(segmentation=segmentation))
    evaluator.reset()
    evaluator.process([{"image_id": 100}], [{"instances": instances([(0, 0.9, 10, 10, 50, 50)])}])
    metrics = evaluator.evaluate()["bbox"]
    assert metrics["APm"] == pytest.approx(100) and math.isnan(metrics["APs"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"category_id": 5}, r"a\.png, box 0: category_id 5 is no class in \[0, 1\)"),
        ({"category_id": -1}, r"box 0: category_id -1 is no class"),
        ({"iscrowd": "maybe"}, r"box 0: iscrowd 'maybe' is neither 0 nor 1"),
        ({"bbox": [1, 2, None, 4]}, r"box 0: bbox .* is not four finite numbers"),
    ],
)
def test_dicts_with_values_that_cannot_be_read(values, message):
    with pytest.raises(ValueError, match=message):
        COCOBoxEvaluator(one_box(**values))


@pytest.mark.parametrize("cls", [COCOBoxEvaluator, VOCDetectionEvaluator])
def test_a_detection_of_a_class_that_does_not_exist(cls):
    evaluator = cls(one_box(iscrowd="0"))
    evaluator.reset()
    found = instances([(7, 0.9, 10, 10, 50, 50)])
    evaluator.process([{"image_id": 100}], [{"instances": found}])
    with pytest.raises(ValueError, match="is of class 7, but there are 1 classes"):
        evaluator.evaluate()


@pytest.mark.parametrize("value", [0, -1, "5", 2.5, True, [500]])
def test_limits_of_detections_that_make_no_sense(value):
    with pytest.raises(ValueError, match="`max_dets_per_image` to be a whole number from 1 on"):
        COCOBoxEvaluator(one_box(), max_dets_per_image=value)


def test_keypoints_of_a_data_set_without_objects(tmp_path, caplog):
    data = coco_dict([[(0, 10, 10, 50, 50)]], names=CLASSES[:2])
    data["annotations"] = []
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    name = register_coco_json(name=unique_name(), json_file=str(path), image_root=str(tmp_path))
    evaluator = COCOBoxEvaluator(name, tasks=("bbox", "keypoints"))
    evaluator.reset()
    found = instances([(0, 0.9, 10, 10, 50, 50)])
    found.pred_keypoints = np.ones((1, 17, 3), dtype=np.float32)
    evaluator.process([{"image_id": 100}], [{"instances": found}])
    results = evaluator.evaluate()
    assert list(results) == ["bbox"] and np.isnan(results["bbox"]["AP"])
    assert "has no object: its keypoints are not scored" in caplog.text
