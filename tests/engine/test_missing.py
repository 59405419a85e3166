"""Configs that leave keys to their user."""

import pytest
from omegaconf import OmegaConf

from iou_balanced.engine import UserError, load_config
from iou_balanced.engine.checks import check_config
from iou_balanced.engine.missing import check_missing

CONFIG = "configs/Photos/retinanet_lite0.py"


def test_all_missing_keys_are_named():
    message = (
        "^datasets.train.root and model.num_classes have no values: .* "
        "give datasets.train.root=... model.num_classes=...$"
    )
    with pytest.raises(UserError, match=message):
        check_config(load_config(CONFIG, []))


def test_one_missing_key():
    with pytest.raises(UserError, match=r"^model.num_classes has no value"):
        check_config(load_config(CONFIG, ["datasets.train.root=photos"]))


def test_an_evaluation_needs_no_training_set():
    cfg = load_config(CONFIG, ["model.num_classes=3", "datasets.test.root=photos"])
    check_missing(cfg, eval_only=True)
    with pytest.raises(UserError, match=r"^datasets.train.root has no value"):
        check_missing(cfg)


def test_a_test_set_that_refers_to_the_training_set():
    with pytest.raises(UserError, match=r"^datasets.test.root has no value"):
        check_missing(load_config(CONFIG, ["model.num_classes=3"]), eval_only=True)


def test_nothing_is_missing():
    check_missing(load_config("configs/Digits/fcos_small.py", []))
    check_missing(OmegaConf.create({"datasets": {"test": "a_name"}}), eval_only=True)
