import logging

import pytest

from iou_balanced.engine import load_config
from iou_balanced.engine.config import overridden_keys
from iou_balanced.engine.scaling import scale_to_batch_size

from .helpers import ROOT

COCO = str(ROOT / "configs/COCO/retinanet_R_50_FPN_1x.py")


def test_half_the_batch_halves_the_rate_and_doubles_the_length(caplog):
    cfg = load_config(COCO, ["dataloader.train.total_batch_size=8"])
    with caplog.at_level(logging.WARNING, "iou_balanced"):
        assert scale_to_batch_size(cfg) == 0.5
    assert cfg.optimizer.lr == pytest.approx(0.005)
    assert cfg.train.max_iter == 2 * 87960
    assert cfg.train.eval_period == cfg.train.checkpointer.period == 2 * 7330
    assert "optimizer.lr 0.01 -> 0.005, train.max_iter 87960 -> 175920" in caplog.text


def test_scaling_twice_changes_nothing():
    # A saved config.yaml holds the scaled values, and is to mean itself.
    cfg = load_config(COCO, ["dataloader.train.total_batch_size=32"])
    scale_to_batch_size(cfg)
    assert scale_to_batch_size(cfg) == 1.0
    assert cfg.train.max_iter == 87960 // 2


@pytest.mark.parametrize(
    "overrides",
    [[], ["dataloader.train.total_batch_size=2", "train.reference_batch_size=null"]],
    ids=["same batch", "switched off"],
)
def test_nothing_to_scale(overrides):
    cfg = load_config(COCO, overrides)
    assert scale_to_batch_size(cfg) == 1.0
    assert (cfg.optimizer.lr, cfg.train.max_iter) == (0.01, 87960)


def test_what_the_user_set_by_hand_stays(caplog):
    overrides = ["dataloader.train.total_batch_size=8", "train.max_iter=100", "optimizer.lr=0.02"]
    cfg = load_config(COCO, overrides)
    with caplog.at_level(logging.WARNING, "iou_balanced"):
        scale_to_batch_size(cfg, keep=overridden_keys(overrides))
    assert (cfg.optimizer.lr, cfg.train.max_iter) == (0.02, 100)
    assert cfg.train.eval_period == 2 * 7330
    assert "train.max_iter stays 100 as given" in caplog.text
