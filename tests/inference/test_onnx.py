"""Exported detectors find what PyTorch's do, in images of any size and in batches of any size."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.model_zoo import get_config_file
from detectron2.modeling import GeneralizedRCNN, build_model
from torch import nn

from iou_balanced import Predictor
from iou_balanced.data import CenterPad, ClassCounts
from iou_balanced.engine import UserError
from iou_balanced.inference.onnx import export, operators

from .detectors import (
    DIGITS,
    SMALL,
    calibrate,
    save_weights,
    small_config,
    write_images,
    zoo_config,
)
from .exports import SIZES, exported
from .test_predictor import close


@pytest.fixture(scope="module", params=SMALL)
def detector(request, tmp_path_factory):
    """(name, config, weights, what the export says, file)"""
    cfg = small_config(request.param)
    return request.param, cfg, *exported(cfg, tmp_path_factory.mktemp("onnx"))


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


def test_few_detections(exported_retinanet, tmp_path):
    """Fewer than the graph has room for, and none at all."""
    cfg, weights, found, file = exported_retinanet
    images = write_images(tmp_path, (70, 90))
    assert 0 < found.comparison.num_detections < 20 * 100
    black = np.zeros((60, 80, 3), np.uint8)
    high = Predictor(None, file, device="cpu", score_thresh=1.0)
    assert len(high(black)["instances"]) == 0
    in_torch = Predictor(cfg, weights, device="cpu")
    assert close(in_torch(images[0]), Predictor(None, file, device="cpu")(images[0])) > 0


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("retinanet_small", "FractalAdjustment"),
        ("ssd_small", "FractalAdjustment"),
        ("faster_rcnn_small", "PriorAdjustment"),
    ],
)
def test_an_adjustment_is_part_of_the_graph(tmp_path, config, kind):
    names = [str(k) for k in range(10)]
    many = [50 if k % 2 else 5 for k in range(10)]
    dimensions = [1.0 + (k % 2) / 2 for k in range(10)]
    counts = ClassCounts(names, many, many, num_images=60, fractal_dimensions=dimensions)
    key = "train.logit_adjustment"
    cfg = small_config(
        config,
        f"{key}._target_=iou_balanced.modeling.{kind}",
        f"{key}.class_counts={counts.save(tmp_path / 'counts.json')}",
    )
    weights, found, file = exported(cfg, tmp_path)
    assert found.comparison.num_detections > 0
    (image,) = write_images(tmp_path / "one", (70, 90))
    in_torch = Predictor(cfg, weights, device="cpu")(image)
    assert close(in_torch, Predictor(None, file, device="cpu")(image)) > 0
    del cfg.train.logit_adjustment
    plain = Predictor(cfg, weights, device="cpu")(image)["instances"]
    assert not torch.equal(plain.scores, in_torch["instances"].scores)


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "constraints, message",
    [
        ({}, r"Other: only CenterNet, SSD, FCOS, RetinaNet, FoveaBox"),
        ({"square_size": 0}, r"Other: only CenterNet, SSD, FCOS, RetinaNet, FoveaBox"),
        ({"square_size": 64}, r"Other: its backbone pads images to a square"),
    ],
)
def test_a_detector_that_cannot_be_exported(constraints, message, tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Conv2d, "padding_constraints", constraints, raising=False)
    cfg = small_config("retinanet_small_iou_balanced")
    cfg.model = L(Other)()
    content = {"model": Other().state_dict(), "class_names": DIGITS}
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        export.export_onnx(cfg, tmp_path / "w.pth", tmp_path / "model.onnx")
