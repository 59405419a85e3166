"""What the evaluator writes and converts, and how it works with several processes."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import BoxMode

from iou_balanced.evaluation import COCOBoxEvaluator, load_ground_truth

from .helpers import (
    BOXES,
    SIZE,
    coco_dict,
    detections_of,
    evaluate,
    instances,
    random_scene,
    register_dicts,
    register_json,
)


@pytest.mark.parametrize("result_file", [None, "detections_test-dev2017_ours_results.json"])
def test_without_annotations(tmp_path, result_file):
    data = coco_dict(BOXES, category_ids=(3, 17))
    found = detections_of(data, score=0.123456789)
    found[0][0] = (0, 0.5, 10.12345, 10, 20.5, 20)
    del data["annotations"]
    name = register_json(tmp_path, data)
    out = tmp_path / "out"
    evaluator = COCOBoxEvaluator(name, output_dir=str(out), result_file=result_file)
    results = evaluate(evaluator, found)
    assert results == {}
    print_csv_format(results)
    assert flatten_results_dict(results) == {}
    assert not (out / "coco_metrics.csv").exists()

    path = out / (result_file or f"{name}_results.json")
    rows = json.loads(path.read_text())
    assert rows[0] == {
        "image_id": 100,
        "category_id": 3,
        "bbox": [10.12, 10.0, 20.5, 20.0],
        "score": 0.5,
    }
    assert [(r["image_id"], r["category_id"]) for r in rows] == [(100, 3), (100, 17), (101, 3)]
    assert rows[1]["score"] == 0.12346
    with zipfile.ZipFile(path.with_suffix(".zip")) as archive:
        assert archive.namelist() == [path.name]
        assert archive.read(path.name) == path.read_bytes()
    # No image at all still gives a file, an empty one.
    assert evaluate(evaluator, []) == {}
    assert json.loads(path.read_text()) == []


def test_without_annotations_and_folder(tmp_path, caplog):
    data = coco_dict(BOXES)
    del data["annotations"]
    name = register_json(tmp_path, data)
    assert evaluate(COCOBoxEvaluator(name), [[], [], []]) == {}
    assert "not written" in caplog.text and "no metric can be computed" in caplog.text


def record(boxes, image_id=7):
    anns = [
        {"bbox": b, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0} for b in boxes
    ]
    size = {"height": SIZE, "width": SIZE}
    return {"image_id": image_id, "file_name": "a.png", **size, "annotations": anns}


@pytest.mark.parametrize("with_folder", [True, False])
def test_dicts_are_converted_anew(tmp_path, with_folder):
    records = [record([[10, 10, 60, 60]])]
    name = register_dicts(records, ["thing"])
    out = str(tmp_path / "out") if with_folder else None

    def average_precision():
        evaluator = COCOBoxEvaluator(name, output_dir=out)
        return evaluate(evaluator, [[(0, 0.9, 10, 10, 50, 50)]], first_id=7)["bbox"]["AP"]

    assert average_precision() == pytest.approx(100)
    # The same name and folder, other boxes: a cached file would give 100 again.
    records[0] = record([[200, 200, 260, 260]])
    assert average_precision() == 0
    assert not hasattr(MetadataCatalog.get(name), "json_file")
    assert load_ground_truth(name).dataset["annotations"][0]["bbox"] == [200, 200, 60, 60]
    files = sorted(p.name for p in Path(tmp_path).rglob("*.json"))
    assert (f"{name}_coco_format.json" in files) == with_folder


def test_dicts_without_annotations(tmp_path):
    name = register_dicts([record([])], ["thing"])
    evaluator = COCOBoxEvaluator(name, output_dir=str(tmp_path))
    assert evaluate(evaluator, [[(0, 0.9, 10, 10, 50, 50)]], first_id=7) == {}
    assert len(json.loads((tmp_path / f"{name}_results.json").read_text())) == 1


EXACT = (0, 0.9, 10, 10, 50, 50)


def _score_in_two_processes(rank, folder, json_name, data, found):
    """Each process detects in every second image; the dicts are registered in both."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    results = []
    records = [record([[10, 10, 60, 60]], image_id=i) for i in range(2)]
    dicts_name = register_dicts(records, ["thing"])
    register_json(Path(folder) / str(rank), data, json_name)
    for name, images, first in [(json_name, found, 100), (dicts_name, [[EXACT], [EXACT]], 0)]:
        evaluator = COCOBoxEvaluator(name, output_dir=f"{folder}/out")
        evaluator.reset()
        for index in range(rank, len(images), 2):
            output = {"instances": instances(images[index])}
            evaluator.process([{"image_id": first + index}], [output])
        results.append(evaluator.evaluate())
    torch.save(results, f"{folder}/results_{rank}.pth")
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    truth, found = random_scene(3)
    data = coco_dict(truth, category_ids=(1, 2, 5))
    name = register_json(tmp_path, data)
    expected = evaluate(COCOBoxEvaluator(name), found)["bbox"]
    for rank in "01":
        (tmp_path / rank).mkdir()
    torch.multiprocessing.spawn(
        _score_in_two_processes, (str(tmp_path), f"{name}_2", data, found), nprocs=2
    )
    main, other = (torch.load(tmp_path / f"results_{rank}.pth") for rank in (0, 1))
    assert other == [{}, {}]
    assert main[0]["bbox"] == pytest.approx(expected, abs=1e-6)
    assert main[1]["bbox"]["AP"] == pytest.approx(100)
