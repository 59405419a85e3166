"""MODEL.META_ARCHITECTURE: CenterNet, for users of yaml files."""

import logging
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from iou_balanced import balance
from iou_balanced.data import CenterFit, CenterPad
from iou_balanced.losses import (
    BalanceOriented,
    IoUBalancedPenaltyReducedFocalLoss,
    IoUBalancedSmoothL1Loss,
    LinearSchedule,
)
from iou_balanced.modeling import (
    CenterNet,
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

from ..detector_mixin import check_finite, make_input, training_step

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
BASE = """
MODEL:
  META_ARCHITECTURE: CenterNet
  BACKBONE: {NAME: build_centernet_backbone}
  DEVICE: cpu
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
INPUT: {FORMAT: RGB}
"""
RESNET = "DEFORMABLE: True, CANVAS: pad"
# What a user writes for the configs of each backbone.
BACKBONES = {
    "MNV2": "",
    "MNV3": "BACKBONE: mobilenetv3_large_100.ra_in1k",
    "R_18": f"BACKBONE: resnet18.tv_in1k, {RESNET}",
    "R_101": f"BACKBONE: resnet101.tv_in1k, {RESNET}",
    "DLA_34": "BACKBONE: dla34.in1k, NECK: dla, DEFORMABLE: True, HEAD_CHANNELS: 256, "
    "REGRESSION_STD: null, CANVAS: pad",
}


def yaml_config(keys="", *overrides, add=()):
    """`keys` is what stands in the yaml file's MODEL.CENTERNET."""
    cfg = get_cfg()
    for add_config in (add_centernet_config, *add):
        add_config(cfg)
    for text in (BASE, f"MODEL: {{CENTERNET: {{{keys}}}}}"):
        cfg.merge_from_other_cfg(CfgNode.load_cfg(text))
    cfg.merge_from_list(list(overrides))
    return cfg


def small_config(*overrides, keys="", add=()):
    return yaml_config(f"NUM_CLASSES: 3, BACKBONE: mobilenetv2_050, {keys}", *overrides, add=add)


def layers(model):
    parameters = {k: (p.shape, p.requires_grad) for k, p in model.named_parameters()}
    return {**parameters, **{k: b.shape for k, b in model.named_buffers()}}


def test_registered():
    assert META_ARCH_REGISTRY.get("CenterNet") is CenterNet


@pytest.mark.parametrize("name", BACKBONES)
def test_published_models(name, caplog):
    """They are those of the LazyConfigs."""
    lazy = LazyConfig.load(str(CONFIGS / f"COCO/centernet_{name}_140e.py")).model
    with torch.device("meta"), caplog.at_level(logging.WARNING, "iou_balanced"):
        arguments = CenterNet.from_config(yaml_config(BACKBONES[name]))
        ours, expected = CenterNet(**arguments), instantiate(lazy)
    assert not caplog.records
    assert repr(ours) == repr(expected)  # with all settings of its parts
    assert layers(ours) == layers(expected)
    assert repr(ours.canvas) == repr(expected.canvas)
    for key in ("pixel_mean", "pixel_std", "input_format"):
        assert arguments[key] == lazy[key]
    for key in ("test_score_thresh", "max_detections_per_image", "flip_test"):
        assert getattr(ours, key) == getattr(expected, key)


def test_trains_and_detects():
    torch.manual_seed(0)
    model = build_model(small_config()).train()
    check_finite(model, training_step(model, [make_input(), make_input([], [])]))
    image = make_input(size=(512, 512))["image"]
    with torch.no_grad():
        (result,) = model.eval()([{"image": image, "height": 48, "width": 56}])
    assert result["instances"].image_size == (48, 56)
    model = build_model(small_config(keys="CANVAS: ''")).eval()
    with torch.no_grad():
        (result,) = model([{"image": make_input()["image"], "height": 48, "width": 56}])
    assert result["instances"].image_size == (48, 56)


def test_every_key_arrives():
    model = build_model(
        small_config(
            *("TEST.DETECTIONS_PER_IMAGE", 50),
            keys="BACKBONE_NORM: FrozenBN, FREEZE_AT: 2, IN_FEATURES: [c4], UP_CHANNELS: [64, 32], "
            "DEFORMABLE: True, NORM: GN, HEAD_CHANNELS: 32, HEAD_NORM: '', PRIOR_PROB: 0.05, "
            "NORM_AFTER_ACTIVATION: False, REGRESSION_STD: 0.01, "
            "BBOX_REG_WEIGHTS: [1.0, 1.0, 0.2, 0.1], FOCAL_LOSS_ALPHA: 0.0, FOCAL_LOSS_BETA: 3.0, "
            "SCORE_THRESH_TEST: 0.2, FLIP_TEST: True, CANVAS: fit, FIT_SIZE: [192, 256]",
        )
    )
    backbone = model.backbone
    assert "in_feature=c4, channels=[64, 32], deformable=True, norm=GN" in repr(backbone)
    assert "norm=FrozenBN, freeze_at=2" in repr(backbone.bottom_up)
    assert model.stride == 4 and model.head.in_channels == 32
    assert model.head.extra_repr() == (
        "num_classes=3, head_channels=32, norm=, norm_after_activation=False, prior_prob=0.05, "
        "regression_std=0.01"
    )
    assert model.box2box_transform.weights == (1.0, 1.0, 0.2, 0.1)
    assert (model.cls_loss.alpha, model.cls_loss.beta) == (0.0, 3.0)
    assert (model.test_score_thresh, model.max_detections_per_image) == (0.2, 50)
    assert model.flip_test and model.input_format == "RGB"
    assert isinstance(model.canvas, CenterFit) and model.canvas.size == (192, 256)
    model = build_model(small_config(keys="CANVAS: pad, PAD_DIVISOR: 64, BACKBONE_NORM: ''"))
    assert isinstance(model.canvas, CenterPad) and model.canvas.divisor == 64
    assert model.backbone.bottom_up.norm is None
    assert build_model(small_config(keys="CANVAS: ''")).canvas is None


@pytest.mark.parametrize(
    "keys, message",
    [
        ("NECK: other", r"MODEL\.CENTERNET\.NECK to be one of .*upconv.* got 'other'"),
        ("CANVAS: other", r"MODEL\.CENTERNET\.CANVAS to be 'fit', 'pad' or '', but got 'other'"),
        ("IN_FEATURES: [c4, c5]", r"IN_FEATURES to be one map .*'upconv', but got \['c4', 'c5'\]"),
        ("BACKBONE_NORM: IN", r"`norm` in .* got 'IN'"),
    ],
)
def test_unknown_values(keys, message):
    with pytest.raises(ValueError, match=message):
        build_model(small_config(keys=keys))


def test_keys_are_missing():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "CenterNet"
    with pytest.raises(ValueError, match=r"call iou_balanced\.modeling\.add_centernet_config"):
        build_model(cfg)


class TestOtherImages:
    """A warning says what to set."""

    @pytest.fixture
    def warning(self, caplog):
        def build(keys, *overrides, weights="timm://mobilenetv2_050.lamb_in1k"):
            caplog.clear()
            with torch.device("meta"):
                CenterNet.from_config(small_config("MODEL.WEIGHTS", weights, *overrides, keys=keys))
            return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]

        return build

    def test_detectron2s_defaults(self, warning):
        bgr = get_cfg()
        assert warning(
            "",
            *("INPUT.FORMAT", bgr.INPUT.FORMAT),
            *("MODEL.PIXEL_MEAN", bgr.MODEL.PIXEL_MEAN, "MODEL.PIXEL_STD", bgr.MODEL.PIXEL_STD),
        ) == [
            "timm's weights of mobilenetv2_050 are for other images than this config's: set "
            "INPUT.FORMAT to 'RGB', MODEL.PIXEL_MEAN to [123.675, 116.28, 103.53] and "
            "MODEL.PIXEL_STD to [58.395, 57.12, 57.375]"
        ]

    def test_one_key(self, warning):
        (message,) = warning("", "MODEL.PIXEL_STD", [1.0, 1.0, 1.0])
        assert message.endswith("config's: set MODEL.PIXEL_STD to [58.395, 57.12, 57.375]")

    def test_weights_that_are_not_timms(self, warning):
        for weights in ("", "output/model_final.pth"):
            assert not warning("", "INPUT.FORMAT", "BGR", weights=weights)

    def test_rounded_numbers(self, warning):
        assert not warning("", "MODEL.PIXEL_MEAN", [124.0, 116.0, 104.0])

    def test_the_models_own(self, warning):
        (message,) = warning("BACKBONE: mobilenetv3_large_100.miil_in21k")
        assert "MODEL.PIXEL_MEAN to [0.0, 0.0, 0.0] and MODEL.PIXEL_STD to [255.0" in message


NODE = "MODEL.IOU_BALANCED."


@pytest.mark.parametrize(
    "overrides, arguments",
    [
        ([], {}),
        ([f"{NODE}CLS_ETA", 1.0, f"{NODE}LOC_LAMBDA", 0.0], {"eta": 1.0, "lam": None}),
        ([f"{NODE}CLS_ETA", 0.0, f"{NODE}LOC_WEIGHT", 2.5], {"eta": None, "weight": 2.5}),
        ([f"{NODE}CLS_ETA", 0.0, f"{NODE}LOC_LAMBDA", 0.0], {"eta": None, "lam": None}),
        (
            [f"{NODE}LOC_NORMALIZE", True, f"{NODE}LOC_WEIGHT", 1.0, f"{NODE}LOC_LAMBDA", 0.5],
            {"lam": 0.5, "normalize": True, "weight": 1.0},
        ),
        ([f"{NODE}ACROSS_PROCESSES", False], {"across_processes": False}),
    ],
)
def test_iou_balanced_losses(overrides, arguments):
    """They are those of `balance`."""
    lazy = LazyConfig.load(str(CONFIGS / "COCO/centernet_MNV2_140e.py")).model
    with torch.device("meta"):
        ours = CenterNet(
            **CenterNet.from_config(yaml_config("", *overrides, add=[add_iou_balanced_config]))
        )
        expected = instantiate(balance(lazy, **arguments))
    for part in ("cls_loss", "box_loss", "loss_normalizer", "cls_normalizer"):
        assert repr(getattr(ours, part)) == repr(getattr(expected, part))


def test_a_weight_of_the_plain_box_loss():
    overrides = (f"{NODE}LOC_LAMBDA", 0.0, f"{NODE}LOC_WEIGHT", 2.0)
    weighted = build_model(small_config(*overrides, add=[add_iou_balanced_config])).box_loss
    plain = build_model(small_config()).box_loss
    pred, target = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(weighted(pred, target), 2 * plain(pred, target))


def test_all_of_both_papers():
    cfg = small_config(
        *("MODEL.CLASS_BALANCE.NAME", "BalanceOriented", "MODEL.CLASS_BALANCE.SCHEDULE", "linear"),
        add=[add_iou_balanced_config, add_class_balance_config],
    )
    model = build_model(cfg).train()
    assert isinstance(model.cls_loss, IoUBalancedPenaltyReducedFocalLoss)
    assert isinstance(model.box_loss, IoUBalancedSmoothL1Loss)
    expected = BalanceOriented(num_classes=3, schedule=LinearSchedule())
    assert repr(model.class_balance) == repr(expected)
    model.class_balance.set_class_counts([6, 2, 1])
    model.class_balance.set_iteration(3, 4)
    check_finite(model, training_step(model, [make_input(), make_input()]))


def test_the_keys_survive_a_dump(tmp_path):
    cfg = yaml_config(BACKBONES["DLA_34"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    add_centernet_config(again)
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert again.MODEL.CENTERNET == cfg.MODEL.CENTERNET
    assert again.MODEL.CENTERNET.REGRESSION_STD is None
