"""Configs that leave keys to their user."""

import pytest
from omegaconf import OmegaConf

from iou_balanced.engine import UserError, load_config, train
from iou_balanced.engine.checks import check_config
from iou_balanced.engine.missing import check_missing

from ..voc_files import write_voc
from .helpers import make_args

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


def test_an_evaluation_without_a_training_set_is_set_up(tmp_path, monkeypatch):
    """Detectron2 reads every value when it saves the config."""

    def load(model, cfg):
        raise UserError(f"datasets.test.root={cfg.datasets.test.root} is reached")

    monkeypatch.setattr(train, "load_for_evaluation", load)
    root = write_voc(tmp_path / "birds", {"a": [("cat", (10, 10, 60, 60))]}, {"val": ["a"]})
    opts = [f"datasets.test.root={root}", "model.num_classes=1", "train.device=cpu"]
    opts.append(f"train.output_dir={tmp_path / 'out'}")
    args = make_args(CONFIG, eval_only=True)
    args.opts = opts
    with pytest.raises(UserError, match="birds is reached"):
        train.main(args)
    saved = load_config(str(tmp_path / "out/config_eval.yaml"), [])
    assert saved.datasets.test.root == str(root) and saved.datasets.train.root is None
    check_missing(saved, eval_only=True)
    with pytest.raises(UserError, match=r"datasets.train: .*root is None: give the folder"):
        check_config(saved)
