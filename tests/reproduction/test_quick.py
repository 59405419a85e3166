"""The quick profile keeps what a row is about, and its configs train."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage

from iou_balanced.engine import load_config
from iou_balanced.engine.class_balance import class_balances
from iou_balanced.engine.loader import build_train_loader
from iou_balanced.reproduction import RecordError, all_rows, find_table, plan_runs, quick_overrides
from iou_balanced.reproduction.quick import COMMON, DETECTORS, LONG_TAIL, detector_of

from ..test_configs import ROOT, flat, loss_node
from .loading import load_once

RUNS = plan_runs([row for row in all_rows() if row.config], profile="quick")
# One of each detector, with the losses or weights that the papers are about.
SAMPLE = {
    "retinanet": "iou/6/R_101_both",
    "ssd": "iou/5/ssd300_both",
    "foveabox": "iou/1/foveabox_both",
    "faster_rcnn": "iou/7/both",
    "fcos": "bofl/9/MNV2_bofl",
    "centernet": "bofl/12/eql_bg_50",
}
FEW = ("datasets.train.num_images=16", "datasets.test.num_images=4")
LOSSES = ("cls_loss", "box_loss", "class_balance")


def load(run, *more):
    return load_config(str(ROOT / f"configs/{run.config}.py"), [*run.all_overrides, *more])


def run_of(row):
    return next(run for run in RUNS if row in run.rows)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.rows[0])
def test_losses_detector_and_schedules_are_the_rows(run):
    quick, full = load(run), load_once(run.config, run.overrides)
    assert quick.model._target_ == full.model._target_
    ours, theirs = (
        flat({k: v for k, v in loss_node(cfg.model).items_ex(resolve=False) if k in LOSSES})
        for cfg in (quick, full)
    )
    assert {k: str(v) for k, v in ours.items()} == {k: str(v) for k, v in theirs.items()}
    assert {"cls_loss", "box_loss"} <= {key.split(".")[0] for key in ours}
    # Beside its warm-up, the learning rate goes the same way.
    schedule = {key: value for key, value in quick.lr_multiplier.items() if "warmup" not in key}
    assert schedule == {k: v for k, v in full.lr_multiplier.items() if "warmup" not in k}
    for key in ("loss_normalizer", "hard_negative_ratio", "match_iou_thresh", "sigma"):
        assert quick.model.get(key) == full.model.get(key)

    data = quick.dataloader.train.dataset.names
    assert data._target_.endswith("register_digits") and data.image_size == 96
    assert bool(data.get("long_tail")) == run.rows[0].startswith("bofl")
    assert (quick.train.device, quick.train.max_iter, quick.train.eval_period) == ("cpu", 500, 500)
    assert not quick.train.init_checkpoint and not quick.train.get("init_classes")


def step(run):
    """Build the model, train it for a step and let it detect."""
    cfg = load(run, *FEW)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    for class_balance in class_balances(model).values():
        class_balance.set_class_counts(range(1, 11), range(1, 11))
        class_balance.set_iteration(499, 500)
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 8 and batch[0]["image"].shape == (3, 96, 96)
    before = [p.detach().clone() for p in model.parameters()]
    with EventStorage():
        losses = model.train()(batch)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(loss.isfinite() for loss in losses.values())
    assert any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    # A smaller model than any of the papers'.
    assert sum(p.numel() for p in model.parameters()) < 2_000_000
    result = model.eval()([{"image": batch[0]["image"], "height": 96, "width": 96}])
    assert "instances" in result[0]


@pytest.mark.parametrize("detector", SAMPLE)
def test_a_step(detector, datasets_root):
    run = run_of(SAMPLE[detector])
    assert detector_of(run.config) == detector
    step(run)


def test_the_sample_has_every_detector():
    assert set(SAMPLE) == set(DETECTORS) == {detector_of(run.config) for run in RUNS}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.rows[0])
def test_a_step_of_every_run(run, datasets_root):
    step(run)


def test_what_is_added():
    bofl = quick_overrides(find_table("bofl/1").row("bofl"))
    assert set(COMMON) | set(LONG_TAIL) < set(bofl)
    assert not set(LONG_TAIL) & set(quick_overrides(find_table("iou/2").row("both")))
    with pytest.raises(RecordError, match="iou/1/yolov2 is cited"):
        quick_overrides(find_table("iou/1").row("yolov2"))
    with pytest.raises(RecordError, match="COCO/yolo_x: no quick profile for it; there are ret"):
        detector_of("COCO/yolo_x")
