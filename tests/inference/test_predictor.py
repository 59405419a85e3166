"""Predictions are those of the evaluation: same images, same model, boxes on the image."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation import inference_context
from PIL import Image

import iou_balanced
from iou_balanced import Predictor
from iou_balanced.engine import UserError
from iou_balanced.engine.checkpoint import load_trained
from iou_balanced.engine.loader import build_test_loader
from iou_balanced.formats.image_files import ImageError

from .detectors import DIGITS, SMALL, save_weights, small_config, write_images, zoo_config


@pytest.fixture(scope="module")
def retinanet(tmp_path_factory):
    """(config, weights)"""
    cfg = small_config("retinanet_small_iou_balanced")
    return cfg, save_weights(cfg, tmp_path_factory.mktemp("w") / "model.pth")


def equal(a, b):
    a, b = a["instances"], b["instances"].to("cpu")
    assert a.image_size == b.image_size
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
    assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)
    return len(a)


def close(a, b, *, pixels=1e-2, score=1e-4):
    """The same detections, in any order; returns how many."""
    a, b = a["instances"], b["instances"]
    assert len(a) == len(b)
    free = torch.ones(len(b), dtype=torch.bool)
    for box, value, index in zip(a.pred_boxes.tensor, a.scores, a.pred_classes, strict=True):
        fits = (b.pred_boxes.tensor - box).abs().amax(dim=1) < pixels
        fits &= ((b.scores - value).abs() < score) & (b.pred_classes == index) & free
        assert fits.any()
        free[fits.nonzero()[0]] = False
    return len(a)


@pytest.mark.parametrize("name", SMALL)
def test_predictions_are_those_of_the_test_loader(name, tmp_path, datasets_root):
    cfg = small_config(name)
    weights = save_weights(cfg, tmp_path / "model.pth")
    model = instantiate(cfg.model)
    load_trained(model, weights, key="")
    predictor = Predictor(cfg, weights, device="cpu")
    assert predictor.class_names == DIGITS
    found = 0
    with inference_context(model), torch.no_grad():
        for batch in build_test_loader(cfg):
            (theirs,) = model(batch)
            found += equal(predictor(batch[0]["file_name"]), theirs)
    assert found > 20


@pytest.mark.parametrize(
    "name",
    [
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py",
        "Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml",
    ],
)
def test_stock_detectors(name, tmp_path):
    if name.endswith(".py"):
        cfg = zoo_config(name)
        cfg.dataloader.test.mapper.augmentations[0].short_edge_length = 96
        weights = save_weights(cfg, tmp_path / "model.pth")
        overrides = []
    else:
        overrides = [
            *("MODEL.RESNETS.DEPTH=18", "MODEL.RESNETS.RES2_OUT_CHANNELS=64"),
            *("MODEL.ROI_HEADS.NUM_CLASSES=10", "MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.0"),
            *("INPUT.MIN_SIZE_TEST=96", "MODEL.RESNETS.STRIDE_IN_1X1=False"),
        ]
        from detectron2.config import get_cfg
        from detectron2.model_zoo import get_config_file
        from detectron2.modeling import build_model

        cfg = get_cfg()
        cfg.merge_from_file(get_config_file(name))
        cfg.merge_from_list([x for pair in overrides for x in pair.split("=")])
        cfg.MODEL.DEVICE = "cpu"
        weights = str(tmp_path / "model.pth")
        torch.save({"model": build_model(cfg).state_dict(), "class_names": DIGITS}, weights)
    config = cfg if name.endswith(".py") else name
    predictor = Predictor(config, weights, device="cpu", overrides=overrides)
    (file,) = write_images(tmp_path, (60, 90))
    instances = predictor(file)["instances"]
    assert instances.image_size == (60, 90) and len(instances) > 0
    assert instances.pred_masks.shape == (len(instances), 60, 90)


def test_batches_change_nothing(retinanet, tmp_path):
    files = write_images(tmp_path, (80, 60), (60, 80), (80, 60), (96, 128), (60, 80))
    alone = Predictor(*retinanet, device="cpu")
    together = Predictor(*retinanet, device="cpu", batch_size=4)
    outputs = together([str(file) for file in files])
    assert len(outputs) == 5
    for file, output in zip(files, outputs, strict=True):
        assert close(alone(file), output) > 20


def test_orders_of_channels(retinanet, tmp_path):
    (file,) = write_images(tmp_path, (60, 80))
    rgb = np.asarray(Image.open(file))
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    of_file = Predictor(*retinanet, device="cpu")(file)
    assert equal(Predictor(*retinanet, device="cpu")(bgr), of_file) > 20
    assert equal(Predictor(*retinanet, device="cpu", image_format="RGB")(rgb), of_file)
    assert equal(Predictor(*retinanet, device="cpu")(Image.open(file)), of_file)
    other = Predictor(*retinanet, device="cpu")(rgb)["instances"]
    assert not torch.equal(other.scores, of_file["instances"].scores)


def test_gray_images(retinanet, tmp_path):
    gray = np.arange(60 * 80, dtype=np.uint8).reshape(60, 80)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    predictor = Predictor(*retinanet, device="cpu")
    of_file = predictor(tmp_path / "gray.png")
    assert equal(predictor(gray), of_file)
    assert equal(predictor(gray[:, :, None]), of_file)


def test_exif_rotation(retinanet, tmp_path):
    """Orientation 6: stored lying on its left side; boxes are on the upright picture."""
    (file,) = write_images(tmp_path, (60, 80))
    upright = Image.open(file)
    exif = Image.Exif()
    exif[274] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    predictor = Predictor(*retinanet, device="cpu")
    assert equal(predictor(tmp_path / "turned.png"), predictor(file)) > 20
    assert equal(predictor(Image.open(tmp_path / "turned.png")), predictor(file))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("precision", "pixels"), [("bfloat16", 0.5), ("float16", 0.1)])
def test_16_bits_find_nearly_the_same(name, precision, pixels, tmp_path):
    """8 and 11 bits of mantissa. Without NMS, where the smallest difference decides over a box."""
    cfg = small_config(name)
    if "roi_heads" in cfg.model:
        cfg.model.proposal_generator.nms_thresh = 1.0
        cfg.model.roi_heads.box_predictor.test_nms_thresh = 1.0
    elif "centernet" not in name:
        cfg.model.test_nms_thresh = 1.0
    weights = save_weights(cfg, tmp_path / "model.pth")
    (file,) = write_images(tmp_path, (80, 80))
    exact = Predictor(cfg, weights, device="cpu")(file)["instances"]
    rough = Predictor(cfg, weights, device="cpu", precision=precision)(file)["instances"]
    assert rough.scores.dtype == rough.pred_boxes.tensor.dtype == torch.float32
    assert not torch.equal(rough.scores, exact.scores)
    assert rough.scores[0].item() == pytest.approx(exact.scores[0].item(), rel=0.02)
    distance = (rough.pred_boxes.tensor[:, None] - exact.pred_boxes.tensor).abs().amax(-1)
    # Among equals, CenterNet's maximum of a heat map is another cell.
    near = (distance[:20].amin(dim=1) < pixels).float().mean()
    assert near >= (0.5 if "centernet" in name else 0.85), near


def test_score_threshold_and_overrides(retinanet, tmp_path):
    (file,) = write_images(tmp_path, (60, 80))
    scores = Predictor(*retinanet, device="cpu")(file)["instances"].scores
    middle = scores.median().item()
    found = Predictor(*retinanet, device="cpu", score_thresh=middle)(file)["instances"].scores
    assert torch.equal(found, scores[scores >= middle]) and 0 < len(found) < len(scores)
    few = Predictor(*retinanet, device="cpu", overrides=["model.max_detections_per_image=3"])
    assert len(few(file)["instances"]) == 3
    assert (
        retinanet[0].model.get("max_detections_per_image", 100) == 100
    )  # the caller's config is as it was


def test_a_saved_config_and_a_file_are_configs_too(retinanet, tmp_path):
    cfg, weights = retinanet
    (file,) = write_images(tmp_path, (60, 80))
    saved = str(tmp_path / "config.yaml")
    LazyConfig.save(cfg, saved)
    expected = Predictor(cfg, weights, device="cpu")(file)
    assert equal(Predictor(saved, weights, device="cpu")(file), expected)


def test_class_names_without_any_in_the_file(tmp_path, datasets_root):
    cfg = small_config("retinanet_small_iou_balanced", "datasets.train.num_images=4")
    weights = save_weights(cfg, tmp_path / "model.pth", names=None)
    assert Predictor(cfg, weights, device="cpu").class_names == DIGITS  # the data set's
    cfg.datasets.train = cfg.datasets.test = "nowhere"
    predictor = Predictor(cfg, weights, device="cpu")
    assert not predictor.has_names and predictor.class_names[7] == "class 7"


def test_bad_arguments(retinanet, tmp_path):
    cfg, weights = retinanet
    with pytest.raises(ValueError, match=r"`image_format` to be one of .*'BRG'"):
        Predictor(cfg, weights, image_format="BRG")
    with pytest.raises(ValueError, match=r"`precision` to be one of .*'int8'"):
        Predictor(cfg, weights, precision="int8")
    with pytest.raises(ValueError, match=r"`score_thresh` in \[0, 1\], but got 30"):
        Predictor(cfg, weights, score_thresh=30)
    with pytest.raises(UserError, match=r"nope\.pth cannot be had"):
        Predictor(cfg, tmp_path / "nope.pth", device="cpu")
    with pytest.raises(UserError, match=r"nope\.py does not exist"):
        Predictor(tmp_path / "nope.py", weights)
    with pytest.raises(UserError, match="lacks"):
        other = save_weights(small_config("fcos_small"), tmp_path / "fcos.pth")
        Predictor(cfg, other, device="cpu")
    predictor = Predictor(cfg, weights, device="cpu")
    with pytest.raises(ValueError, match=r"uint8 .* but got float32"):
        predictor(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"shape \(4, 4, 4\)"):
        predictor(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(TypeError, match="but got Tensor"):
        predictor(torch.zeros(3, 4, 4))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"bad\.jpg cannot be read"):
        predictor(tmp_path / "bad.jpg")


def test_importing_the_package_imports_no_torch():
    assert iou_balanced.Predictor is Predictor
    code = "import iou_balanced, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
