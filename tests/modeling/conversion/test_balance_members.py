"""balance(cls=...), balance(correlation=...) and the yaml keys that stand for them."""

import pytest
import torch
from detectron2.config import CfgNode, instantiate
from detectron2.structures import Boxes, Instances
from omegaconf import OmegaConf

from iou_balanced.losses import (
    CorrelationLoss,
    EqualizationLossV2,
    EqualizedFocalLoss,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    SeesawLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
    VarifocalLoss,
)
from iou_balanced.modeling import add_iou_balanced_config, balance
from iou_balanced.modeling.cls_members import CLASS_MEMBERS, MEMBERS, QUALITY_MEMBERS
from iou_balanced.modeling.loss_families import BOX_FAMILIES, FOCAL, PENALTY_REDUCED
from iou_balanced.modeling.yaml.losses import make_losses

from ..centernet.test_centernet import small_centernet
from ..detector_mixin import small_retinanet
from ..foveabox.foveabox_models import small_foveabox
from ..rcnn.rcnn_models import small_cascade_mask_rcnn, small_faster_rcnn
from ..ssd.ssd_models import small_ssd
from ..test_fcos import small_fcos


@pytest.mark.parametrize("make", [small_retinanet, small_fcos, small_foveabox])
def test_every_name(make):
    own = {"alpha": 0.4, "gamma": 1.5} if make is small_foveabox else {"alpha": 0.25, "gamma": 2.0}
    for name in MEMBERS:
        loss = instantiate(balance(make(), cls=name).cls_loss)
        if name in QUALITY_MEMBERS:
            plain = QUALITY_MEMBERS[name]()
            assert type(loss) is type(plain) and loss.arguments() == plain.arguments()
            balanced = instantiate(balance(make(), cls=name, eta=0.5).cls_loss)
            assert balanced.eta == 0.5
        elif name in CLASS_MEMBERS:
            assert type(loss) is CLASS_MEMBERS[name][0] and loss.statistics.across_processes
            assert {"alpha": getattr(loss, "alpha", own["alpha"]), "gamma": loss.gamma} == own
        elif name == "cross_entropy":
            assert type(loss) is SigmoidFocalLoss and (loss.alpha, loss.gamma) == (-1, 0)
        else:
            is_balanced = name == "iou_balanced_focal"
            assert type(loss) is (IoUBalancedFocalLoss if is_balanced else SigmoidFocalLoss)
            assert {"alpha": loss.alpha, "gamma": loss.gamma} == own
            assert not is_balanced or loss.eta == 1.5


def test_a_number_for_eta_balances_any_of_them():
    for name in ("focal", "cross_entropy", "iou_balanced_focal"):
        loss = instantiate(balance(small_fcos(), cls=name, eta=0.7).cls_loss)
        assert type(loss) is IoUBalancedFocalLoss and loss.eta == 0.7
        assert loss.gamma == (0 if name == "cross_entropy" else 2)


def test_names_after_each_other_leave_nothing_behind():
    model = balance(small_fcos(), cls="varifocal", correlation=0.2)
    assert model.cls_loss.loss._target_ is VarifocalLoss
    balance(model, cls="focal")
    assert OmegaConf.to_container(model.cls_loss) == {
        "_target_": SigmoidFocalLoss,
        "alpha": 0.25,
        "gamma": 2.0,
    }


def test_sums_by_process_where_asked():
    model = balance(small_fcos(), cls="varifocal", correlation=0.2, across_processes=False)
    assert not model.cls_loss.across_processes and not model.cls_loss.loss.across_processes


def test_correlation_is_added_to_what_the_model_has():
    model = balance(small_fcos(), correlation=0.3)
    loss = instantiate(model.cls_loss)
    assert type(loss) is CorrelationLoss and loss.weight == 0.3
    assert type(loss.loss) is IoUBalancedFocalLoss and loss.loss.eta == 1.5


@pytest.mark.parametrize("name", [x for x in MEMBERS if x != "cross_entropy"])
def test_softmax_refuses_with_the_reason(name):
    for make, detector in [
        (small_ssd, "SSD"),
        (small_faster_rcnn, "FastRCNNOutputLayers"),
        (small_cascade_mask_rcnn, "FastRCNNOutputLayers"),
    ]:
        model = make()
        before = str(model)
        with pytest.raises(ValueError, match=rf"`cls` .*{detector}.*softmax.*'{name}'"):
            balance(model, cls=name)
        assert str(model) == before


@pytest.mark.parametrize("name", MEMBERS)
def test_heat_maps_refuse_with_the_reason(name):
    with pytest.raises(ValueError, match=rf"`cls` to be None for CenterNet.*heat maps.*'{name}'"):
        balance(small_centernet(), cls=name)


@pytest.mark.parametrize("name", CLASS_MEMBERS)
def test_ssd_is_told_who_takes_a_loss_for_sigmoids(name):
    with pytest.raises(ValueError, match="RetinaNet, FCOS and FoveaBox take it, and the box head"):
        balance(small_ssd(), cls=name)


@pytest.mark.parametrize("name", [*CLASS_MEMBERS, "seesaw"])
def test_heat_maps_have_class_weights_instead(name):
    with pytest.raises(ValueError, match=r"class labels .classes are weighed by `class_balance`"):
        balance(small_centernet(), cls=name)


def test_a_second_correlation_takes_the_place_of_the_first():
    first = balance(small_fcos(), cls="varifocal", correlation=0.2)
    first.cls_loss.kind = "pearson"
    again = instantiate(balance(first, eta=None, lam=None, correlation=0.3).cls_loss)
    assert (again.weight, again.kind, type(again.loss)) == (0.3, "pearson", VarifocalLoss)


def test_a_negative_correlation_is_named_as_it_was_given():
    with pytest.raises(ValueError, match="`correlation` to be at least 0, but got -1"):
        balance(small_retinanet(), correlation=-1)
    with pytest.raises(ValueError, match=r"`MODEL.IOU_BALANCED.CORRELATION` to be at least 0"):
        yaml_losses(CORRELATION=-1.0)


def test_cross_entropy_is_the_softmax_detectors_own():
    plain, weighted = (balance(small_ssd(), cls="cross_entropy", **x) for x in ({}, {"eta": 1.0}))
    assert plain.cls_loss._target_ is SoftmaxCrossEntropyLoss
    assert weighted.cls_loss._target_ is IoUBalancedCrossEntropyLoss


def test_class_members_in_a_step():
    """They know the number of classes, and leave sums that the next step uses."""
    for name in CLASS_MEMBERS:
        for correlation in (None, 0.2):
            model = instantiate(
                balance(
                    small_retinanet(), cls=name, correlation=correlation, across_processes=False
                )
            ).train()
            loss = model.cls_loss if correlation is None else model.cls_loss.loss
            assert not loss.statistics.across_processes
            assert loss.gradient_ratio.shape == (model.num_classes,)
            before = loss.gradient_ratio.clone()
            image = {"image": torch.rand(3, 64, 64) * 255, "instances": Instances((64, 64))}
            image["instances"].gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]]))
            image["instances"].gt_classes = torch.tensor([1])
            sum(model([image]).values()).backward()
            assert not torch.equal(loss.gradient_ratio, before)


def test_seesaw_is_for_softmax():
    ssd = instantiate(balance(small_ssd(), cls="seesaw").cls_loss)
    assert type(ssd) is SeesawLoss and ssd.reduction == "none"
    model = balance(small_cascade_mask_rcnn(), cls="seesaw", rpn=True, across_processes=False)
    losses = [instantiate(x.cls_loss) for x in model.roi_heads.box_predictors]
    assert len(losses) > 1 and all(type(x) is SeesawLoss and x.reduction == "sum" for x in losses)
    assert not losses[0].statistics.across_processes
    assert model.proposal_generator.cls_loss._target_ is IoUBalancedFocalLoss
    with pytest.raises(ValueError, match=r"`cls` to be one of .* for BalancedFCOS|FCOS.*sigmoid"):
        balance(small_fcos(), cls="seesaw")


def test_a_box_head_says_how_it_takes_sigmoid_losses():
    for name in CLASS_MEMBERS:
        with pytest.raises(ValueError, match="use_sigmoid_ce=True, which Detectron2's main branch"):
            balance(small_faster_rcnn(), cls=name)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cls": "equalized_focal", "eta": 1.0}, r"`eta` to be None with cls='equalized_focal'"),
        ({"cls": "vari_focal"}, r"`cls` to be one of \['focal', .*but got 'vari_focal'"),
        ({"cls": "iou_balanced_focal", "eta": None}, r"`eta` to be a number with cls='iou_bal"),
        ({"cls": "varifocal", "eta": -1}, r"`eta` to be at least 0, but got -1"),
        ({"correlation": -0.1}, r"`correlation` to be at least 0, but got -0.1"),
    ],
)
def test_bad_arguments_change_nothing(arguments, message):
    model = small_fcos()
    before = str(model)
    with pytest.raises(ValueError, match=message):
        balance(model, **arguments)
    assert str(model) == before


def test_correlation_with_softmax():
    with pytest.raises(ValueError, match=r"`correlation` to be None for SSD.*softmax"):
        balance(small_ssd(), correlation=0.2)


def yaml_losses(family=FOCAL, **keys):
    cfg = CfgNode({"MODEL": {}, "SOLVER": {}, "TEST": {}, "DATALOADER": {}})
    add_iou_balanced_config(cfg)
    cfg.MODEL.IOU_BALANCED.merge_from_list([x for pair in keys.items() for x in pair])
    arguments = {"alpha": 0.3, "gamma": 1.0} if family is FOCAL else {}
    return make_losses(
        cfg.MODEL.IOU_BALANCED,
        cls_family=family,
        cls_arguments=arguments,
        box_family=BOX_FAMILIES["smooth_l1"],
        box_arguments={"beta": 0.1},
    )["cls_loss"]


def test_yaml_keys():
    assert type(yaml_losses()) is IoUBalancedFocalLoss
    for name, loss in QUALITY_MEMBERS.items():
        assert type(yaml_losses(CLS_LOSS=name)) is loss
    focal = yaml_losses(CLS_LOSS="focal")
    assert type(focal) is SigmoidFocalLoss and (focal.alpha, focal.gamma) == (0.3, 1.0)
    both = yaml_losses(CLS_LOSS="matchability_aware", CORRELATION=0.2, ACROSS_PROCESSES=False)
    assert type(both) is CorrelationLoss and both.weight == 0.2 and not both.across_processes
    assert type(both.loss) is MatchabilityAwareLoss and not both.loss.across_processes
    assert type(yaml_losses(CLS_LOSS="quality_focal", CLS_ETA=0.0)) is QualityFocalLoss
    equalized = yaml_losses(CLS_LOSS="equalized_focal", ACROSS_PROCESSES=False)
    assert type(equalized) is EqualizedFocalLoss and not equalized.statistics.across_processes
    assert (equalized.alpha, equalized.gamma, equalized.scale) == (0.3, 1.0, 8.0)
    second = yaml_losses(CLS_LOSS="equalization_v2", CORRELATION=0.1).loss
    assert type(second) is EqualizationLossV2 and (second.gamma, second.boost) == (1.0, 4.0)


def test_bad_yaml_keys():
    with pytest.raises(ValueError, match=r"MODEL.IOU_BALANCED.CLS_LOSS.*one of.*'vfl'"):
        yaml_losses(CLS_LOSS="vfl")
    for keys in ({"CLS_LOSS": "varifocal"}, {"CORRELATION": 0.1}):
        with pytest.raises(ValueError, match=r"MODEL.IOU_BALANCED.CLS_LOSS.*heat maps"):
            yaml_losses(PENALTY_REDUCED, **keys)
    with pytest.raises(ValueError, match=r"MODEL.IOU_BALANCED.CLS_LOSS.*sigmoid.*'seesaw'"):
        yaml_losses(CLS_LOSS="seesaw")
