"""Exported files: their metadata, the check before them, and what is refused."""

import json
import runpy
import sys

import numpy as np
import onnx
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from iou_balanced import Predictor
from iou_balanced.data import CenterFit, CenterPad
from iou_balanced.engine import UserError
from iou_balanced.formats.image_files import ImageError
from iou_balanced.inference import predict_files
from iou_balanced.inference.onnx import check, export, metadata, operators

from .detectors import (
    ROOT,
    save_weights,
    small_config,
    write_images,
)
from .exports import SIZES, exported
from .test_predictor import close


def test_a_graph_that_finds_something_else_is_not_written(tmp_path, monkeypatch):
    cfg = small_config("retinanet_small_iou_balanced")
    weights = save_weights(cfg, tmp_path / "model.pth")
    real = operators.NonMaxSuppression.symbolic

    def symbolic(g, boxes, scores, max_boxes, iou_threshold, score_threshold):
        return real(g, boxes, scores, max_boxes, 0.0, score_threshold)

    monkeypatch.setattr(operators.NonMaxSuppression, "symbolic", staticmethod(symbolic))
    images = write_images(tmp_path / "check", *SIZES[:2])
    with pytest.raises(UserError, match=r"not the detector.*0\.png: .* alone finds class"):
        export.export_onnx(cfg, weights, tmp_path / "model.onnx", images=images)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["check", "model.pth"]


def test_files_that_are_there_or_wrong(exported_retinanet, tmp_path):
    cfg, weights, _, file = exported_retinanet
    before = file.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        export.export_onnx(cfg, weights, file)
    assert file.read_bytes() == before
    with pytest.raises(UserError, match=r"has to end in \.onnx"):
        export.export_onnx(cfg, weights, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"nope\.onnx: there is no such file"):
        Predictor(None, tmp_path / "nope.onnx")
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(UserError, match=r"text\.onnx cannot be opened"):
        Predictor(None, tmp_path / "text.onnx")
    with pytest.raises(UserError, match=r"device=cuda: this ONNX Runtime has"):
        Predictor(None, file, device="cuda")
    with pytest.raises(UserError, match=r"model\.x=1: .* is fixed"):
        Predictor(None, file, overrides=["model.x=1"])
    content = onnx.load(file)
    del content.metadata_props[:]
    onnx.save(content, tmp_path / "bare.onnx")
    with pytest.raises(UserError, match=r"lacks the metadata version, .* of tools/export\.py"):
        Predictor(None, tmp_path / "bare.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_packages_that_are_missing(exported_retinanet, tmp_path, monkeypatch, missing):
    cfg, weights, _, file = exported_retinanet
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"needs {missing}: pip install -e '\.\[export\]'"):
        export.export_onnx(cfg, weights, tmp_path / "model.onnx")
    if missing == "onnxruntime":
        with pytest.raises(UserError, match=r"needs ONNX Runtime: pip install"):
            Predictor(None, file)


class Odd(T.Augmentation):
    """A test augmentation of one's own."""

    def get_transform(self, image):
        return T.NoOpTransform()


def test_augmentations_of_ones_own_need_the_config(tmp_path):
    cfg = small_config("retinanet_small_iou_balanced")
    cfg.dataloader.test.mapper.augmentations = [L(Odd)()]
    weights, _, file = exported(cfg, tmp_path)
    with pytest.raises(UserError, match="of one's own: give the config too"):
        Predictor(None, file)
    (image,) = write_images(tmp_path, (70, 90))
    in_torch = Predictor(cfg, weights, device="cpu")(image)
    assert close(in_torch, Predictor(cfg, file, device="cpu")(image)) > 10


@pytest.mark.parametrize(
    "augmentation",
    [
        T.ResizeShortestEdge([800, 800], 1333),
        T.ResizeShortestEdge((64, 96), 128, sample_style="range"),
        T.Resize((300, 200)),
        CenterFit(size=(96, 128)),
        CenterPad(divisor=64),
    ],
    ids=lambda x: type(x).__name__,
)
def test_augmentations_there_and_back(augmentation):
    described = json.loads(json.dumps(metadata.describe_augmentations([augmentation])))
    (again,) = metadata.make_augmentations(described)
    assert type(again) is type(augmentation)
    assert metadata.describe_augmentations([again])[0] == described[0]
    sizes = [x.get_transform(np.zeros((90, 120, 3), np.uint8)) for x in (again, augmentation)]
    if "sample_style" not in described[0] or described[0]["sample_style"] == "choice":
        assert vars(sizes[0]) == vars(sizes[1])


@pytest.mark.parametrize(
    "described", [{"name": "eval"}, {"name": "Resize", "shape": 3, "__class__": "os.system"}]
)
def test_metadata_call_nothing_else(described):
    with pytest.raises(ValueError, match="unknown test augmentation"):
        metadata.make_augmentations([described])


def instances(*rows):
    """Of rows (class, score, x0)."""
    from detectron2.structures import Boxes, Instances

    x = Instances((100, 100))
    x.pred_boxes = Boxes(torch.tensor([[r[2], 0.0, r[2] + 10, 10] for r in rows]).reshape(-1, 4))
    x.scores = torch.tensor([r[1] for r in rows])
    x.pred_classes = torch.tensor([r[0] for r in rows], dtype=torch.int64)
    return x


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        ([(0, 0.9, 5.0), (1, 0.8, 5.0)], [(1, 0.8, 5.0), (0, 0.9, 5.005)], [(0, 1), (1, 0)]),
        ([(0, 0.9, 5.0)], [(0, 0.9, 5.02)], []),  # pixels
        ([(0, 0.9, 5.0)], [(0, 0.9002, 5.0)], []),  # score
        ([(0, 0.9, 5.0)], [(1, 0.9, 5.0)], []),  # class
        ([(0, 0.9, 5.0), (0, 0.9, 5.0)], [(0, 0.9, 5.0)], [(0, 0)]),  # each in one pair
        ([], [(0, 0.9, 5.0)], []),
    ],
)
def test_matching(a, b, pairs):
    assert check.match(instances(*a), instances(*b)) == pairs


def test_only_rounding_excuses_a_detection():
    both = (0, 0.9, 5.0)
    with_nms = check.Limits(score=0.05, count=2, nms=0.5, cell=None)

    def undecided(one, *others, limits=with_nms):
        own, other = instances(both, one, *others), instances(both)
        return limits.leave_open(own[1], own, other)

    assert undecided((1, 0.05005, 50.0))  # at the score threshold
    assert undecided((1, 0.7, 50.0))  # the last of as many as there may be
    assert not undecided((1, 0.7, 50.0), (1, 0.6, 80.0))
    # At IoU 0.5 with one of the class: 10 x 10 boxes that share 20 / 3 columns.
    assert undecided((0, 0.7, 5.0 + 10 / 3), (1, 0.6, 80.0))
    assert not undecided((0, 0.7, 5.0 + 3.0), (1, 0.6, 80.0))
    # Of a heat map with cells of 4 pixels: a neighbour of the same score.
    peaks = check.Limits(score=0.0, count=100, nms=None, cell=4)
    last = (1, 0.1, 80.0)
    assert undecided((0, 0.900001, 5.0 + 4.0), last, limits=peaks)
    assert not undecided((0, 0.900001, 5.0 + 12.0), last, limits=peaks)
    assert not undecided((0, 0.9001, 5.0 + 4.0), last, limits=peaks)
    assert not undecided((1, 0.900001, 5.0 + 4.0), last, limits=peaks)
    assert undecided((1, 0.10001, 5.0), last, limits=peaks)  # at the end of the list


def run_tool(name, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    try:
        runpy.run_path(str(ROOT / f"tools/{name}"), run_name="__main__")
    except SystemExit as e:
        return e.code
    return 0


def test_the_tools(tmp_path, monkeypatch, capsys):
    cfg = small_config("retinanet_small_iou_balanced")
    weights = save_weights(cfg, tmp_path / "model.pth")
    config = ROOT / "configs/Digits/retinanet_small_iou_balanced.py"
    write_images(tmp_path / "photos", *SIZES[:3])
    common = ["--config-file", config, "--weights", weights]
    file = tmp_path / "model.onnx"
    words = [*common, "--output", file, "--images", tmp_path / "photos"]
    assert run_tool("export.py", monkeypatch, *words, "model.test_score_thresh=0.2") == 0
    out = capsys.readouterr().out
    assert "images (batch, 3, height, width)" in out and "3 images, " in out
    assert run_tool("export.py", monkeypatch, *words).startswith("error: --output")
    words = ["--weights", file, tmp_path / "photos", "--output", tmp_path / "out"]
    assert run_tool("predict.py", monkeypatch, *words) == 0
    assert json.loads((tmp_path / "out/detections.json").read_text())


def test_an_unreadable_image_is_left_out_in_onnx_runtime_too(exported_retinanet, tmp_path):
    *_, file = exported_retinanet
    (image,) = write_images(tmp_path, (70, 90))
    (tmp_path / "bad.png").write_bytes(b"no image")
    predictor = Predictor(None, file, device="cpu")
    with pytest.raises(ImageError):
        predictor(tmp_path / "bad.png")
    files = [image, tmp_path / "bad.png"]
    summary = predict_files(predictor, files, tmp_path / "out", progress=False)
    assert summary.num_images == 1 and len(summary.unreadable) == 1
