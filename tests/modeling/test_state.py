"""What becomes of the losses' state in Detectron2's own loops."""

import logging
from types import SimpleNamespace

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, get_cfg, instantiate
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage

from iou_balanced import balance, losses
from iou_balanced.engine import BalancedDefaultTrainer, ResumeStateHook
from iou_balanced.engine.seeding import SeedHook

from .detector_mixin import make_input, small_retinanet


def make_trainer(folder, *hooks):
    torch.manual_seed(0)
    model = instantiate(balance(small_retinanet(), measure_iterations=1)).train()
    data = [[make_input()] for _ in range(4)]
    trainer = SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.0))
    trainer.register_hooks([hook(model) for hook in hooks])
    checkpointer = DetectionCheckpointer(model, str(folder), trainer=trainer)
    return trainer, checkpointer


@pytest.mark.parametrize("hooks", [(), (ResumeStateHook,)], ids=["without", "with the hook"])
def test_a_resume_without_the_hook_says_what_is_lost(tmp_path, caplog, hooks):
    trainer, checkpointer = make_trainer(tmp_path, *hooks)
    trainer.train(0, 2)
    checkpointer.save("model")
    before = (trainer.model.loss_normalizer.average, trainer.model.box_loss.w_loc)

    trainer, checkpointer = make_trainer(tmp_path, *hooks)
    checkpointer.resume_or_load("", resume=True)
    after = (trainer.model.loss_normalizer.average, trainer.model.box_loss.w_loc)
    assert after == (before if hooks else (None, None))
    with caplog.at_level(logging.WARNING, "iou_balanced"):
        trainer.train(2, 3)
    lost = "Training goes on at iteration 2 without the state of box_loss, loss_normalizer"
    assert (
        lost in caplog.text.replace("loss_normalizer, box_loss", "box_loss, loss_normalizer")
    ) is (not hooks)


@pytest.mark.parametrize("loss", ["EqualizedFocalLoss", "EqualizationLossV2"])
def test_statistics_that_are_lost_are_named(caplog, loss):
    config = balance(small_retinanet(), eta=None, lam=None)
    config.cls_loss = LazyCall(getattr(losses, loss))()
    model = instantiate(config).train()
    with EventStorage(500), caplog.at_level(logging.WARNING, "iou_balanced"):
        model([make_input()])
        assert "iteration 500 without the state of cls_loss.statistics" in caplog.text
        caplog.clear()
        model([make_input()])  # they are kept from now on
    assert "without the state" not in caplog.text


def test_what_the_new_loss_does_not_keep_is_named(caplog):
    config = balance(small_retinanet(), eta=None, lam=None)
    state = ResumeStateHook(instantiate(config)).state_dict()
    kept = {"positive": [1.0] * 3, "negative": [1.0] * 3, "of": "EqualizationLossV2"}
    with caplog.at_level(logging.WARNING, "iou_balanced"):
        hook = ResumeStateHook(instantiate(config))
        hook.load_state_dict({**state, "cls_loss.statistics": dict.fromkeys(kept)})
        assert not caplog.text  # nothing was kept yet
        hook.load_state_dict({**state, "cls_loss.statistics": kept})
    assert "The interrupted run kept a state of cls_loss.statistics, which is lost" in caplog.text


def test_any_trainer_records_w_loc():
    model = instantiate(balance(small_retinanet(), weight=2.5)).train()
    with EventStorage() as storage:
        model([make_input()])
    assert storage.latest()["w_loc"][0] == 2.5


def test_the_yaml_trainer_has_the_hook(monkeypatch, tmp_path):
    class Stub(BalancedDefaultTrainer):
        def __init__(self):
            self.cfg = get_cfg()
            model = instantiate(small_retinanet())
            self._trainer = SimpleNamespace(model=model, data_loader=None)
            self.checkpointer = DetectionCheckpointer(model, str(tmp_path))

    monkeypatch.setattr(DefaultTrainer, "build_hooks", lambda self: ["others"])
    first, second, *others = Stub().build_hooks()
    assert isinstance(first, ResumeStateHook) and isinstance(second, SeedHook)
    assert others == ["others"]
