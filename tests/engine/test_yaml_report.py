"""report.html of a training with a yaml config."""

import os
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from iou_balanced.engine import UserError
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)
from tests.analysis.page.reading import Page

from .helpers import read_metrics
from .yaml_photos import train


@pytest.fixture
def config(yaml_config):
    yaml_config.TEST.REPORT = True
    return yaml_config


def page_of(config) -> Path:
    return Path(config.OUTPUT_DIR) / "report.html"


@pytest.mark.parametrize("has_key", [True, False])
def test_a_training_leaves_a_page(config, has_key):
    if not has_key:
        config.TEST = CfgNode({k: v for k, v in config.TEST.items() if k != "REPORT"})
    trainer, _ = train(config)
    page = Page(page_of(config).read_text(encoding="utf-8"))
    assert page.rows()["AP"][0].split()[0] == f"{trainer._last_eval_results['bbox']['AP']:.1f}"
    (table,) = (t for t in page.tables if t[0] == ["class", "weight"])
    assert [row[0] for row in table[1:]] == ["cat", "dog", "emu"]
    last = {k: v for x in read_metrics(config.OUTPUT_DIR).values() for k, v in x.items()}
    for name, weight in table[1:]:
        assert float(weight) == pytest.approx(last[f"class_weight/{name}"], abs=6e-4)


@pytest.mark.parametrize(
    "add_config", [add_centernet_config, add_class_balance_config, add_iou_balanced_config]
)
def test_the_key_is_added(add_config):
    cfg = get_cfg()
    add_config(cfg)
    assert cfg.TEST.REPORT is True


def test_switched_off_there_is_none(config):
    config.TEST.REPORT = False
    train(config)
    assert not page_of(config).exists()
    config.TEST.REPORT = "no"
    with pytest.raises(UserError, match=r"TEST\.REPORT=.*no.*: give "):
        train(config)


def test_what_is_not_evaluated_is_not_reported(config):
    """The evaluation of an earlier start is still there."""
    train(config)
    os.remove(page_of(config))
    config.DATASETS.TEST = ()
    config.SOLVER.MAX_ITER += 1
    train(config, resume=True)
    assert (Path(config.OUTPUT_DIR) / "inference/analysis_inputs.json").exists()
    assert not page_of(config).exists()
