"""`balance(class_balance=...)`, and what is refused with its reason."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.modeling import PanopticFPN
from torch import nn

from iou_balanced import balance
from iou_balanced.losses import BalanceOriented, QualityFocalLoss, SoftmaxCrossEntropyLoss
from iou_balanced.modeling import BalancedFCOS

from .detector_mixin import NUM_CLASSES, build, make_input, training_step
from .rcnn.rcnn_models import small_faster_rcnn
from .test_class_balance import MODELS, batch_of, bofl
from .test_fcos import small_fcos


class NoWeights(nn.Module):
    def forward(self, pred_logits, gt_labels):
        return pred_logits.sum()


class TestRefused:
    def test_loss_without_class_weight(self):
        config = balance(small_fcos(), eta=None, lam=None, class_balance=bofl())
        config.cls_loss = L(NoWeights)()
        with pytest.raises(ValueError, match=r"`class_weight`.*NoWeights.forward does not"):
            build(config)

    def test_other_number_of_classes(self):
        config = balance(
            small_fcos(), class_balance=L(BalanceOriented)(num_classes=7, schedule=None)
        )
        with pytest.raises(ValueError, match=r"num_classes=3, as the model, but got 7"):
            build(config)

    @pytest.mark.parametrize("name", ["ssd", "faster_rcnn"])
    def test_quality_focal_loss_on_softmax(self, name):
        config = MODELS[name]()
        balance(config, eta=None, lam=None)
        node = config if name == "ssd" else config.roi_heads.box_predictor
        node.cls_loss = L(QualityFocalLoss)(reduction="none" if name == "ssd" else "sum")
        with pytest.raises(ValueError, match=r"a softmax loss.*QualityFocalLoss"):
            build(config)

    @pytest.mark.parametrize("bad", [L(SoftmaxCrossEntropyLoss)(), {"eta": 0.8}, "bofl"])
    def test_no_class_balance(self, bad):
        config = small_fcos()
        before = str(config)
        with pytest.raises(ValueError, match=r"`class_balance` to be a LazyCall"):
            balance(config, class_balance=bad)
        assert str(config) == before

    def test_instances_in_a_stock_rcnn(self):
        """Its box head is not told what the images show."""
        config = balance(small_faster_rcnn(), class_balance=bofl())
        config._target_ = "detectron2.modeling.GeneralizedRCNN"
        model = build(config)
        model.roi_heads.box_predictor.class_balance.set_iteration(0, 10)
        with pytest.raises(ValueError, match=r"`gt_classes`.*counted='locations'"):
            training_step(model, [make_input()])

    def test_instances_in_a_detector_that_keeps_its_class(self):
        config = small_faster_rcnn()
        config._target_ = PanopticFPN
        before = str(config)
        with pytest.raises(ValueError, match=r"counted='locations'.*PanopticFPN"):
            balance(config, class_balance=bofl())
        assert str(config) == before
        balance(config, class_balance=bofl(counted="locations"))

    def test_iou_balancing_of_a_loss_that_has_no_such_form(self):
        config = balance(small_fcos(), eta=None, lam=None)
        config.cls_loss = L(QualityFocalLoss)(beta=1.0)
        with pytest.raises(ValueError, match=r"`eta` to be None.*QualityFocalLoss"):
            balance(config)


def test_class_weights_alone_are_the_only_change():
    """Against the stock detector, whose box loss is L1: in all other losses nothing changes."""
    for name in ("retinanet", "faster_rcnn"):
        stock = training_step(build(MODELS[name]()), batch_of(name))
        config = balance(
            MODELS[name](), eta=None, lam=None, class_balance=bofl(eta=1.0, intensity=0.0)
        )
        model = build(config)
        for module in model.modules():
            if isinstance(module, BalanceOriented):
                module.set_iteration(0, 10)
        ours = training_step(model, batch_of(name))
        for key, loss in stock.items():
            assert ours[key].item() == pytest.approx(loss.item(), rel=1e-5), (name, key)


def test_balance_keeps_a_loss_of_the_users():
    config = balance(small_fcos(), eta=None, lam=None)
    config.cls_loss = L(QualityFocalLoss)(beta=1.0)
    balance(config, eta=None, lam=None, class_balance=bofl())
    assert config.cls_loss._target_ is QualityFocalLoss and config.cls_loss.beta == 1.0


def test_balance_keeps_what_the_config_has():
    config = balance(small_fcos(), class_balance=L(BalanceOriented)(eta=0.7, schedule=None))
    assert config.class_balance.num_classes == NUM_CLASSES
    balance(config, eta=None, lam=None)
    assert config._target_ is BalancedFCOS and config.class_balance.eta == 0.7
