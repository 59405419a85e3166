"""The figures: their curves against the papers' formulas, and what they are drawn from."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from iou_balanced.reproduction import RecordError, draw_figure, papers
from iou_balanced.reproduction.curves import gradient_norms, schedules, weighted_learning_rates
from iou_balanced.reproduction.figures import speed_and_accuracy

from .test_report import finish


def test_gradient_norms_are_eq_13_and_14():
    d = torch.tensor([0.0, 0.0555, 0.111, 0.5, 1.0], dtype=torch.float64)
    curves = gradient_norms(d)
    w_loc = {0: 1.0, 0.5: 1.575, 1.0: 2.226, 1.5: 3.049, 1.8: 3.649}  # Table 3
    assert list(curves) == [f"lambda {lam}, w_loc {w}" for lam, w in w_loc.items()]
    for (center, size), (lam, w) in zip(curves.values(), w_loc.items(), strict=True):
        for i, x in enumerate(d.tolist()):
            slope = w * min(x / 0.111, 1)
            assert center[i].item() == pytest.approx(slope * ((1 - x) / (1 + x)) ** lam)
            assert size[i].item() == pytest.approx(slope * math.exp(-lam * x))


def test_learning_rates_with_weights():
    curves = weighted_learning_rates(epochs=11)
    assert list(curves) == [2.0, 1.5, 1.0, 0.5, 0.0]
    for weight, (linear, constant) in curves.items():
        # Half a cosine: 1 at the start, 1/2 in the middle, 0 at the end; lambda 0, 1/2, 1.
        assert constant[::5] == pytest.approx([weight, weight / 2, 0])
        assert linear[::5] == pytest.approx([1, (1 + weight) / 4, 0])


def test_schedules_of_a_weight_of_2():
    curves = schedules(epochs=140)
    assert curves["constant"] == [2.0] * 140
    assert curves["deferred"] == [1.0] * 5 + [2.0] * 135
    assert curves["linear"] == pytest.approx([1 + e / 139 for e in range(140)])
    assert curves["ours"] == pytest.approx([1.0] * 5 + [1 + e / 134 for e in range(135)])


@pytest.fixture
def data(tmp_path):
    """Two images with an object each, and the results of two runs, in COCO's format."""
    (tmp_path / "images").mkdir()
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    for i in (1, 2):
        Image.fromarray(pixels).save(tmp_path / f"images/{i}.png")
    box = {"category_id": 3, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}
    truth = {
        "images": [{"id": i, "file_name": f"x/{i}.png", "height": 60, "width": 80} for i in (1, 2)],
        "categories": [{"id": 3, "name": "bear"}],
        "annotations": [{**box, "id": i, "image_id": i} for i in (1, 2)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for name, score in (("a", 0.9), ("b", 0.1)):
        found = [{"image_id": 1, "category_id": 3, "bbox": [10, 12, 30, 30], "score": score}]
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    results = {name: tmp_path / f"{name}.json" for name in "ab"}
    return {"ground_truth": tmp_path / "truth.json", "results": results}


def is_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and image.width > 300


@pytest.mark.parametrize("name", ["iou/2", "bofl/1", "bofl/2"])
def test_figures_that_need_no_training(name, tmp_path):
    (path,) = draw_figure(name, tmp_path / "a folder/x.png")
    assert path == tmp_path / "a folder/x.png" and is_picture(path)


def test_figures_of_detections(data, tmp_path):
    paths = draw_figure("iou/3", tmp_path / "x.png", **data)
    assert [path.name for path in paths] == ["x_a.png", "x_b.png"] and all(map(is_picture, paths))
    paths = draw_figure("iou/4", tmp_path / "x.png", images=tmp_path / "images", **data)
    assert [path.name for path in paths] == ["x_1.png"]  # no detection is on the other image
    paths = draw_figure(
        "iou/4", tmp_path / "x.png", images=tmp_path / "images", image_ids=[2], **data
    )
    assert [path.name for path in paths] == ["x_2.png"]


def test_speed_and_accuracy(tmp_path):
    with pytest.raises(RecordError, match=r"no row of iou/1 has run in .* profile full"):
        draw_figure("iou/1", tmp_path / "x.png", output_dir=tmp_path)
    for seed, ap in enumerate((36.0, 37.0)):
        finish(tmp_path / f"full/COCO/retinanet_R_50_FPN_1x/as_written/seed_{seed}", seed, AP=ap)
    points = speed_and_accuracy("iou/1", tmp_path, "full")
    assert points == {"RetinaNet*, ResNet-50-FPN": (pytest.approx(15.0), 36.5)}
    (path,) = draw_figure("iou/1", tmp_path / "x.png", output_dir=tmp_path)
    assert is_picture(path)


def test_every_figure_can_be_drawn():
    drawn = {"iou/1", "iou/2", "iou/3", "iou/4", "bofl/1", "bofl/2"}
    assert {figure.id for paper in papers().values() for figure in paper.figures} == drawn


def test_what_is_missing_is_named(data, tmp_path):
    output = tmp_path / "x.png"
    for name, kwargs, message in (
        ("iou/2", {"output": tmp_path / "x.pdf"}, "x.pdf: figures are PNG files"),
        ("iou/3", {}, "iou/3 is drawn from detections: give --ground-truth and --results"),
        ("iou/4", data, "iou/4 shows images: give their folder as --images"),
        ("iou/4", {**data, "images": tmp_path, "image_ids": [7]}, "truth.json has no image 7"),
        ("iou/4", {**data, "images": tmp_path, "score": 0.95}, "no detection has a score of 0.95"),
        ("iou/3", {**data, "ground_truth": tmp_path / "a.json"}, "a.json is not COCO JSON"),
        ("iou/3", {**data, "results": {"a": tmp_path / "none"}}, "No such file .*none"),
    ):
        with pytest.raises(RecordError, match=message):
            draw_figure(name, **{"output": output, **kwargs})
    assert not list(tmp_path.glob("*.p[nd]*"))
