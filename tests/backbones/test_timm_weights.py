"""Checkpoints of the scheme "timm://" for `TimmBackbone`, made of random weights in tests."""

import pickle

import pytest
import timm
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import FPN
from detectron2.utils.file_io import PathManager

from iou_balanced.backbones import TimmBackbone, register_weights_handler
from iou_balanced.engine import UserError, load_config
from iou_balanced.engine.checkpoint import Checkpointer, load_initial_weights

from .test_imagenet import CONFIGS
from .test_timm_backbone import randomise_norms

MNV2 = str(CONFIGS / "fcos_MNV2_FPN_1x.py")


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """What is asked for; in the place of the hub's file, timm reads one of random weights."""
    asked, create = [], timm.create_model

    def create_model(name, *, pretrained, **kwargs):
        if not pretrained:
            return create(name, pretrained=False, **kwargs)
        file = tmp_path / f"{name}.pth"
        if not asked.count(name):  # the whole classifier, as on the hub
            torch.save(randomise_norms(create(name, pretrained=False)).state_dict(), file)
        asked.append(name)
        return create(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **kwargs)

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", create_model)
    register_weights_handler()
    return asked


def downloaded(name, tmp_path):
    """The classifier's weights; timm calls the stages.0 of it stages_0 where it gives maps."""
    weights = torch.load(tmp_path / f"{name}.pth")
    return {k.replace(".", "_"): v for k, v in weights.items()}


def test_the_config_of_mobilenet_loads_all_of_its_backbone(downloads, tmp_path):
    cfg = load_config(MNV2, ["model.num_classes=2"])
    model = instantiate(cfg.model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert downloads == []  # a model is built without a network
    checkpointer = Checkpointer(model)
    load_initial_weights(checkpointer, cfg)
    assert downloads == ["mobilenetv2_100.ra_in1k"]
    source = downloaded("mobilenetv2_100.ra_in1k", tmp_path)
    for name, value in model.state_dict().items():
        _, is_timm, rest = name.partition("backbone.bottom_up.timm.")
        same = is_timm and not name.endswith("num_batches_tracked")
        assert torch.equal(value, source[rest.replace(".", "_")] if same else before[name]), name
    assert not any("bottom_up" in name for name in checkpointer.unmatched())
    load_initial_weights(Checkpointer(instantiate(cfg.model)), cfg)
    assert len(downloads) == 1


@pytest.mark.parametrize("name", ["mobilenetv3_large_100", "dla34", "resnet18", "convnext_tiny"])
def test_other_models_frozen_ones_and_parts_of_them(downloads, name, tmp_path):
    norm = None if name == "convnext_tiny" else "FrozenBN"
    cfg = load_config(
        MNV2, [f"train.init_checkpoint=timm://{name}", "model.backbone.bottom_up.norm=FrozenBN"]
    )
    levels = ["c2", "c3", "c4"]
    bottom_up = L(TimmBackbone)(name=name, norm=norm, freeze_at=2, out_features=levels)
    backbone = instantiate(L(FPN)(bottom_up=bottom_up, in_features=levels, out_channels=8))
    model = torch.nn.Module()
    model.backbone = backbone
    load_initial_weights(Checkpointer(model), cfg)
    source = downloaded(name, tmp_path)
    for key, value in backbone.bottom_up.timm.state_dict().items():
        same = torch.equal(value, source[key.replace(".", "_")])
        assert same or key.endswith("num_batches_tracked"), key


def test_a_resnet_is_in_the_file_once_for_both_of_its_users(downloads, tmp_path):
    path = PathManager.get_local_path("timm://resnet18.a1_in1k")
    with open(path, "rb") as f:
        weights = pickle.load(f)["model"]
    assert weights["timm.layer1.0.conv1.weight"] is weights["res2.0.conv1.weight"]

    # Detectron2's own ResNet: neither a gap nor a warning about the other names.
    cfg = load_config(
        str(CONFIGS / "retinanet_R_18_FPN_1x.py"),
        ["train.init_checkpoint=timm://resnet18.a1_in1k"],
    )
    model = instantiate(cfg.model)
    checkpointer = Checkpointer(model)
    load_initial_weights(checkpointer, cfg)
    assert checkpointer.incompatible.unexpected_keys == []
    source = downloaded("resnet18.a1_in1k", tmp_path)
    assert torch.equal(
        model.backbone.bottom_up.res2[0].conv1.weight, source["layer1_0_conv1_weight"]
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("timm://mobilenetv3_large_100", r"lacks \d+ of the backbone's \d+ parameters"),
        (
            "timm://mobilenetv2_100.ra_in2k",
            r"cannot be had .*did you mean mobilenetv2_100\.ra_in1k",
        ),
        ("timm://mobilenetv2_10", r"has no model 'mobilenetv2_10'; did you mean mobilenetv2_1"),
        ("", None),
    ],
)
def test_weights_of_another_model_and_none(downloads, weights, message):
    cfg = load_config(MNV2, [f"train.init_checkpoint='{weights}'"])
    checkpointer = Checkpointer(instantiate(cfg.model))
    if message is None:
        load_initial_weights(checkpointer, cfg)  # from scratch, as asked for: nothing is frozen
        assert downloads == []
        return
    with pytest.raises(UserError, match=message):
        load_initial_weights(checkpointer, cfg)


def test_frozen_layers_without_weights_are_refused_with_the_way_out(downloads):
    overrides = ["train.init_checkpoint=''"]
    frozen = ["model.backbone.bottom_up.norm=FrozenBN", "model.backbone.bottom_up.freeze_at=2"]
    cfg = load_config(MNV2, overrides + frozen)
    with pytest.raises(UserError) as e:
        load_initial_weights(Checkpointer(instantiate(cfg.model)), cfg)
    way_out = str(e.value).partition("train from scratch: ")[2].split()
    assert set(way_out) == {
        "train.init_checkpoint=''",
        "model.backbone.bottom_up.norm=BN",
        "model.backbone.bottom_up.freeze_at=0",
    }
    cfg = load_config(MNV2, frozen + way_out)
    load_initial_weights(Checkpointer(instantiate(cfg.model)), cfg)


def test_parameters_without_use_do_not_stop_a_run_from_scratch(downloads):
    cfg = load_config(MNV2, ["train.init_checkpoint=''"])
    model = torch.nn.Module()
    model.backbone = TimmBackbone(name="hrnet_w18_small", out_features=["c2", "c3"])
    assert model.backbone.unused_parameters
    load_initial_weights(Checkpointer(model), cfg)
    model.backbone.timm.conv1.weight.requires_grad = False
    with pytest.raises(UserError, match=r"and 1 parameters of the model are frozen"):
        load_initial_weights(Checkpointer(model), cfg)


def test_a_trained_model_is_saved_and_loaded(downloads, tmp_path):
    cfg = load_config(MNV2, ["model.num_classes=2"])
    models = [instantiate(cfg.model) for _ in range(2)]
    Checkpointer(models[0], str(tmp_path)).save("model_final")
    Checkpointer(models[1]).load(str(tmp_path / "model_final.pth"))
    for (name, value), other in zip(
        models[0].state_dict().items(), models[1].state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
