import json
import logging

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from iou_balanced.data import register_coco_json


def _register(files, name="pets", **kwargs):
    return register_coco_json(
        name=name, json_file=str(files[0]), image_root=str(files[1]), **kwargs
    )


def _load(*args, **kwargs):
    return DatasetCatalog.get(_register(*args, **kwargs))


def _summary(caplog):
    (text,) = [r.getMessage() for r in caplog.records if r.name.startswith("iou_balanced")]
    return text


def test_loads_with_contiguous_ids(make_coco):
    files = make_coco()
    name = _register(files)
    meta = MetadataCatalog.get(name)
    assert meta.thing_classes == ["dog", "cat"]  # by category id, 2 and 9
    assert meta.thing_dataset_id_to_contiguous_id == {2: 0, 9: 1}
    assert meta.json_file == str(files[0])
    assert (meta.image_root, meta.evaluator_type) == (str(files[1]), "coco")
    first, second = DatasetCatalog.get(name)
    assert [first["image_id"], second["image_id"]] == [5, 7]
    boxes = [(a["category_id"], a["iscrowd"], a["bbox"]) for a in second["annotations"]]
    assert boxes == [(1, 0, [2, 3, 10, 12]), (0, 1, [2, 3, 10, 12])]
    assert not {"id", "_source"} & set(second["annotations"][0])


def test_registering_again_is_silent_and_other_arguments_are_an_error(make_coco):
    files = make_coco()
    assert _register(files) == _register(files)
    with pytest.raises(ValueError, match=r"class_names=None; this call has class_names=\['cat'\]"):
        _register(files, class_names=["cat"])


def test_file_without_annotations(make_coco):
    # as COCO's test-dev
    name = _register(make_coco(annotations=None))
    assert ["annotations" in d for d in DatasetCatalog.get(name)] == [False, False]
    evaluator = COCOEvaluator(name)
    assert not evaluator._do_evaluation


def test_only_some_classes(make_coco, caplog):
    with caplog.at_level(logging.WARNING):
        # a choice of the user's: no reason to refuse the data
        dicts = _load(make_coco(), class_names=("cat",), on_invalid="error")
    assert [[a["category_id"] for a in d["annotations"]] for d in dicts] == [[], [0]]
    assert "2 x box of a class that class_names leaves out (not used)" in _summary(caplog)


@pytest.mark.parametrize("class_names", [None, ["cat"], ["cat", "dog"]])
def test_evaluation_knows_the_classes(make_coco, tmp_path, class_names):
    # All categories; fewer; another order than the file's. Each cat is found and no dog.
    name = _register(make_coco(), class_names=class_names)
    evaluator = COCOEvaluator(name, tasks=("bbox",), output_dir=str(tmp_path / "out"))
    evaluator.reset()
    names = class_names or ["dog", "cat"]
    cat = names.index("cat")
    for record in DatasetCatalog.get(name):
        boxes = [a for a in record["annotations"] if a["category_id"] == cat]
        found = Instances((30, 40))
        found.pred_boxes = Boxes(torch.tensor([[2.0, 3, 12, 15]] * len(boxes)).view(-1, 4))
        found.scores = torch.full((len(boxes),), 0.9)
        found.pred_classes = torch.full((len(boxes),), cat)
        evaluator.process([record], [{"instances": found}])
    result = evaluator.evaluate()["bbox"]
    if len(names) > 1:  # Detectron2 gives no per-class AP of one class
        assert (result["AP-cat"], result["AP-dog"]) == pytest.approx((100.0, 0.0))
    assert result["AP"] == pytest.approx(100.0 / len(names))


def test_class_that_the_file_lacks(make_coco, caplog):
    name = _register(make_coco(), class_names=["cow", "cat"])
    assert MetadataCatalog.get(name).thing_classes == ["cow", "cat"]
    with caplog.at_level(logging.WARNING):
        dicts = DatasetCatalog.get(name)
    assert [[a["category_id"] for a in d["annotations"]] for d in dicts] == [[], [1]]
    assert "1 x class without a box\n    cow" in _summary(caplog)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (["cow"], r"class_names has 'cow', but .*instances.json has only 'dog', 'cat'"),
        (["Cat", "dog"], r"class_names and .* differ in upper and lower case.*: 'Cat' and 'cat'"),
        (["cat ", "dog"], r"blanks only: 'cat ' and 'cat'"),
    ],
)
def test_class_names_that_cannot_be_meant(make_coco, class_names, message):
    with pytest.raises(ValueError, match=message):
        _register(make_coco(), class_names=class_names)


def test_findings(make_coco, coco_box, caplog):
    boxes = [
        coco_box(1, 7, 9),
        coco_box(2, 7, 9, (5, 5, 0, 9)),
        coco_box(3, 7, 1),  # no category 1, but contiguous id 1 exists
        coco_box(4, 8, 9),
        coco_box(5, 7, 9, segmentation=[[1, 1, 2, 2]]),
        coco_box(6, 7, 9, (38, 5, 9, 9)),
    ]
    del boxes[0]["area"]
    files = make_coco(annotations=boxes)
    (files[1] / "b.png").unlink()
    with caplog.at_level(logging.WARNING):
        (record,) = _load(files)
    # The polygon of the box with id 5 is none, and its box is like any other.
    boxes = [[2, 3, 10, 12], [2, 3, 10, 12], [38, 5, 2, 9]]
    assert [a["bbox"] for a in record["annotations"]] == boxes
    assert all("segmentation" not in a for a in record["annotations"])
    summary = _summary(caplog)
    for part in (
        "annotation id 2 (annotations[1]), image a.png: (5, 5, 5, 14)",
        "annotation id 3 (annotations[2]), image a.png: category_id 1",
        "annotation id 4 (annotations[3]): image_id 8",
        "annotation id 6 (annotations[5]), image a.png: (38, 5, 47, 14), image 40 x 30",
        "annotation id 1 (annotations[0]): lacks ['area']",
        "b.png",
        "stays in the ground truth of COCO evaluation",
    ):
        assert part in summary
    with pytest.raises(ValueError, match=r"annotation id 2 .*, image a.png"):
        _load(files, name="strict", on_invalid="error")


def test_pycocotools_passes_over_what_the_file_does_not_list(make_coco, coco_box):
    # What the docstring says of evaluation: unknown categories and images change no result, a box
    # without area counts as missed.
    def ap(*more):
        files = make_coco(annotations=[coco_box(1, 7, 9), *more])
        truth = COCO(str(files[0]))
        found = [{"image_id": 7, "category_id": 9, "bbox": [2, 3, 10, 12], "score": 0.9}]
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation.stats[0]

    assert ap() == pytest.approx(1.0)
    assert ap(coco_box(2, 7, 1), coco_box(3, 8, 9)) == pytest.approx(1.0)
    # recall ends at 1/2: precision is 1 at 51 of the 101 recall points
    assert ap(coco_box(2, 5, 9, (5, 5, 0, 9))) == pytest.approx(51 / 101)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "instances.json is not JSON"),
        ("[]", "instances.json is not COCO JSON: it must be an object with lists 'images'"),
        ('{"images": []}', "instances.json is not COCO JSON: .*; the file lacks 'categories'"),
        ('{"images": [], "categories": []}', "instances.json has no categories"),
        ('{"images": [3], "categories": []}', r"; images\[0\] is 3"),
        ('{"images": [{"id": 1}], "categories": []}', r"images\[0\] lacks 'file_name'"),
    ],
)
def test_other_files_are_refused(make_coco, text, message):
    files = make_coco()
    files[0].write_text(text)
    with pytest.raises(ValueError, match=message):
        _register(files)


def test_annotation_ids_that_are_not_unique_are_told(make_coco, coco_box, caplog):
    files = make_coco(annotations=[coco_box(1, 7, 9), coco_box(1, 5, 9)])
    with caplog.at_level(logging.WARNING):
        assert [len(d["annotations"]) for d in _load(files)] == [1, 1]
    assert "annotation id that occurs more than once (all are kept)" in _summary(caplog)
    with pytest.raises(ValueError, match=r"annotation id 1 \(annotations\[1\]\)"):
        _load(files, name="strict", on_invalid="error")


def test_missing_files(make_coco, tmp_path):
    json_file, image_root = make_coco()
    with pytest.raises(FileNotFoundError, match=r"'pets': json_file .*no.json does not exist"):
        _register((tmp_path / "no.json", image_root))
    with pytest.raises(FileNotFoundError, match=r"'pets': image_root .*nowhere is not a folder"):
        _register((json_file, tmp_path / "nowhere"))


def test_changed_file_is_read_anew(make_coco):
    files = make_coco()
    _register(files)
    data = json.loads(files[0].read_text())
    data["categories"].append({"id": 11, "name": "cow"})
    files[0].write_text(json.dumps(data))
    name = _register(files, name="more")
    assert MetadataCatalog.get(name).thing_classes == ["dog", "cat", "cow"]
