"""The yaml files in docs/yaml.md are what it says they are."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from torch import nn

from iou_balanced.engine import BalancedDefaultTrainer

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/yaml.md").read_text("utf-8")
FILES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
(CODE,) = re.findall(r"```python\n([^`]*my_detector\.yaml[^`]*)```", PAGE)


def config(text, folder):
    """What the page's lines of Python make of one of its yaml files."""
    (folder / "my_detector.yaml").write_text(text)
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(CODE, names)
    names["cfg"].MODEL.DEVICE = "meta"
    return names["cfg"]


@pytest.fixture
def centernet(tmp_path):
    (text,) = [x for x in FILES if "CenterNet" in x]
    return config(text, tmp_path)


@pytest.fixture
def lazy():
    return LazyConfig.load(str(ROOT / "configs/COCO/centernet_MNV2_140e_bofl.py"))


def test_retinanet(tmp_path):
    (text,) = [x for x in FILES if "RetinaNet" in x]
    cfg = config(text, tmp_path)
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    with torch.device("meta"):
        model = build_model(cfg)
    assert model.box_loss.w_loc == 3.049 and model.box_loss.beta == 0.11


def test_the_model_is_that_of_the_config(centernet, lazy):
    with torch.device("meta"):
        assert repr(build_model(centernet)) == repr(instantiate(lazy.model))
    assert lazy.train.init_checkpoint == centernet.MODEL.WEIGHTS
    assert lazy.model.pixel_mean == centernet.MODEL.PIXEL_MEAN
    assert lazy.model.pixel_std == centernet.MODEL.PIXEL_STD


def test_the_data_are_those_of_the_config(centernet, lazy):
    assert lazy.dataloader.train.total_batch_size == centernet.SOLVER.IMS_PER_BATCH
    filter_empty = lazy.dataloader.train.dataset.filter_empty
    assert filter_empty == centernet.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    assert (lazy.dataloader.train.dataset.names,) == centernet.DATASETS.TRAIN
    assert (lazy.dataloader.test.dataset.names,) == centernet.DATASETS.TEST


def test_so_is_the_optimizer(centernet, lazy):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    ours = BalancedDefaultTrainer.build_optimizer(centernet, model)
    lazy.optimizer.params.model = model
    theirs = instantiate(lazy.optimizer)
    assert type(ours) is type(theirs)

    def settings(optimizer):
        keys = ("lr", "betas", "eps", "weight_decay", "amsgrad")
        groups = optimizer.param_groups
        return {id(p): [group[k] for k in keys] for group in groups for p in group["params"]}

    assert settings(ours) == settings(theirs)
    assert lazy.train.max_iter == centernet.SOLVER.MAX_ITER
    multiplier = build_lr_scheduler(centernet, ours)._multiplier
    expected = instantiate(lazy.lr_multiplier)
    for iteration in (0, 100, 499, 500, 501, 60_000, 129_359):
        where = iteration / lazy.train.max_iter
        assert multiplier(where) == pytest.approx(expected(where), rel=1e-9)
