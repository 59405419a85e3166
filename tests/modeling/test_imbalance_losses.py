"""Losses for class imbalance in the detectors: who takes which, and what they keep."""

import inspect

import pytest
import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from omegaconf import OmegaConf

from iou_balanced import balance
from iou_balanced.engine import ResumeStateHook, UserError
from iou_balanced.engine.config import apply_overrides
from iou_balanced.losses import (
    EqualizationLossV2,
    EqualizedFocalLoss,
    SeesawLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling.normalizer import whole_batch

from .centernet.test_centernet import small_centernet
from .detector_mixin import build, check_finite, make_input, small_retinanet, training_step
from .foveabox.foveabox_models import small_foveabox
from .rcnn.box_heads import K, make_layers, random_batch, step
from .rcnn.rcnn_models import small_faster_rcnn
from .ssd.ssd_models import small_ssd
from .test_fcos import small_fcos

HAS_SIGMOID = "use_sigmoid_ce" in inspect.signature(FastRCNNOutputLayers.__init__).parameters
SIGMOID = {
    "retinanet": lambda: balance(small_retinanet(), eta=None, lam=None),
    "fcos": lambda: balance(small_fcos(), eta=None, lam=None),
    "foveabox": small_foveabox,
}


def with_loss(config, name, *more, key="cls_loss"):
    """By the override that a command line has."""
    cfg = OmegaConf.create({"model": config}, flags={"allow_objects": True})
    target = f"model.{key}._target_=iou_balanced.losses.{name}"
    return apply_overrides(cfg, [target, *(f"model.{key}.{x}" for x in more)]).model


@pytest.mark.parametrize("name", SIGMOID)
@pytest.mark.parametrize("loss", [("EqualizedFocalLoss",), ("EqualizationLossV2",)])
def test_sigmoid_detectors(name, loss):
    model = build(with_loss(SIGMOID[name](), *loss))
    statistics = model.cls_loss.statistics
    assert statistics.num_classes == 3  # told by the detector
    own = name == "foveabox" and loss == ("EqualizationLossV2",)  # a config without a loss
    assert model.cls_loss.gamma == (0.0 if own else 2.0)  # the config's, and nothing else of it
    assert getattr(model.cls_loss, "boost", 4.0) == 4.0
    losses = training_step(model, [make_input(), make_input()])
    check_finite(model, losses)
    assert statistics.sums.shape == (2, 3) and (statistics.sums > 0).all()
    before = statistics.sums.clone()
    model.eval()([{"image": make_input()["image"]}])
    assert torch.equal(statistics.sums, before)


def test_seesaw_in_ssd_and_faster_rcnn():
    model = build(with_loss(small_ssd(), "SeesawLoss", "reduction=none"))
    check_finite(model, training_step(model, [make_input(), make_input()]))
    assert (model.cls_loss.statistics.sums > 0).all()
    config = balance(small_faster_rcnn(), eta=None, lam=None)
    model = build(with_loss(config, "SeesawLoss", key="roi_heads.box_predictor.cls_loss"))
    check_finite(model, training_step(model, [make_input()]))
    statistics = model.roi_heads.box_predictor.cls_loss.statistics
    assert statistics.num_classes == 3 and statistics.sums.sum() >= 3


@pytest.mark.parametrize(
    ("config", "key", "name", "message"),
    [
        (SIGMOID["retinanet"], "cls_loss", "SeesawLoss", "a sigmoid loss.*SeesawLoss, a softmax"),
        (
            SIGMOID["fcos"],
            "cls_loss",
            "SoftmaxCrossEntropyLoss",
            "a sigmoid loss.*none for the background",
        ),
        (small_ssd, "cls_loss", "EqualizedFocalLoss", "a softmax loss.*EqualizedFocalLoss, a sig"),
        (
            small_centernet,
            "cls_loss",
            "EqualizationLossV2",
            "a loss of heat maps.*EqualizationLossV2",
        ),
        (small_centernet, "cls_loss", "SeesawLoss", "a loss of heat maps.*SeesawLoss"),
        (
            lambda: balance(small_faster_rcnn(), eta=None, lam=None),
            "roi_heads.box_predictor.cls_loss",
            "EqualizedFocalLoss",
            "a softmax loss.*use_sigmoid_ce=True, of Detectron2's main.*EqualizedFocalLoss",
        ),
    ],
)
def test_losses_that_a_detector_cannot_use(config, key, name, message):
    with pytest.raises(Exception, match=rf"(?s)`cls_loss` to be {message}"):
        build(with_loss(config(), name, key=key))


def test_another_number_of_classes():
    message = "`cls_loss` to have num_classes=3, as the model.*those of 5"
    with pytest.raises(Exception, match=rf"(?s){message}"):
        build(with_loss(SIGMOID["retinanet"](), "EqualizedFocalLoss", "num_classes=5"))


def test_micro_batches_weigh_alike_and_count_once():
    config = with_loss(SIGMOID["retinanet"](), "EqualizedFocalLoss")
    whole, parts = build(config), build(config)
    batch = [make_input(), make_input([[8, 12, 60, 70]], [1])]
    for _ in range(2):
        expected = training_step(whole, batch)
        total = 0
        with whole_batch(parts, [[x] for x in batch]):
            for x in batch:
                total += training_step(parts, [x])["loss_cls"]
        torch.testing.assert_close(total, expected["loss_cls"])
        torch.testing.assert_close(parts.cls_loss.statistics.sums, whole.cls_loss.statistics.sums)


def test_a_resume_with_other_classes_is_one_clear_error():
    model = build(with_loss(SIGMOID["retinanet"](), "EqualizedFocalLoss"))
    training_step(model, [make_input()])
    state = ResumeStateHook(model).state_dict()
    again = build(with_loss(SIGMOID["retinanet"](), "EqualizedFocalLoss"))
    ResumeStateHook(again).load_state_dict(state)
    assert torch.equal(again.cls_loss.statistics.sums, model.cls_loss.statistics.sums)
    state["cls_loss.statistics"] = {"positive": [1.0, 2.0], "negative": [1.0, 2.0]}
    message = r"model\.cls_loss: The interrupted run has .* of 2 classes, and .* of 3"
    with pytest.raises(UserError, match=message):
        ResumeStateHook(again).load_state_dict(state)


class TestSigmoidBoxHead:
    @pytest.mark.skipif(HAS_SIGMOID, reason="this Detectron2 has it")
    def test_a_detectron2_without_it(self):
        message = r"`use_sigmoid_ce` to be False.*v0\.6.*softmax only.*main branch"
        with pytest.raises(ValueError, match=message):
            make_layers(use_sigmoid_ce=True, cls_loss=EqualizationLossV2())

    @pytest.mark.skipif(not HAS_SIGMOID, reason="needs Detectron2's main branch")
    @pytest.mark.parametrize("agnostic", [False, True])
    def test_the_default_is_detectron2s_sigmoid_cross_entropy(self, agnostic):
        predictions, proposals = random_batch(agnostic)
        ours, grads = step(make_layers(agnostic, use_sigmoid_ce=True), predictions, proposals)
        stock = make_layers(agnostic, layers=FastRCNNOutputLayers, use_sigmoid_ce=True)
        expected, expected_grads = step(stock, predictions, proposals)
        for name, loss in ours.items():
            torch.testing.assert_close(loss, expected[name])
        torch.testing.assert_close(grads, expected_grads)

    @pytest.mark.skipif(not HAS_SIGMOID, reason="needs Detectron2's main branch")
    @pytest.mark.parametrize("loss", [EqualizationLossV2, EqualizedFocalLoss, SigmoidFocalLoss])
    def test_sigmoid_losses(self, loss):
        predictions, proposals = random_batch(False)
        layers = make_layers(use_sigmoid_ce=True, cls_loss=loss())
        losses, (grad, _) = step(layers, predictions, proposals)
        assert losses["loss_cls"].isfinite() and (grad[:, -1] == 0).all() and grad[:, :K].any()

    @pytest.mark.skipif(not HAS_SIGMOID, reason="needs Detectron2's main branch")
    @pytest.mark.parametrize("loss", [SeesawLoss, SoftmaxCrossEntropyLoss])
    def test_softmax_losses_are_refused(self, loss):
        with pytest.raises(ValueError, match=f"a sigmoid loss.*but got {loss.__name__}"):
            make_layers(use_sigmoid_ce=True, cls_loss=loss())
