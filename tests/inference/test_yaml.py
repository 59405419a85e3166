"""Detectors of yaml configs: the images and boxes are those of `BalancedDefaultTrainer`."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from iou_balanced import Predictor
from iou_balanced.engine import BalancedDefaultTrainer, UserError
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

from ..engine.yaml_photos import YAML, photos  # noqa: F401  (a fixture)

RETINANET = """
MODEL:
  META_ARCHITECTURE: BalancedRetinaNet
  BACKBONE: {NAME: build_retinanet_resnet_fpn_backbone}
  RESNETS: {DEPTH: 18, RES2_OUT_CHANNELS: 64, OUT_FEATURES: [res3, res4, res5]}
  FPN: {IN_FEATURES: [res3, res4, res5], OUT_CHANNELS: 32}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RETINANET: {NUM_CLASSES: 3, SCORE_THRESH_TEST: 0.0}
  CENTERNET: {NUM_CLASSES: 3}
  CLASS_BALANCE: {NAME: ""}
INPUT: {MIN_SIZE_TEST: 64, FORMAT: BGR}
"""


@pytest.fixture(params=["CenterNet", "BalancedRetinaNet", "RetinaNet"])
def config(request, photos, tmp_path):  # noqa: F811
    """(loaded config, its file, weights)"""
    text = YAML
    if request.param != "CenterNet":
        text = RETINANET.replace("BalancedRetinaNet", request.param)
        text += "DATASETS: {TRAIN: [yaml_trainer_photos], TEST: [yaml_trainer_photos]}\n"
    (tmp_path / "config.yaml").write_text(text)
    cfg = get_cfg()
    for add_config in (add_centernet_config, add_class_balance_config, add_iou_balanced_config):
        add_config(cfg)
    cfg.merge_from_file(str(tmp_path / "config.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.DATALOADER.NUM_WORKERS = 0
    torch.manual_seed(0)
    weights = str(tmp_path / "model.pth")
    state = build_model(cfg).state_dict()
    if request.param == "CenterNet":
        state["head.size.3.bias"].fill_(3.0)  # else no box has an area
    torch.save({"model": state}, weights)
    return cfg, str(tmp_path / "config.yaml"), weights


def test_predictions_are_those_of_the_trainer(config):
    cfg, file, weights = config
    cfg.MODEL.WEIGHTS = weights
    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(weights, weights_only=True)["model"])
    predictors = [Predictor(c, weights, device="cpu") for c in (cfg, file)]
    found = 0
    for batch in BalancedDefaultTrainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]):
        with torch.no_grad():
            expected = model(batch)[0]["instances"]
        for predictor in predictors:
            result = predictor(batch[0]["file_name"])["instances"]
            assert torch.equal(result.pred_boxes.tensor, expected.pred_boxes.tensor)
            assert torch.equal(result.scores, expected.scores)
            found += len(result)
    assert found > 10
    # The weights name no classes, so that they are the data set's.
    assert predictors[0].class_names == ["cat", "dog", "emu"]


def test_overrides(config):
    _, file, weights = config
    few = ["TEST.DETECTIONS_PER_IMAGE=2"]
    assert Predictor(file, weights, overrides=few, device="cpu").model.max_detections_per_image == 2
    with pytest.raises(UserError, match=r"unknown key TEST\.NOPE"):
        Predictor(file, weights, overrides=["TEST.NOPE=2"], device="cpu")


def test_a_file_with_another_key(tmp_path):
    (tmp_path / "config.yaml").write_text("MODEL: {NOPE: 1}\n")
    with pytest.raises(UserError, match=r"config\.yaml has a key .*MODEL\.NOPE"):
        Predictor(tmp_path / "config.yaml", tmp_path / "w.pth")
