"""balance() on the R-CNNs and on this package's own detectors."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from omegaconf import OmegaConf

import iou_balanced
from iou_balanced.losses import (
    GIoULoss,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    IoUBalancedGIoULoss,
    IoUBalancedSmoothL1Loss,
    SmoothL1Loss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling import (
    SSD,
    BalancedFastRCNNOutputLayers,
    BalancedGeneralizedRCNN,
    BalancedRPN,
    FoveaBox,
    balance,
)

from ..centernet.test_centernet import small_centernet
from ..detector_mixin import build, check_finite, make_input, training_step
from ..foveabox.foveabox_models import small_foveabox
from ..rcnn.rcnn_models import small_cascade_mask_rcnn, small_faster_rcnn, small_mask_rcnn
from ..ssd.ssd_models import small_ssd

RCNNS = {"faster": small_faster_rcnn, "mask": small_mask_rcnn, "cascade": small_cascade_mask_rcnn}


def predictors(model):
    roi_heads = model.roi_heads
    return (
        list(roi_heads.box_predictors)
        if "box_predictors" in roi_heads
        else [roi_heads.box_predictor]
    )


@pytest.mark.parametrize("name", ["faster", "mask", "cascade"])
def test_rcnns_get_the_authors_values_in_every_stage(name):
    model = RCNNS[name]()
    before = OmegaConf.to_container(model)
    assert balance(model) is model
    assert model._target_ is BalancedGeneralizedRCNN
    nodes = predictors(model)
    assert len(nodes) == (3 if name == "cascade" else 1)
    for node in nodes:
        assert node._target_ is BalancedFastRCNNOutputLayers
        assert node.cls_loss._target_ is IoUBalancedCrossEntropyLoss
        assert (node.cls_loss.eta, node.cls_loss.reduction) == (1.3, "sum")
        assert node.box_loss._target_ is IoUBalancedSmoothL1Loss
        loss = node.box_loss
        assert (loss.lam, loss.weight, loss.beta, loss.normalize) == (1.5, 1.0, 1.0, True)
    # RPN and everything else stay.
    after = OmegaConf.to_container(model)
    assert after["proposal_generator"] == before["proposal_generator"]
    assert {k for k in before if after[k] != before[k]} == {"_target_", "roi_heads"}

    detector = build(model)
    stages = predictors_of(detector)
    assert len({id(stage.box_loss) for stage in stages}) == len(stages)


def predictors_of(detector):
    found = [m for m in detector.modules() if isinstance(m, BalancedFastRCNNOutputLayers)]
    assert found
    return found


def test_a_faster_rcnn_trains():
    detector = build(balance(small_faster_rcnn(), measure_iterations=1))
    check_finite(detector, training_step(detector, [make_input(), make_input()]))
    assert predictors_of(detector)[0].box_loss.w_loc > 1


@pytest.mark.parametrize("kwargs", [{}, {"eta": None}, {"lam": None}, {"weight": 2.4, "rpn": True}])
def test_twice_is_once(kwargs):
    once = OmegaConf.to_container(balance(model := small_cascade_mask_rcnn(), **kwargs))
    assert OmegaConf.to_container(balance(model, **kwargs)) == once


def test_plain_losses_and_the_configs_own_beta():
    model = small_faster_rcnn()
    model.roi_heads.box_predictor.smooth_l1_beta = 0.5
    balance(model, eta=None, lam=None, beta=None)
    node = model.roi_heads.box_predictor
    assert node.cls_loss._target_ is SoftmaxCrossEntropyLoss
    assert node.box_loss._target_ is SmoothL1Loss and node.box_loss.beta == 0.5
    assert "smooth_l1_beta" not in node


def test_rpn_on_demand():
    model = balance(small_faster_rcnn(), weight=2.4, rpn=True, measure_iterations=1)
    rpn = model.proposal_generator
    assert rpn._target_ is BalancedRPN and rpn.cls_loss._target_ is IoUBalancedFocalLoss
    assert (rpn.cls_loss.alpha, rpn.cls_loss.gamma, rpn.cls_loss.eta) == (-1, 0.0, 1.3)
    # 2.4 is for the box head: that of RPN is measured.
    assert (rpn.box_loss.weight, model.roi_heads.box_predictor.box_loss.weight) == ("auto", 2.4)
    detector = build(model)
    check_finite(detector, training_step(detector, [make_input(), make_input()]))
    assert detector.proposal_generator.box_loss.w_loc > 1
    assert small_faster_rcnn().proposal_generator._target_ is RPN


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_iou_losses_of_a_box_head(kind):
    model = small_faster_rcnn()
    model.roi_heads.box_predictor.box_reg_loss_type = kind
    detector = build(balance(model))
    assert type(detector.roi_heads.box_predictor.box_loss).__name__.lower() == (
        f"ioubalanced{kind}loss"
    )
    check_finite(detector, training_step(detector, [make_input()]))


@pytest.mark.parametrize(
    "file, stages",
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py", 1),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py", 1),
        ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.py", 1),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py", 1),
        ("common/models/cascade_rcnn.py", 3),
    ],
)
def test_the_model_zoo(file, stages):
    model = iou_balanced.balance(model_zoo.get_config(file).model)
    nodes = predictors(model)
    assert len(nodes) == stages
    assert all(node._target_ is BalancedFastRCNNOutputLayers for node in nodes)
    # PanopticFPN is a subclass, and stays what it is.
    assert (model._target_ is BalancedGeneralizedRCNN) == ("panoptic" not in file)


class TestRefusals:
    def unchanged(self, model, match, **kwargs):
        before = OmegaConf.to_container(model)
        with pytest.raises(ValueError, match=match):
            balance(model, **kwargs)
        assert OmegaConf.to_container(model) == before

    def test_a_box_head_of_ones_own(self):
        model = small_cascade_mask_rcnn()
        model.roi_heads.box_predictors[2] = LazyCall(torch.nn.Linear)(in_features=1, out_features=1)
        self.unchanged(model, r"box_predictors\[2\].*FastRCNNOutputLayers.*Linear")

    def test_sigmoid_scores(self):
        model = small_faster_rcnn()
        model.roi_heads.box_predictor.use_sigmoid_ce = True
        self.unchanged(model, "by softmax.*use_sigmoid_ce=True")

    def test_a_bad_value(self):
        self.unchanged(small_mask_rcnn(), "`lam` to be at least 0", lam=-1.0)

    def test_an_rpn_of_ones_own(self):
        model = small_faster_rcnn()
        model.proposal_generator = LazyCall(torch.nn.Linear)(in_features=1, out_features=1)
        self.unchanged(model, "proposal_generator.*Linear", rpn=True)

    def test_beta_of_giou(self):
        model = small_faster_rcnn()
        model.roi_heads.box_predictor.box_reg_loss_type = "giou"
        self.unchanged(model, "GIoULoss has no beta", beta=1.0)

    def test_no_box_head(self):
        model = LazyCall(GeneralizedRCNN)(backbone=None, proposal_generator=None, roi_heads=None)
        self.unchanged(model, "a model with a box head")


def test_ssd_keeps_its_terms_for_the_mining():
    model = small_ssd()
    balance(model, weight=2.0)
    assert model._target_ is SSD and model.cls_loss._target_ is IoUBalancedCrossEntropyLoss
    assert (model.cls_loss.eta, model.cls_loss.reduction) == (1.5, "none")
    assert (model.box_loss.beta, model.box_loss.weight) == (1.0, 2.0)
    balance(model, eta=None, lam=None)
    assert model.cls_loss._target_ is SoftmaxCrossEntropyLoss and model.box_loss.beta == 1.0


def test_foveabox_keeps_its_focal_loss():
    model = small_foveabox()
    balance(model)
    assert model._target_ is FoveaBox
    assert (model.cls_loss.alpha, model.cls_loss.gamma, model.cls_loss.eta) == (0.4, 1.5, 1.5)
    assert (model.box_loss.beta, model.box_loss.normalize) == (0.11, True)


def test_centernet_whose_first_boxes_overlap_nothing():
    """A w_loc measured with them would be in the thousands: Eq. 7, unless one asks for it."""
    config = balance(small_centernet())
    assert (config.box_loss.lam, config.box_loss.weight) == (1.5, 1.0)
    assert config.box_loss.normalize is True and config.box_loss.beta == 0
    x = [make_input()]
    model = build(config)
    losses, plain = training_step(model, x), training_step(build(small_centernet()), x)
    assert losses["loss_box_reg"].item() == pytest.approx(plain["loss_box_reg"].item(), rel=1e-4)
    measured = balance(small_centernet(), weight="auto").box_loss
    assert (measured.weight, measured.normalize) == ("auto", False)
    given = balance(small_centernet(), weight=2.0).box_loss
    assert (given.weight, given.normalize) == (2.0, False)


@pytest.mark.parametrize("make, beta", [(small_ssd, 1.0), (small_foveabox, 0.11)])
def test_losses_that_the_config_leaves_to_the_class(make, beta):
    model = make()
    for key in ("cls_loss", "box_loss"):
        model.pop(key, None)
    balance(model)
    assert model.box_loss.beta == beta
    detector = build(model)
    check_finite(detector, training_step(detector, [make_input(), make_input()]))


def test_a_giou_loss_given_by_hand_is_balanced_as_such():
    model = small_foveabox()
    model.box_loss = LazyCall(GIoULoss)()
    assert balance(model, weight=1.0).box_loss._target_ is IoUBalancedGIoULoss
