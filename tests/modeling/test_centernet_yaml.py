"""MODEL.META_ARCHITECTURE: CenterNet, for users of yaml files."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from iou_balanced.data import CenterFit, CenterPad
from iou_balanced.modeling import CenterNet, add_centernet_config

from .detector_mixin import check_finite, make_input, training_step


def yaml_config(*overrides):
    cfg = get_cfg()
    add_centernet_config(cfg)
    keys = {
        "MODEL.META_ARCHITECTURE": "CenterNet",
        "MODEL.BACKBONE.NAME": "build_centernet_backbone",
        "MODEL.DEVICE": "cpu",
        "MODEL.CENTERNET.NUM_CLASSES": 3,
        "MODEL.CENTERNET.BACKBONE": "mobilenetv2_050",
        "INPUT.FORMAT": "RGB",
    }
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    cfg.merge_from_list(list(overrides))
    return cfg


def test_registered():
    assert META_ARCH_REGISTRY.get("CenterNet") is CenterNet


def test_trains_and_detects():
    torch.manual_seed(0)
    model = build_model(yaml_config()).train()
    check_finite(model, training_step(model, [make_input(), make_input([], [])]))
    with torch.no_grad():
        (result,) = model.eval()([{"image": make_input()["image"], "height": 96, "width": 112}])
    assert result["instances"].image_size == (96, 112)


def test_every_key_arrives():
    model = build_model(
        yaml_config(
            *("MODEL.CENTERNET.DEFORMABLE", True),
            *("MODEL.CENTERNET.HEAD_CHANNELS", 32),
            *("MODEL.CENTERNET.HEAD_NORM", ""),
            *("MODEL.CENTERNET.PRIOR_PROB", 0.05),
            *("MODEL.CENTERNET.SCORE_THRESH_TEST", 0.2),
            *("MODEL.CENTERNET.FLIP_TEST", True),
            *("MODEL.CENTERNET.CANVAS", "fit"),
            *("MODEL.CENTERNET.FIT_SIZE", 256),
            *("TEST.DETECTIONS_PER_IMAGE", 50),
        )
    )
    assert "DeformableConv2d" in repr(model.backbone)
    assert model.head.head_channels == 32 and "BatchNorm" not in repr(model.head)
    assert (model.test_score_thresh, model.max_detections_per_image) == (0.2, 50)
    assert model.flip_test and model.input_format == "RGB"
    assert isinstance(model.canvas, CenterFit) and tuple(model.canvas.size) == (256, 256)
    model = build_model(yaml_config("MODEL.CENTERNET.CANVAS", "pad"))
    assert isinstance(model.canvas, CenterPad)


def test_dla():
    cfg = yaml_config("MODEL.CENTERNET.BACKBONE", "dla34", "MODEL.CENTERNET.NECK", "dla")
    assert type(build_model(cfg).backbone).__name__ == "DLAUpNeck"


@pytest.mark.parametrize("key, allowed", [("NECK", "upconv"), ("CANVAS", "fit")])
def test_unknown_values(key, allowed):
    with pytest.raises(ValueError, match=rf"MODEL\.CENTERNET\.{key} to be one of .*{allowed}"):
        build_model(yaml_config(f"MODEL.CENTERNET.{key}", "other"))


def test_keys_are_missing():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "CenterNet"
    with pytest.raises(ValueError, match=r"call iou_balanced\.modeling\.add_centernet_config"):
        build_model(cfg)
