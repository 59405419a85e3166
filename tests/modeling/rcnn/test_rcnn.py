"""Whole R-CNNs, from Faster to Cascade Mask, with the losses of this project in them."""

import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import SimpleTrainer
from detectron2.modeling import GeneralizedRCNN
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from iou_balanced import balance
from iou_balanced.engine import ResumeStateHook
from iou_balanced.modeling import BalancedGeneralizedRCNN

from ..detector_mixin import (
    BOXES,
    CLASSES,
    DetectorMixin,
    build,
    check_finite,
    gradients,
    make_input,
    training_step,
)
from .rcnn_models import (
    make_mask_input,
    small_cascade_mask_rcnn,
    small_faster_rcnn,
    small_mask_rcnn,
)


def class_agnostic():
    return small_faster_rcnn(class_agnostic=True)


class TestFasterRCNN(DetectorMixin):
    config = staticmethod(lambda: balance(small_faster_rcnn()))
    stock_config = staticmethod(small_faster_rcnn)


class TestClassAgnosticFasterRCNNWithBalancedRPN(DetectorMixin):
    config = staticmethod(lambda: balance(class_agnostic(), rpn=True))
    stock_config = staticmethod(class_agnostic)


MODELS = {
    "faster": small_faster_rcnn,
    "class-agnostic": class_agnostic,
    "mask": small_mask_rcnn,
    "cascade mask": small_cascade_mask_rcnn,
}
ALL_MODELS = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def mask_batches():
    return [
        [make_mask_input(), make_mask_input(BOXES[:2], CLASSES[:2])],
        [make_mask_input([], []), make_mask_input([[4, 4, 90, 90]], [1])],
        [make_mask_input([], [])],
        [make_mask_input(), make_mask_input([], [])],
    ]


def with_plain_losses(config, beta):
    """The config with the plain losses of this project in the place of its own."""
    return balance(config, eta=None, lam=None, beta=beta, rpn=True)


def set_stock_beta(config, beta):
    heads = config.roi_heads
    for node in [config.proposal_generator, *heads.get("box_predictors", [])]:
        node.smooth_l1_beta = beta
    if "box_predictor" in heads:
        heads.box_predictor.smooth_l1_beta = beta
    return config


@ALL_MODELS
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_plain_losses_equal_the_stock_detectors(config, beta):
    ours, stock = build(with_plain_losses(config(), beta)), build(set_stock_beta(config(), beta))
    assert type(ours) is BalancedGeneralizedRCNN and type(stock) is GeneralizedRCNN
    for batch in mask_batches():
        # The same weights to the last bit, lest another proposal comes up.
        ours.load_state_dict(stock.state_dict())
        losses, expected = training_step(ours, batch), training_step(stock, batch)
        assert losses.keys() == expected.keys()
        for name in losses:
            torch.testing.assert_close(losses[name], expected[name], msg=name)
        expected_gradients = gradients(stock)
        for name, grad in gradients(ours).items():
            # Rounding, relative to the largest entry of the tensor.
            scale = expected_gradients[name].abs().max().item()
            torch.testing.assert_close(
                grad, expected_gradients[name], rtol=1e-4, atol=1e-5 * scale + 1e-12, msg=name
            )
        torch.optim.SGD(stock.parameters(), lr=0.01).step()


@ALL_MODELS
def test_the_balanced_losses_change_the_gradients_not_the_first_value(config):
    # Eq. 4 keeps the sum of the positives, and "auto" that of the first localization loss.
    plain, balanced = (
        build(with_plain_losses(config(), 1.0)),
        build(balance(config(), rpn=True, beta=1.0)),
    )
    batch = mask_batches()[0]
    expected, losses = training_step(plain, batch), training_step(balanced, batch)
    assert losses.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name], msg=name)
    before, after = gradients(plain), gradients(balanced)
    layers = [n for n in before if n.endswith(("cls_score.weight", "bbox_pred.weight"))]
    layers += [
        "proposal_generator.rpn_head.objectness_logits.weight",
        "proposal_generator.rpn_head.anchor_deltas.weight",
    ]
    assert len(layers) == (8 if config is small_cascade_mask_rcnn else 4)
    for name in layers:
        assert (before[name] - after[name]).norm() > 1e-3 * before[name].norm(), name


def box_losses(model):
    """{path: module} of the localization losses of the box heads."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith("roi_heads.") and name.endswith("box_loss")
    }


@pytest.mark.parametrize("config", [small_mask_rcnn, small_cascade_mask_rcnn])
def test_mask_heads_train_with_images_without_objects(config):
    model = build(balance(config()))
    for batch in mask_batches():
        check_finite(model, training_step(model, batch))


def test_each_stage_of_a_cascade_has_a_w_loc_of_its_own():
    model = build(balance(small_cascade_mask_rcnn(), rpn=True, measure_iterations=1))
    batch = mask_batches()[0]
    with EventStorage() as storage:
        model(batch)
        recorded = {k: v[0] for k, v in storage.latest().items() if k.endswith("w_loc")}
    losses = box_losses(model)
    assert list(losses) == [f"roi_heads.box_predictor.{i}.box_loss" for i in range(3)]
    expected = {f"stage{i}/w_loc": loss.w_loc for i, loss in enumerate(losses.values())}
    expected["rpn/w_loc"] = model.proposal_generator.box_loss.w_loc
    assert recorded == expected
    assert len(set(recorded.values())) == 4 and min(recorded.values()) > 1


@pytest.mark.parametrize("config", [small_faster_rcnn, small_cascade_mask_rcnn])
def test_no_w_loc_is_measured_on_images_without_objects(config):
    model = build(balance(config(), measure_iterations=1))
    training_step(model, [make_mask_input([], [])])
    assert {loss.w_loc for loss in box_losses(model).values()} == {None}
    training_step(model, mask_batches()[0])
    assert all(loss.w_loc > 1 for loss in box_losses(model).values())


@pytest.mark.parametrize("config", [small_mask_rcnn, small_cascade_mask_rcnn])
def test_a_config_read_back_from_yaml_gives_the_same_model(config, tmp_path):
    path = str(tmp_path / "config.yaml")
    cfg = DictConfig({"model": balance(config())}, flags={"allow_objects": True})
    LazyConfig.save(cfg, path)
    first, second = build(cfg.model), build(LazyConfig.load(path).model)
    assert repr(first) == repr(second)


@pytest.mark.parametrize("config", [small_mask_rcnn, small_cascade_mask_rcnn])
def test_checkpoints_load_both_ways(config, tmp_path):
    ours, stock = build(balance(config())), build(config())
    training_step(ours, [make_mask_input()])
    for source, target in [(ours, stock), (stock, ours)]:
        with torch.no_grad():
            for p in source.parameters():
                p.add_(torch.rand_like(p))
        DetectionCheckpointer(source, str(tmp_path)).save("model")
        DetectionCheckpointer(target).load(str(tmp_path / "model.pth"))
        assert list(source.state_dict()) == list(target.state_dict())
        for name, value in source.state_dict().items():
            assert torch.equal(target.state_dict()[name], value), name


def make_trainer(folder, config, *hooks, weight="auto"):
    torch.manual_seed(0)
    measure = 1 if weight == "auto" else None
    model = instantiate(balance(config(), weight=weight, measure_iterations=measure)).train()
    data = [[make_mask_input()] for _ in range(4)]
    trainer = SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.0))
    trainer.register_hooks([hook(model) for hook in hooks])
    return trainer, DetectionCheckpointer(model, str(folder), trainer=trainer)


LOST = "without the state of box_loss"


@pytest.mark.parametrize("config", [small_faster_rcnn, small_cascade_mask_rcnn])
@pytest.mark.parametrize("hooks", [(), (ResumeStateHook,)], ids=["without", "with the hook"])
def test_a_resumed_run_has_its_w_loc_or_says_that_it_has_not(config, hooks, tmp_path, caplog):
    trainer, checkpointer = make_trainer(tmp_path, config, *hooks)
    trainer.train(0, 2)
    checkpointer.save("model")
    before = {name: loss.w_loc for name, loss in box_losses(trainer.model).items()}
    assert None not in before.values()

    trainer, checkpointer = make_trainer(tmp_path, config, *hooks)
    checkpointer.resume_or_load("", resume=True)
    after = {name: loss.w_loc for name, loss in box_losses(trainer.model).items()}
    assert after == (before if hooks else dict.fromkeys(before))
    with caplog.at_level(logging.WARNING, "iou_balanced"):
        trainer.train(2, 3)
    assert (LOST in caplog.text) is (not hooks)


def test_nothing_is_lost_where_w_loc_is_a_number(tmp_path, caplog):
    trainer, checkpointer = make_trainer(tmp_path, small_faster_rcnn, weight=2.4)
    trainer.train(0, 2)
    checkpointer.save("model")
    trainer, checkpointer = make_trainer(tmp_path, small_faster_rcnn, weight=2.4)
    checkpointer.resume_or_load("", resume=True)
    with caplog.at_level(logging.WARNING, "iou_balanced"):
        trainer.train(2, 3)
    assert LOST not in caplog.text


def test_no_gradient_reaches_the_boxes_through_the_classification_losses():
    model = build(balance(small_faster_rcnn(), rpn=True))
    with EventStorage():
        losses = model([make_input()])
    (losses["loss_cls"] + losses["loss_rpn_cls"]).backward()
    grads = gradients(model)
    for name in ("roi_heads.box_predictor.bbox_pred", "proposal_generator.rpn_head.anchor_deltas"):
        assert grads[f"{name}.weight"] is None
    for name in (
        "roi_heads.box_predictor.cls_score",
        "proposal_generator.rpn_head.objectness_logits",
    ):
        assert grads[f"{name}.weight"].abs().max() > 0
