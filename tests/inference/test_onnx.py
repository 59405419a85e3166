"""Exported detectors find what PyTorch's do, in images of any size and in batches of any size."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.data import transforms as T
from detectron2.model_zoo import get_config_file
from detectron2.modeling import GeneralizedRCNN, build_model
from torch import nn

from iou_balanced import Predictor
from iou_balanced.data import CenterFit, CenterPad
from iou_balanced.engine import UserError
from iou_balanced.formats.image_files import ImageError
from iou_balanced.inference import predict_files

from .detectors import (
    DIGITS,
    ROOT,
    SMALL,
    calibrate,
    save_weights,
    small_config,
    write_images,
    zoo_config,
)
from .test_predictor import close

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from iou_balanced.inference.onnx import check, export, metadata, operators  # noqa: E402

SIZES = [(60, 80), (80, 60), (96, 96), (50, 110), (120, 70)] * 4


def exported(cfg, folder, **kwargs):
    """(weights, what the export says, the file)."""
    weights = save_weights(cfg, folder / "model.pth")
    file = folder / "model.onnx"
    images = write_images(folder / "check", *SIZES)
    return weights, export.export_onnx(cfg, weights, file, images=images, **kwargs), file


@pytest.fixture(scope="module", params=SMALL)
def detector(request, tmp_path_factory):
    """(name, config, weights, what the export says, file)"""
    cfg = small_config(request.param)
    return request.param, cfg, *exported(cfg, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def retinanet(tmp_path_factory):
    cfg = small_config("retinanet_small_iou_balanced")
    cfg.model.test_score_thresh = 0.3
    return cfg, *exported(cfg, tmp_path_factory.mktemp("onnx"))


def test_the_check_of_the_export(detector):
    name, _, _, found, file = detector
    assert found.path == file and file.exists()
    assert found.comparison.num_images == 20 and found.comparison.num_detections > 300
    assert found.comparison.max_pixels < 1e-2 and found.comparison.max_score < 1e-4
    expected = {"ssd_small": ["batch", 3, 128, 128], "faster_rcnn_small": [1, 3]}
    shape = expected.get(name, ["batch", 3, "height", "width"])
    assert found.input_shape[: len(shape)] == shape


def test_predictions_of_the_file(detector, tmp_path):
    """Without the config: sizes, orders of channels and canvases are in the metadata."""
    _, cfg, weights, _, file = detector
    images = write_images(tmp_path, (70, 90), (90, 70), (70, 90), (64, 64))
    in_torch = Predictor(cfg, weights, device="cpu")
    in_onnx = Predictor(None, file, device="cpu", batch_size=3)
    assert in_onnx.class_names == DIGITS and in_onnx.model is None
    for image, output in zip(images, in_onnx(images), strict=True):
        instances = output["instances"]
        assert (instances.scores.diff() <= 0).all()
        assert close(in_torch(image), output) > 10


def test_other_than_the_recorded_sizes(detector):
    """Straight to ONNX Runtime: any number of images, sides that no stride divides."""
    name, cfg, weights, _, file = detector
    model = Predictor(cfg, weights, device="cpu").model
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    size = (128, 128) if "ssd" in name else (75, 133)
    for number in (1,) if "faster" in name else (1, 3):
        images = 255 * torch.rand(number, 3, *size)
        boxes, scores, labels = session.run(None, {"images": images.numpy()})
        if isinstance(model, GeneralizedRCNN):
            expected = model.inference([{"image": x} for x in images])
        else:
            if hasattr(model, "canvas"):
                model.canvas = None
            with torch.no_grad():
                expected = model([{"image": x} for x in images])
        for i, output in enumerate(expected):
            instances = output["instances"]
            kept = scores[i] > 0
            assert kept.sum() == len(instances) > 10
            assert (boxes[i][~kept] == 0).all() and (labels[i][~kept] == -1).all()
            # Equal scores may be in another order.
            order = np.lexsort((boxes[i][kept][:, 0], -scores[i][kept].round(4)))
            x = instances.pred_boxes.tensor.detach().numpy()
            other = np.lexsort((x[:, 0], -instances.scores.detach().numpy().round(4)))
            same = np.abs(boxes[i][kept][order] - x[other]).max(axis=1) < 1e-2
            assert same.mean() > 0.95


def test_metadata(detector):
    name, cfg, _, _, file = detector
    entries = {x.key: json.loads(x.value) for x in onnx.load(file).metadata_props}
    assert entries["iou_balanced.class_names"] == DIGITS
    assert entries["iou_balanced.input"]["name"] == "images"
    assert entries["iou_balanced.input"]["channels"] == (cfg.dataloader.train.mapper.image_format)
    assert entries["iou_balanced.input"]["normalization"] == "in the graph"
    backbone = instantiate(cfg.model.backbone)
    assert entries["iou_balanced.stride"] == backbone.size_divisibility
    (augmentation,) = entries["iou_balanced.test_augmentations"]
    kinds = {"ssd_small": "Resize", "centernet_small": "CenterFit"}
    assert augmentation["name"] == kinds.get(name, "ResizeShortestEdge")


def test_few_detections(retinanet, tmp_path):
    """Fewer than the graph has room for, and none at all."""
    cfg, weights, found, file = retinanet
    images = write_images(tmp_path, (70, 90))
    assert 0 < found.comparison.num_detections < 20 * 100
    black = np.zeros((60, 80, 3), np.uint8)
    high = Predictor(None, file, device="cpu", score_thresh=1.0)
    assert len(high(black)["instances"]) == 0
    in_torch = Predictor(cfg, weights, device="cpu")
    assert close(in_torch(images[0]), Predictor(None, file, device="cpu")(images[0])) > 0


def test_the_flip_test_of_centernet_and_a_canvas_of_any_size(tmp_path):
    cfg = small_config("centernet_small", "model.flip_test=True")
    cfg.model.canvas = L(CenterPad)(divisor=32)
    _, found, file = exported(cfg, tmp_path)
    assert found.comparison.num_detections > 300
    assert found.input_shape == ["batch", 3, "height", "width"]
    with pytest.raises(ValueError, match="precision"):
        Predictor(None, file, precision="float16")


def test_a_deformable_neck(tmp_path, monkeypatch):
    """Written where ONNX Runtime has the operator, which the old ones do not."""
    cfg = small_config("centernet_small", "model.backbone.deformable=True")
    weights = save_weights(cfg, tmp_path / "model.pth")
    if operators.runs_deformable_convolution():
        content = torch.load(weights, weights_only=True)
        for name, value in content["model"].items():
            if "conv_offset_mask" in name:
                value.normal_(std=0.01)
        torch.save(content, weights)
        images = write_images(tmp_path / "check", *SIZES)
        found = export.export_onnx(cfg, weights, tmp_path / "model.onnx", images=images)
        assert found.opset == 19 and found.comparison.num_detections > 300
    monkeypatch.setattr(export, "runs_deformable_convolution", lambda: False)
    with pytest.raises(UserError, match=r"deformable convolutions, and the ONNX Runtime .* no op"):
        export.export_onnx(cfg, weights, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()


def test_masks_are_refused_with_the_way_out(tmp_path):
    """Which gives a stock Faster R-CNN, whose images have different numbers of proposals."""
    cfg = zoo_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 96
    weights = save_weights(cfg, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"has masks.*model\.roi_heads\.mask_in_features=null"):
        export.export_onnx(cfg, weights, tmp_path / "model.onnx")
    images = write_images(tmp_path / "check", *SIZES[:5])
    boxes = ["model.roi_heads.mask_in_features=null"]
    file = tmp_path / "model.onnx"
    found = export.export_onnx(cfg, weights, file, images=images, overrides=boxes)
    assert found.comparison.num_detections > 100 and found.input_shape[0] == 1


def test_a_stock_cascade_of_yaml(tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file("Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml"))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.STRIDE_IN_1X1, cfg.MODEL.RESNETS.NORM = False, "BN"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 10, 0.0
    cfg.MODEL.PIXEL_STD, cfg.INPUT.MIN_SIZE_TEST = [57.375, 57.12, 58.395], 96
    cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE = False, "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    calibrate(model)
    torch.save({"model": model.state_dict(), "class_names": DIGITS}, tmp_path / "model.pth")
    images = write_images(tmp_path / "check", *SIZES[:5])
    file = tmp_path / "model.onnx"
    found = export.export_onnx(cfg, tmp_path / "model.pth", file, images=images)
    assert found.comparison.num_detections > 100


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 3, 1)


def test_a_detector_that_is_not_known(tmp_path):
    cfg = small_config("retinanet_small_iou_balanced")
    cfg.model = L(Other)()
    content = {"model": Other().state_dict(), "class_names": DIGITS}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"Other: only CenterNet, SSD, FCOS, RetinaNet, FoveaBox"):
        export.export_onnx(cfg, tmp_path / "w.pth", tmp_path / "model.onnx")


def test_a_graph_that_finds_something_else_is_not_written(retinanet, tmp_path, monkeypatch):
    cfg, weights, *_ = retinanet
    real = operators.NonMaxSuppression.symbolic

    def symbolic(g, boxes, scores, max_boxes, iou_threshold, score_threshold):
        return real(g, boxes, scores, max_boxes, 0.9, score_threshold)

    monkeypatch.setattr(operators.NonMaxSuppression, "symbolic", staticmethod(symbolic))
    images = write_images(tmp_path / "check", *SIZES[:2])
    with pytest.raises(UserError, match=r"not the detector.*0\.png: .* alone finds class"):
        export.export_onnx(cfg, weights, tmp_path / "model.onnx", images=images)
    assert [x.name for x in tmp_path.iterdir()] == ["check"]


def test_files_that_are_there_or_wrong(retinanet, tmp_path):
    cfg, weights, _, file = retinanet
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
def test_packages_that_are_missing(retinanet, tmp_path, monkeypatch, missing):
    cfg, weights, _, file = retinanet
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


def test_an_unreadable_image_is_left_out_in_onnx_runtime_too(retinanet, tmp_path):
    *_, file = retinanet
    (image,) = write_images(tmp_path, (70, 90))
    (tmp_path / "bad.png").write_bytes(b"no image")
    predictor = Predictor(None, file, device="cpu")
    with pytest.raises(ImageError):
        predictor(tmp_path / "bad.png")
    files = [image, tmp_path / "bad.png"]
    summary = predict_files(predictor, files, tmp_path / "out", progress=False)
    assert summary.num_images == 1 and len(summary.unreadable) == 1
