"""A loss swapped by `_target_` keeps what it takes of the arguments of the config: it is said."""

import logging

from iou_balanced.engine import load_config, main
from iou_balanced.engine.kept_arguments import kept_arguments, warn_of_kept_arguments

from .helpers import BASELINE, CONFIG, make_args

GIOU = "model.box_loss._target_=iou_balanced.losses.IoUBalancedGIoULoss"


def kept(*overrides, config=CONFIG):
    return kept_arguments(load_config(config, list(overrides)), list(overrides))


def test_w_loc_of_another_loss():
    found = kept(GIOU, "model.box_loss.lam=1.2")
    assert found["model.box_loss.weight"] == "auto" or isinstance(
        found["model.box_loss.weight"], float
    )
    assert "model.box_loss.lam" not in found and "model.box_loss.beta" not in found


def test_what_is_given_or_the_default_anyway_is_left_aside():
    assert kept(GIOU, "model.box_loss.weight=2.0", "model.box_loss.lam=1.5") == {}
    assert kept("model.box_loss.weight=2.0") == {}


def test_other_calls_are_left_aside():
    target = "datasets.train._target_=iou_balanced.data.register_coco_json"
    given = [f"datasets.train.{x}=a" for x in ("name", "json_file", "image_root")]
    assert kept(target, *given, config=BASELINE) == {}


def test_it_is_said_once(tmp_path, caplog):
    overrides = [GIOU, "train.max_iter=1", "dataloader.evaluator=null"]
    main(make_args(opts=[*overrides, f"train.output_dir={tmp_path}"]))
    lines = [r.getMessage() for r in caplog.records if "_target_ replaces" in r.getMessage()]
    assert len(lines) == 1 and "\n" not in lines[0]
    assert "still the config's: model.box_loss.weight=" in lines[0]


def test_nothing_is_said_of_nothing(caplog):
    with caplog.at_level(logging.INFO):
        warn_of_kept_arguments(load_config(CONFIG, []), [])
    assert "replaces" not in caplog.text
