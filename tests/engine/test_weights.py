import pytest
import torch
from detectron2.config import instantiate

from iou_balanced.engine import UserError
from iou_balanced.engine.checkpoint import Checkpointer, load_for_evaluation, load_initial_weights

from .helpers import tiny_config


def load(model, cfg):
    checkpointer = Checkpointer(model)
    load_initial_weights(checkpointer, cfg)
    return checkpointer


def test_from_scratch():
    cfg = tiny_config()
    load(instantiate(cfg.model), cfg)


def test_frozen_batch_norm_on_random_weights_is_refused():
    cfg = tiny_config("model.backbone.bottom_up.stages.1.norm=FrozenBN")
    with pytest.raises(
        UserError,
        match=r"BatchNorm layers .* frozen .*model\.backbone\.bottom_up\.stages\.1\.norm=BN",
    ):
        load(instantiate(cfg.model), cfg)


def test_frozen_stages_on_random_weights_are_refused():
    cfg = tiny_config("model.backbone.bottom_up.freeze_at=2")
    with pytest.raises(UserError, match=r"model\.backbone\.bottom_up\.freeze_at=0"):
        load(instantiate(cfg.model), cfg)


@pytest.mark.parametrize("path", ["nothing.pth", "detectron2://ImageNetPretrained/none.pkl"])
def test_weights_that_cannot_be_had_name_the_override(path, monkeypatch):
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no network"))
    )
    cfg = tiny_config(f"train.init_checkpoint={path}")
    with pytest.raises(UserError, match=r"cannot be had .* train\.init_checkpoint=''"):
        load(instantiate(cfg.model), cfg)


def test_weights_of_another_backbone_are_refused(tmp_path):
    cfg = tiny_config(f"train.init_checkpoint={tmp_path}/w.pth")
    model = instantiate(cfg.model)
    torch.save({"model": {"something.weight": torch.zeros(3)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"lacks \d+ of the backbone's \d+ parameters"):
        load(model, cfg)


def test_one_missing_layer_of_the_backbone_is_refused(tmp_path):
    cfg = tiny_config(f"train.init_checkpoint={tmp_path}/w.pth")
    model = instantiate(cfg.model)
    state = model.state_dict()
    del state["backbone.bottom_up.res5.1.conv2.weight"]
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"lacks 1 of .*res5\.1\.conv2\.weight"):
        load(model, cfg)
    cfg.train.allow_random_backbone = True
    load(model, cfg)


def test_a_new_head_is_no_error(tmp_path):
    # ImageNet weights have no FPN and no head; fine-tuning may have other classes.
    cfg = tiny_config(f"train.init_checkpoint={tmp_path}/w.pth")
    model = instantiate(cfg.model)
    state = {k: v for k, v in model.state_dict().items() if "bottom_up" in k}
    torch.save({"model": state}, tmp_path / "w.pth")
    assert any("head" in name for name in load(model, cfg).unmatched())


def test_evaluation_needs_a_checkpoint():
    cfg = tiny_config()
    with pytest.raises(UserError, match="--eval-only evaluates a trained model"):
        load_for_evaluation(instantiate(cfg.model), cfg)


def test_evaluation_of_other_classes_is_refused(tmp_path):
    cfg = tiny_config(f"train.init_checkpoint={tmp_path}/w.pth")
    torch.save({"model": instantiate(cfg.model).state_dict()}, tmp_path / "w.pth")
    cfg.model.num_classes = 3
    with pytest.raises(UserError, match=r"first head\.cls_score\.bias"):
        load_for_evaluation(instantiate(cfg.model), cfg)


def test_frozen_batch_norm_without_its_values_is_refused(tmp_path):
    """A half-converted file: all convolutions, no norm. Everything of a frozen norm is a buffer."""
    cfg = tiny_config(
        f"train.init_checkpoint={tmp_path}/w.pth",
        "model.backbone.bottom_up.stem.norm=FrozenBN",
    )
    model = instantiate(cfg.model)
    state = model.state_dict()
    torch.save({"model": state}, tmp_path / "w.pth")
    load(model, cfg)
    del state["backbone.bottom_up.stem.conv1.norm.weight"]
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"lacks 1 of .*stem\.conv1\.norm\.weight"):
        load(model, cfg)


def test_evaluation_needs_the_running_statistics(tmp_path):
    cfg = tiny_config(f"train.init_checkpoint={tmp_path}/w.pth")
    model = instantiate(cfg.model)
    state = {k: v for k, v in model.state_dict().items() if "running" not in k}
    torch.save({"model": state}, tmp_path / "w.pth")
    load(model, cfg)  # training finds them
    with pytest.raises(UserError, match=r"first .*norm.*running_mean"):
        load_for_evaluation(model, cfg)
