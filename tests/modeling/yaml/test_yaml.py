"""MODEL.META_ARCHITECTURE: BalancedRetinaNet, for users of yaml files."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model

from iou_balanced.modeling import BalancedRetinaNet, add_iou_balanced_config

from ..detector_mixin import check_finite, gradients, make_input, training_step


def small_yaml(*overrides, architecture="BalancedRetinaNet"):
    """The model zoo's file with ResNet-18 and few channels, from random weights."""
    cfg = get_cfg()
    add_iou_balanced_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    small = {
        "MODEL.META_ARCHITECTURE": architecture,
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHTS": "",
        "MODEL.RESNETS.DEPTH": 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.FPN.OUT_CHANNELS": 32,
        "MODEL.RETINANET.NUM_CLASSES": 3,
        "MODEL.RETINANET.NUM_CONVS": 1,
        "MODEL.PIXEL_STD": [57.375, 57.120, 58.395],
        "MODEL.BACKBONE.FREEZE_AT": 0,
    }
    cfg.merge_from_list([x for pair in small.items() for x in pair])
    cfg.merge_from_list(list(overrides))
    return cfg


def build(cfg):
    torch.manual_seed(7)
    return build_model(cfg).train()


def test_registered_under_its_own_name():
    assert META_ARCH_REGISTRY.get("BalancedRetinaNet") is BalancedRetinaNet
    assert META_ARCH_REGISTRY.get("RetinaNet") is not BalancedRetinaNet


def test_defaults_are_the_papers():
    model = build(small_yaml("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", 0.11))
    assert (model.cls_loss.eta, model.cls_loss.alpha, model.cls_loss.gamma) == (1.5, 0.25, 2.0)
    assert (model.box_loss.lam, model.box_loss.weight) == (1.5, "auto")
    assert model.box_loss.beta == 0.11 and not model.box_loss.normalize
    for module in (model.cls_loss, model.box_loss, model.loss_normalizer):
        assert module.across_processes
    check_finite(model, training_step(model, [make_input()]))


def test_every_key_arrives():
    model = build(
        small_yaml(
            *("MODEL.IOU_BALANCED.CLS_ETA", 1.0),
            *("MODEL.IOU_BALANCED.LOC_LAMBDA", 0.5),
            *("MODEL.IOU_BALANCED.LOC_WEIGHT", 1.575),
            *("MODEL.IOU_BALANCED.LOC_NORMALIZE", True),
            *("MODEL.IOU_BALANCED.ACROSS_PROCESSES", False),
            *("MODEL.RETINANET.FOCAL_LOSS_ALPHA", 0.4),
            *("MODEL.RETINANET.FOCAL_LOSS_GAMMA", 1.0),
        )
    )
    assert (model.cls_loss.eta, model.cls_loss.alpha, model.cls_loss.gamma) == (1.0, 0.4, 1.0)
    assert (model.box_loss.lam, model.box_loss.w_loc) == (0.5, 1.575)
    assert model.box_loss.normalize
    for module in (model.cls_loss, model.box_loss, model.loss_normalizer):
        assert not module.across_processes


def test_exponents_0_are_the_stock_detector():
    zero = ("MODEL.IOU_BALANCED.CLS_ETA", 0.0, "MODEL.IOU_BALANCED.LOC_LAMBDA", 0.0)
    ours, stock = build(small_yaml(*zero)), build(small_yaml(architecture="RetinaNet"))
    ours.load_state_dict(stock.state_dict())
    batch = [make_input()]
    losses, expected = training_step(ours, batch), training_step(stock, batch)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name])
    for name, grad in gradients(ours).items():
        other = gradients(stock)[name]
        scale = other.abs().max().item()
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-5 * scale + 1e-12, msg=name)


def test_the_keys_survive_a_dump(tmp_path):
    cfg = small_yaml("MODEL.IOU_BALANCED.LOC_WEIGHT", 3.049)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    add_iou_balanced_config(again)
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert again.MODEL.IOU_BALANCED == cfg.MODEL.IOU_BALANCED


def test_missing_keys_say_what_to_call():
    cfg = small_yaml()
    del cfg.MODEL["IOU_BALANCED"]
    with pytest.raises(ValueError, match=r"no MODEL\.IOU_BALANCED: call .*add_iou_balanced_config"):
        build_model(cfg)


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_iou_losses(kind):
    keys = ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", kind)
    model = build(small_yaml(*keys))
    assert type(model.box_loss).__name__.lower() == f"ioubalanced{kind}loss"
    check_finite(model, training_step(model, [make_input(), make_input()]))
    # With lambda 0 and weight 1 it is the stock detector.
    plain = ("MODEL.IOU_BALANCED.LOC_LAMBDA", 0.0, "MODEL.IOU_BALANCED.LOC_WEIGHT", 1.0)
    ours = build(small_yaml(*keys, *plain))
    stock = build(small_yaml(*keys, architecture="RetinaNet"))
    ours.load_state_dict(stock.state_dict())
    batch = [make_input()]
    torch.testing.assert_close(
        training_step(ours, batch)["loss_box_reg"], training_step(stock, batch)["loss_box_reg"]
    )


def test_an_unknown_box_loss_is_refused():
    cfg = small_yaml("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "l2")
    with pytest.raises(ValueError, match=r"BBOX_REG_LOSS_TYPE to be one of .* but got 'l2'"):
        build_model(cfg)
