import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig, instantiate
from detectron2.modeling import RetinaNet
from omegaconf import DictConfig, OmegaConf

import iou_balanced
from iou_balanced.losses import (
    IoUBalancedFocalLoss,
    IoUBalancedSmoothL1Loss,
    SigmoidFocalLoss,
    SmoothL1Loss,
)
from iou_balanced.modeling import BalancedRetinaNet, balance

from ..detector_mixin import build, check_finite, make_input, small_retinanet, training_step

STOCK_ONLY = {"focal_loss_alpha", "focal_loss_gamma", "smooth_l1_beta", "box_reg_loss_type"}


def test_one_line_on_the_model_zoo():
    model = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py").model
    before = OmegaConf.to_container(model)
    result = iou_balanced.balance(model)
    assert result is model and model._target_ is BalancedRetinaNet
    assert not STOCK_ONLY & set(model)
    assert model.cls_loss._target_ is IoUBalancedFocalLoss
    assert model.box_loss._target_ is IoUBalancedSmoothL1Loss
    # The paper's values; smooth L1 instead of the stock config's L1.
    assert (model.cls_loss.eta, model.cls_loss.alpha, model.cls_loss.gamma) == (1.5, 0.25, 2.0)
    assert (model.box_loss.lam, model.box_loss.weight) == (1.5, 1.0)
    assert model.box_loss.normalize  # Eq. 7
    assert model.box_loss.beta == pytest.approx(0.111, abs=2e-4)
    # Nothing else moved.
    after = OmegaConf.to_container(model)
    for key in set(before) - STOCK_ONLY - {"_target_"}:
        assert after[key] == before[key], key


def test_arguments_arrive():
    model = balance(small_retinanet(), eta=1.0, lam=0.5, weight=1.0, normalize=True, beta=0.3)
    detector = instantiate(model)
    assert detector.cls_loss.eta == 1.0
    box_loss = detector.box_loss
    assert (box_loss.lam, box_loss.weight, box_loss.beta) == (0.5, 1.0, 0.3)
    assert box_loss.normalize


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("eta, lam", [(1.5, 1.5), (None, None)])
def test_across_processes_concerns_the_normalizer_too(eta, lam, across):
    detector = instantiate(balance(small_retinanet(), eta=eta, lam=lam, across_processes=across))
    assert detector.loss_normalizer.across_processes is across
    if eta is not None:
        assert detector.cls_loss.across_processes is across
        assert detector.box_loss.across_processes is across


@pytest.mark.parametrize("stock_beta", [None, 0.0, 0.25])
@pytest.mark.parametrize("lam", [1.5, None])
def test_beta(stock_beta, lam):
    def config():
        model = small_retinanet()
        if stock_beta is not None:
            model.smooth_l1_beta = stock_beta
        return model

    # The one that lambda was tuned for, where there is one.
    tuned = pytest.approx(1 / 9) if lam is not None else (stock_beta or 0.0)
    assert balance(config(), lam=lam).box_loss.beta == tuned
    assert balance(config(), lam=lam, beta=0.5).box_loss.beta == 0.5
    # None keeps the config's own; Detectron2's default is 0.
    assert balance(config(), lam=lam, beta=None).box_loss.beta == (stock_beta or 0.0)


@pytest.mark.parametrize("eta", [1.5, None])
def test_alpha_and_gamma_of_the_config_are_kept(eta):
    model = small_retinanet()
    model.focal_loss_alpha, model.focal_loss_gamma = 0.4, 1.0
    cls_loss = balance(model, eta=eta).cls_loss
    assert (cls_loss.alpha, cls_loss.gamma) == (0.4, 1.0)
    assert cls_loss._target_ is (SigmoidFocalLoss if eta is None else IoUBalancedFocalLoss)


@pytest.mark.parametrize("kwargs", [{}, {"eta": None}, {"lam": None, "beta": 0.3}, {"weight": 3.0}])
def test_twice_is_once(kwargs):
    model = small_retinanet()
    model.focal_loss_gamma = 1.0
    once = OmegaConf.to_container(balance(model, **kwargs))
    assert OmegaConf.to_container(balance(model, **kwargs)) == once


def test_one_after_the_other_keeps_what_is_not_named():
    model = small_retinanet()
    model.focal_loss_alpha, model.smooth_l1_beta = 0.4, 0.25
    balance(model, eta=None, lam=None, beta=None)
    assert model.box_loss._target_ is SmoothL1Loss
    balance(model, beta=None)
    assert model.cls_loss.alpha == 0.4 and model.box_loss.beta == 0.25


def test_a_config_read_back_from_yaml(tmp_path):
    # Its target is a string then.
    path = str(tmp_path / "config.yaml")
    stock = DictConfig({"model": small_retinanet()}, flags={"allow_objects": True})
    LazyConfig.save(stock, path)
    model = LazyConfig.load(path).model
    assert isinstance(model._target_, str)
    model = balance(model)
    assert isinstance(instantiate(model), BalancedRetinaNet)
    LazyConfig.save(DictConfig({"model": model}, flags={"allow_objects": True}), path)
    assert isinstance(instantiate(balance(LazyConfig.load(path).model)), BalancedRetinaNet)


def test_overrides_by_name():
    cfg = DictConfig({"model": balance(small_retinanet())}, flags={"allow_objects": True})
    cfg = LazyConfig.apply_overrides(cfg, ["model.cls_loss.eta=2.0", "model.box_loss.weight=3.049"])
    model = build(cfg.model)
    assert model.cls_loss.eta == 2.0 and model.box_loss.w_loc == 3.049
    assert all(x.isfinite() for x in training_step(model, [make_input()]).values())


class TestRefusals:
    def test_no_detector_that_is_known(self):
        with pytest.raises(ValueError, match=r"RetinaNet, FCOS or GeneralizedRCNN.*Linear"):
            balance(LazyCall(torch.nn.Linear)(in_features=2, out_features=2))
        with pytest.raises(ValueError, match=r"but got .*Linear"):
            balance(torch.nn.Linear(2, 2))
        with pytest.raises(ValueError, match=r"but got .*dict"):
            balance({"_target_": RetinaNet})

    def test_an_unknown_box_loss(self):
        model = small_retinanet()
        model.box_reg_loss_type = "l2"
        before = OmegaConf.to_container(model)
        with pytest.raises(ValueError, match=r"box_reg_loss_type to be one of .*but got 'l2'"):
            balance(model)
        assert OmegaConf.to_container(model) == before

    def test_beta_of_a_loss_that_has_none(self):
        model = small_retinanet()
        model.box_reg_loss_type = "giou"
        with pytest.raises(ValueError, match=r"`beta` to be None, because GIoULoss has no beta"):
            balance(model, beta=0.11)

    def test_rpn_of_a_detector_without_one(self):
        with pytest.raises(ValueError, match=r"`rpn` to be False: RetinaNet has no RPN"):
            balance(small_retinanet(), rpn=True)

    def test_a_subclass_is_not_replaced_behind_its_back(self):
        class Mine(RetinaNet):
            pass

        model = small_retinanet()
        model._target_ = Mine
        with pytest.raises(ValueError, match=r"but got .*Mine"):
            balance(model)

    def test_a_mistyped_hyperparameter(self):
        with pytest.raises(TypeError, match="lamda"):
            balance(small_retinanet(), lamda=1.5)

    def test_impossible_values_stop_at_the_latest_when_the_model_is_built(self):
        with pytest.raises(ValueError, match=r"`eta` to be at least 0"):
            instantiate(balance(small_retinanet(), eta=-1.0))

    def test_eq7_needs_no_w_loc(self):
        assert balance(small_retinanet(), normalize=True).box_loss.weight == 1.0


@pytest.mark.parametrize("lam", [1.5, None])
@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_the_kind_of_box_loss_is_kept(kind, lam):
    model = small_retinanet()
    model.box_reg_loss_type = kind
    box_loss = balance(model, lam=lam).box_loss
    name = box_loss._target_.__name__.lower()
    assert name == ("" if lam is None else "ioubalanced") + f"{kind}loss"
    assert "beta" not in box_loss
    detector = build(model)
    check_finite(detector, training_step(detector, [make_input(), make_input()]))
    if lam is None:
        stock = small_retinanet()
        stock.box_reg_loss_type = kind
        stock = build(stock)
        stock.load_state_dict(detector.state_dict())
        fresh, batch = build(model), [make_input()]
        losses, expected = training_step(fresh, batch), training_step(stock, batch)
        torch.testing.assert_close(losses["loss_box_reg"], expected["loss_box_reg"])


def test_works_on_a_lazycall_of_ones_own():
    model = small_retinanet()
    own = LazyCall(RetinaNet)(**{k: v for k, v in model.items() if k != "_target_"})
    assert isinstance(instantiate(balance(own)), BalancedRetinaNet)


def test_the_whole_config_is_a_slip_with_an_answer():
    with pytest.raises(ValueError, match=r"give the config's `\.model`"):
        balance(model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py"))


def test_a_bad_value_changes_nothing():
    model = small_retinanet()
    before = OmegaConf.to_container(model)
    for bad in ({"eta": "1.5"}, {"lam": -1}, {"weight": "eq7"}):
        with pytest.raises(ValueError, match="Expected argument"):
            balance(model, **bad)
    assert OmegaConf.to_container(model) == before


def test_a_subclass_of_the_balanced_detector_keeps_its_class():
    class Mine(BalancedRetinaNet):
        pass

    model = balance(small_retinanet())
    model._target_ = Mine
    assert balance(model, eta=2.0)._target_ is Mine
    assert model.cls_loss.eta == 2.0


@pytest.mark.parametrize(
    ("kwargs", "weight", "normalize"),
    [
        ({}, 1.0, True),
        ({"normalize": False}, "auto", False),
        ({"weight": "paper"}, "auto", False),
        ({"weight": "auto"}, "auto", False),
        ({"weight": "auto", "normalize": True}, 1.0, True),
        ({"weight": 2.5}, 2.5, False),
        ({"measure_from": 90}, "auto", False),
    ],
)
def test_equation_7_unless_a_weight_is_asked_for(kwargs, weight, normalize):
    box_loss = balance(small_retinanet(), **kwargs).box_loss
    assert (box_loss.weight, box_loss.normalize) == (weight, normalize)
