"""Weights of torchvision and timm in Detectron2's ResNet: the same features, and no silent gap."""

import pickle
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.modeling import ResNet
from detectron2.modeling.backbone import BasicStem
from detectron2.utils.file_io import PathManager

from iou_balanced.backbones import (
    IMAGENET_RGB_MEAN,
    IMAGENET_RGB_STD,
    VGG_RGB_MEAN,
    VGG_RGB_STD,
    convert_torch_resnet,
    make_resnext_stages,
    register_weights_handler,
)
from iou_balanced.backbones import imagenet as module
from iou_balanced.engine import UserError, load_config
from iou_balanced.engine.checkpoint import Checkpointer, load_initial_weights

CONFIGS = Path(__file__).resolve().parents[2] / "configs/COCO"
LEVELS = ["res2", "res3", "res4", "res5"]


def detectron2_resnet(stages, norm):
    stem = L(BasicStem)(in_channels=3, out_channels=64, norm=norm)
    stages.norm = norm
    return instantiate(L(ResNet)(stem=stem, stages=stages, out_features=LEVELS))


def resnet(depth, norm):
    stages = L(ResNet.make_default_stages)(depth=depth)
    if depth > 34:
        stages.stride_in_1x1 = False
    return detectron2_resnet(stages, norm)


def resnext50(norm):
    return detectron2_resnet(
        L(make_resnext_stages)(depth=50, num_groups=32, width_per_group=4), norm
    )


def randomise_norms(model):
    """Fresh ones are all alike, so that a mistaken one would not show."""
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(m.weight, 0.5, 1.0)
            torch.nn.init.normal_(m.bias, std=0.1)
            torch.nn.init.normal_(m.running_mean, std=0.1)
            torch.nn.init.uniform_(m.running_var, 0.5, 2.0)
    return model.eval()


SOURCES = {
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), lambda n: resnet(18, n)),
    "resnet50": (lambda: torchvision.models.resnet50(weights=None), lambda n: resnet(50, n)),
    "resnext50": (lambda: timm.create_model("resnext50_32x4d", pretrained=False), resnext50),
}


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("name", SOURCES)
def test_the_features_are_the_same(name, norm):
    make_source, make_target = SOURCES[name]
    source, target = randomise_norms(make_source()), make_target(norm).eval()
    converted = convert_torch_resnet(source.state_dict())
    own = {k for k in target.state_dict() if not k.endswith("num_batches_tracked")}
    assert set(converted) == own
    target.load_state_dict(converted, strict=False)

    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        ours = target(x)
        y = torch.relu(source.bn1(source.conv1(x)))
        y = source.maxpool(y)
        for level, layer in zip(LEVELS, ["layer1", "layer2", "layer3", "layer4"], strict=True):
            y = getattr(source, layer)(y)
            torch.testing.assert_close(ours[level], y, rtol=1e-3, atol=1e-4 * y.abs().max().item())


@pytest.mark.parametrize(
    ("config", "create"),
    [
        ("retinanet_R_18_FPN_1x.py", lambda: torchvision.models.resnet18(weights=None)),
        (
            "retinanet_X_101_32x4d_FPN_1x.py",
            lambda: timm.create_model("resnext101_32x4d.gluon_in1k", pretrained=False),
        ),
    ],
)
def test_the_names_and_shapes_are_those_of_the_config(config, create):
    with torch.device("meta"):
        bottom_up = instantiate(load_config(str(CONFIGS / config), []).model.backbone.bottom_up)
        converted = convert_torch_resnet(create().state_dict())
    own = {k: v.shape for k, v in bottom_up.state_dict().items()}
    assert {k: v.shape for k, v in converted.items()} == own


@pytest.mark.parametrize("tag", ["resnext101_32x4d.gluon_in1k"])
def test_mean_and_deviation_are_those_of_the_weights(tag):
    known = timm.get_pretrained_cfg(tag)
    assert [x * 255 for x in known.mean] == pytest.approx(IMAGENET_RGB_MEAN)
    assert [x * 255 for x in known.std] == pytest.approx(IMAGENET_RGB_STD)
    chosen = torchvision.models.get_weight("ResNet18_Weights.IMAGENET1K_V1").transforms()
    assert [x * 255 for x in chosen.mean] == pytest.approx(IMAGENET_RGB_MEAN)
    assert [x * 255 for x in chosen.std] == pytest.approx(IMAGENET_RGB_STD)
    vgg = torchvision.models.get_weight("VGG16_Weights.IMAGENET1K_FEATURES").transforms()
    assert [x * 255 for x in vgg.mean] == pytest.approx(VGG_RGB_MEAN)
    assert [x * 255 for x in vgg.std] == pytest.approx(VGG_RGB_STD)


@pytest.mark.parametrize(
    "name",
    [
        "features.0.weight",  # VGG
        "conv1.0.weight",  # the deep stem of ResNet-D
        "layer1.0.se.fc1.weight",  # squeeze and excitation
        "layer2.0.downsample.2.weight",
        "patch_embed.proj.weight",
    ],
)
def test_another_layout_is_refused_by_name(name):
    good = torchvision.models.resnet18(weights=None).state_dict()
    with pytest.raises(ValueError, match=f"cannot convert '{name}': not a ResNet"):
        convert_torch_resnet({**good, name: torch.zeros(1)})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The handler, with a cache of its own, and models without weights in the place of downloads.

    Returns:
        The folder, and a list of what was asked for.
    """
    folder, current = tmp_path / "cache", tmp_path / "current"
    current.mkdir()
    # The variable that decides where Detectron2's own downloads go.
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    monkeypatch.chdir(current)
    asked = []

    def get_model(name, *, weights):
        asked.append((name, weights))
        torch.manual_seed(3)
        return randomise_norms(getattr(torchvision.models, name)(weights=None))

    def create_model(name, *, pretrained, **kwargs):
        asked.append((name, pretrained))
        return real_create_model(name, pretrained=False, **kwargs)

    real_create_model = timm.create_model
    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    monkeypatch.setattr(timm, "create_model", create_model)
    register_weights_handler()
    register_weights_handler()  # each config file does it, and the engine
    yield folder, asked
    assert not list(current.iterdir()), "weights belong into the cache, not where one stands"


def cached_files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_the_cache_is_written_once_and_loads_into_the_detector(cache):
    folder, asked = cache
    cfg = load_config(str(CONFIGS / "retinanet_R_18_FPN_1x.py"), [])
    path = cfg.train.init_checkpoint
    models = [instantiate(cfg.model) for _ in range(2)]
    for model in models:
        checkpointer = Checkpointer(model)
        load_initial_weights(checkpointer, cfg)
        missing = checkpointer.unmatched()
        assert missing and not any("bottom_up" in name for name in missing)
    assert asked == [("resnet18", "IMAGENET1K_V1")]
    assert cached_files(folder) == ["IMAGENET1K_V1.pkl"]

    torch.manual_seed(3)
    source = randomise_norms(torchvision.models.resnet18(weights=None))
    bottom_up = models[0].backbone.bottom_up
    assert torch.equal(bottom_up.res5[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(bottom_up.stem.conv1.norm.running_var, source.bn1.running_var)
    assert PathManager.isfile(path) and PathManager.get_local_path(path, force=True)
    assert len(asked) == 2


def test_detectron2s_own_checkpointer_reads_timm(cache):
    folder, asked = cache
    model = resnext50("FrozenBN")
    before = model.res2[0].conv1.weight.clone()
    incompatible = []
    checkpointer = DetectionCheckpointer(model)
    load_model = checkpointer._load_model
    checkpointer._load_model = lambda c: incompatible.append(load_model(c))
    checkpointer.load("timm://resnext50_32x4d")
    assert asked == [("resnext50_32x4d", True)]
    assert not incompatible[0].missing_keys and not incompatible[0].incorrect_shapes
    assert not torch.equal(model.res2[0].conv1.weight, before)
    assert cached_files(folder) == ["resnext50_32x4d.pkl"]


def test_a_download_that_fails_leaves_nothing_and_names_the_override(cache, monkeypatch):
    folder, _ = cache

    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "get_model", no_network)
    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(URLError):
        PathManager.get_local_path("timm://resnext50_32x4d")
    cfg = load_config(str(CONFIGS / "retinanet_R_18_FPN_1x.py"), [])
    message = r"resnet18/IMAGENET1K_V1 cannot be had .*no network.* train\.init_checkpoint=''"
    with pytest.raises(UserError, match=message):
        load_initial_weights(Checkpointer(instantiate(cfg.model)), cfg)
    assert cached_files(folder) == []


def test_a_write_that_is_cut_short_leaves_no_weights(cache, monkeypatch):
    folder, asked = cache

    def full_disk(content, f):
        f.write(b"half of it")
        raise OSError("No space left on device")

    path = "torchvision://resnet18/IMAGENET1K_V1"
    with monkeypatch.context() as patch:
        patch.setattr(module.pickle, "dump", full_disk)
        with pytest.raises(OSError, match="No space left"):
            PathManager.get_local_path(path)
    # What a later call reads is written anew.
    assert "IMAGENET1K_V1.pkl" not in cached_files(folder)
    with PathManager.open(path, "rb") as f:
        content = pickle.load(f)
    assert len(asked) == 2 and content["matching_heuristics"] and content["__author__"] == path
    assert cached_files(folder) == ["IMAGENET1K_V1.pkl"]


def test_timm_missing_names_the_package(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="pip install timm"):
        PathManager.get_local_path("timm://resnext50_32x4d")


class FakeVGG(torch.nn.Module):
    """torchvision's VGG16 as IMAGENET1K_FEATURES, with NaN in its classifier, here a small one."""

    def __init__(self, layout="D", batch_norm=False):
        super().__init__()
        torch.manual_seed(4)
        vgg = torchvision.models.vgg
        self.features = vgg.make_layers(vgg.cfgs[layout], batch_norm=batch_norm)
        self.classifier = torch.nn.Sequential(torch.nn.Linear(2, 2))
        for p in self.classifier.parameters():
            torch.nn.init.constant_(p, float("nan"))


@pytest.fixture
def ssd300():
    cfg = load_config(str(CONFIGS / "ssd300.py"), ["model.num_classes=2"])
    return cfg, instantiate(cfg.model)


def test_vgg_loads_into_ssd_and_all_else_starts_anew(cache, monkeypatch, ssd300):
    source, asked, (cfg, model) = FakeVGG(), [], ssd300
    get_model = lambda name, *, weights: asked.append((name, weights)) or source  # noqa: E731
    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    load_initial_weights(Checkpointer(model), cfg)  # refuses to leave one of VGG's layers out
    assert asked == [("vgg16", "IMAGENET1K_FEATURES")] and len(cached_files(cache[0])) == 1
    for name, value in model.state_dict().items():
        _, is_vgg, rest = name.partition("backbone.bottom_up.")
        assert torch.equal(value, source.state_dict()[rest] if is_vgg else before[name]), name
    assert sum(k.startswith("backbone.bottom_up.") for k in before) == 2 * 13


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: FakeVGG("A"), r"lacks \d+ of the backbone's 26 parameters"),  # VGG11
        (lambda: FakeVGG(batch_norm=True), r"'features\.1\.running_mean': not a VGG without"),
        (lambda: torchvision.models.resnet18(weights=None), r"lacks 26 of the backbone's 26"),
    ],
)
def test_other_weights_than_vggs_are_refused(cache, monkeypatch, ssd300, source, message):
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, *, weights: source())
    with pytest.raises(UserError, match=message):
        load_initial_weights(Checkpointer(ssd300[1]), ssd300[0])
