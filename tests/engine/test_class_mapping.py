"""Classifiers of one set of classes that start from those of another."""

import logging
import pickle
import re

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from iou_balanced.engine import UserError
from iou_balanced.engine.checkpoint import Checkpointer, load_for_evaluation, load_initial_weights
from iou_balanced.engine.class_mapping import ClassMapping
from iou_balanced.engine.lazy_class_names import init_classes_of, training_classes
from iou_balanced.modeling.ssd.head import SSDHead

from .helpers import tiny_config

SOURCE = ["cat", "person", "dog", "car"]
TARGET = ["rider", "car", "person"]
SHARED = [(1, 3), (2, 1)]  # row of the model, row of the checkpoint


def retinanet_head(num_classes):
    return RetinaNetHead(
        input_shape=[ShapeSpec(channels=8)],
        num_classes=num_classes,
        num_anchors=6,
        conv_dims=[8],
        prior_prob=0.01,
    )


def fcos_head(num_classes):
    return FCOSHead(
        input_shape=[ShapeSpec(channels=8)], num_classes=num_classes, conv_dims=[8], prior_prob=0.01
    )


def predictor(num_classes, agnostic=False):
    return FastRCNNOutputLayers(
        ShapeSpec(channels=8),
        box2box_transform=Box2BoxTransform(weights=(10, 10, 5, 5)),
        num_classes=num_classes,
        cls_agnostic_bbox_reg=agnostic,
    )


def ssd_head(num_classes):
    """A list of layers, one a level, with as many anchors as each level has."""
    shapes = [ShapeSpec(channels=8)] * 2
    return SSDHead(input_shape=shapes, num_classes=num_classes, num_anchors=(4, 3))


def randomize(module):
    for p in module.parameters():
        nn.init.normal_(p)
    return module


def apply(source, target, *, names=SOURCE, own_names=TARGET):
    """Load the checkpoint of module `source` into `target`; returns what `target` was."""
    before = {k: v.clone() for k, v in target.state_dict().items()}
    mapping = ClassMapping(source=names, target=own_names)
    target.load_state_dict(mapping.apply(target, source.state_dict()), strict=False)
    return before


@pytest.mark.parametrize("make", [retinanet_head, fcos_head])
def test_dense_heads_give_the_same_logits_for_shared_classes(make):
    source, target = randomize(make(len(SOURCE))), make(len(TARGET))
    apply(source, target)
    features = [torch.randn(2, 8, 5, 7)]
    theirs = permute_to_N_HWA_K(source(features)[0][0], len(SOURCE))
    ours = permute_to_N_HWA_K(target(features)[0][0], len(TARGET))
    for i, j in SHARED:
        assert torch.equal(ours[..., i], theirs[..., j])
    assert torch.equal(target(features)[1][0], source(features)[1][0])  # boxes are as usual


def test_retinanet_row_by_row():
    source, target = randomize(retinanet_head(4)), retinanet_head(3)
    before = apply(source, target)
    for anchor in range(6):
        for name in ("weight", "bias"):
            theirs = getattr(source.cls_score, name)
            ours = getattr(target.cls_score, name)
            for i, j in SHARED:
                assert torch.equal(ours[anchor * 3 + i], theirs[anchor * 4 + j])
            fresh = anchor * 3  # the rider
            assert torch.equal(ours[fresh], before[f"cls_score.{name}"][fresh])
    prior = -torch.log(torch.tensor(0.99 / 0.01))
    assert torch.allclose(target.cls_score.bias[::3], prior)


def test_fast_rcnn_row_by_row():
    source, target = randomize(predictor(4)), predictor(3)
    before = apply(source, target)
    pairs = [*SHARED, (3, 4)]  # background is the last
    for name in ("weight", "bias"):
        theirs, ours = getattr(source.cls_score, name), getattr(target.cls_score, name)
        assert ours.shape[0] == 4 and theirs.shape[0] == 5
        for i, j in pairs:
            assert torch.equal(ours[i], theirs[j])
        assert torch.equal(ours[0], before[f"cls_score.{name}"][0])
        theirs, ours = getattr(source.bbox_pred, name), getattr(target.bbox_pred, name)
        for i, j in SHARED:
            assert torch.equal(ours[4 * i : 4 * i + 4], theirs[4 * j : 4 * j + 4])
        assert torch.equal(ours[:4], before[f"bbox_pred.{name}"][:4])


@pytest.mark.parametrize("own_names", [TARGET, ["car"]])
def test_one_box_for_all_classes(own_names):
    source = randomize(predictor(4, agnostic=True))
    target = predictor(len(own_names), agnostic=True)
    apply(source, target, own_names=own_names)
    assert torch.equal(target.bbox_pred.weight, source.bbox_pred.weight)
    i = own_names.index("car")
    assert torch.equal(target.cls_score.weight[[i, -1]], source.cls_score.weight[[3, -1]])


def test_one_class_takes_its_own_boxes_rows():
    source, target = randomize(predictor(4)), predictor(1)
    apply(source, target, own_names=["dog"])
    assert torch.equal(target.bbox_pred.bias, source.bbox_pred.bias[8:12])
    assert torch.equal(target.cls_score.bias, source.cls_score.bias[[2, 4]])


def test_softmax_over_anchors_on_several_levels():
    source, target = randomize(ssd_head(4)), ssd_head(3)
    before = apply(source, target)
    features = [torch.randn(2, 8, 5, 7), torch.randn(2, 8, 3, 4)]
    theirs, ours = (
        [permute_to_N_HWA_K(x, columns) for x in head(features)[0]]
        for head, columns in ((source, 5), (target, 4))
    )
    for level in range(2):
        for i, j in [*SHARED, (3, 4)]:  # background is the last
            assert torch.equal(ours[level][..., i], theirs[level][..., j])
        name = f"cls_score.{level}.weight"
        fresh = [state[name][::4] for state in (before, target.state_dict())]  # the rider
        assert torch.equal(*fresh)


def test_as_many_classes_in_another_order():
    # The shapes are the same: without the option the rows would go to the wrong classes.
    source, target = randomize(retinanet_head(3)), retinanet_head(3)
    apply(source, target, names=["person", "rider", "car"])
    theirs = source.cls_score.bias.view(6, 3)
    assert torch.equal(target.cls_score.bias.view(6, 3), theirs[:, [1, 2, 0]])


def test_a_wrapped_models_checkpoint():
    source, target = randomize(retinanet_head(4)), retinanet_head(3)
    state = {f"module.{k}": v for k, v in source.state_dict().items()}
    mapped = ClassMapping(source=SOURCE, target=TARGET).apply(target, state)
    assert mapped.keys() == state.keys()
    assert torch.equal(mapped["module.cls_score.bias"][1], source.cls_score.bias[3])
    assert state["module.cls_score.bias"].shape == (24,)  # the caller's is as it was


def test_it_says_what_it_did(caplog):
    with caplog.at_level(logging.INFO):
        apply(retinanet_head(4), retinanet_head(3))
    (text,) = [r.getMessage() for r in caplog.records]
    assert text == (
        "train.init_classes: in cls_score.weight, cls_score.bias, the rows of 2 of 3 classes are "
        "the checkpoint's: car (1 from 3), person (2 from 1). Starting fresh: rider. Of the "
        "checkpoint's 4 classes, 2 are not used."
    )


@pytest.mark.parametrize("case", ["no classifier", "no shared class"])
def test_a_warning_where_nothing_is_mapped(caplog, case):
    head = retinanet_head(3)
    before = head.cls_score.weight.clone()
    if case == "no classifier":
        state = {"cls_subnet.0.weight": torch.zeros(8, 8, 3, 3)}
        ClassMapping(source=SOURCE, target=TARGET).apply(head, state)
    else:
        apply(randomize(retinanet_head(2)), head, names=["tv", "sofa"])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and torch.equal(head.cls_score.weight, before)
    part = "has no classifier" if case == "no classifier" else "0 of 3 classes .*: none"
    assert re.search(part, record.getMessage())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (retinanet_head(5), r"cls_score.weight has the shape \(30, 8, 3, 3\) .* make it \(24, 8,"),
        (fcos_head(4), r"make it \(24, 8, 3, 3\) \(6 x \(4 classes \+ 0 background\) x 1 rows\)"),
    ],
)
def test_other_classes_than_the_option_says(source, message):
    with pytest.raises(UserError, match=message):
        apply(source, retinanet_head(3))


def test_layouts_that_cannot_be_told():
    head = retinanet_head(3)
    head.cls_score = nn.Conv2d(8, 20, 3)
    with pytest.raises(UserError, match="which of the 20 rows of cls_score belong to which of the"):
        apply(retinanet_head(4), head)
    with pytest.raises(UserError, match="the model has no classifier that could be mapped"):
        apply(nn.Linear(2, 2), nn.Linear(2, 2))


# Three of the digits' classes, in another order, and one that they do not have.
OPTIONS = ("train.init_classes=[7,zebra,2,0]",)


def checkpoint_of_other_classes(folder, kind):
    """(file, state) of the small RetinaNet with four classes."""
    cfg = tiny_config()
    cfg.model.num_classes = 4
    state = instantiate(cfg.model).state_dict()
    nn.init.normal_(state["head.cls_score.weight"])
    if kind == "zoo":
        file = folder / "zoo.pkl"
        arrays = {k: v.numpy() for k, v in state.items()}
        content = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
        file.write_bytes(pickle.dumps(content))
    else:
        file = folder / "model.pth"
        torch.save({"model": state, "iteration": 7}, file)
    return file, state


@pytest.mark.parametrize("kind", ["ours", "zoo"])
def test_loading(tmp_path, kind, caplog):
    file, state = checkpoint_of_other_classes(tmp_path, kind)
    cfg = tiny_config(f"train.init_checkpoint={file}", *OPTIONS)
    model = instantiate(cfg.model)
    fresh = model.head.cls_score.weight.detach().clone().unflatten(0, (-1, 10))
    checkpointer = Checkpointer(model, classes=training_classes(cfg))
    with caplog.at_level(logging.INFO, logger="iou_balanced"):
        load_initial_weights(checkpointer, cfg)
    assert "0 (0 from 3), 2 (2 from 2), 7 (7 from 0)" in caplog.text
    assert checkpointer.unmatched() == set()
    theirs = state["head.cls_score.weight"].unflatten(0, (-1, 4))
    ours = model.head.cls_score.weight.unflatten(0, (-1, 10))
    assert torch.equal(ours[:, [7, 2, 0]], theirs[:, [0, 2, 3]])
    others = [1, 3, 4, 5, 6, 8, 9]
    assert torch.equal(ours[:, others], fresh[:, others])
    for name in ("head.bbox_pred.weight", "backbone.bottom_up.res5.1.conv2.weight"):
        assert torch.equal(model.state_dict()[name], state[name])


def test_without_the_option_a_classifier_of_other_classes_starts_fresh(tmp_path):
    file, _ = checkpoint_of_other_classes(tmp_path, "ours")
    cfg = tiny_config(f"train.init_checkpoint={file}")
    model = instantiate(cfg.model)
    before = model.head.cls_score.weight.clone()
    checkpointer = Checkpointer(model)
    load_initial_weights(checkpointer, cfg)
    assert checkpointer.unmatched() == {"head.cls_score.weight", "head.cls_score.bias"}
    assert torch.equal(model.head.cls_score.weight, before)


def test_evaluation_and_resuming_do_not_map(tmp_path):
    cfg = tiny_config(f"train.init_checkpoint={tmp_path}/own.pth", *OPTIONS)
    model = instantiate(cfg.model)
    torch.save({"model": model.state_dict()}, tmp_path / "own.pth")
    load_for_evaluation(instantiate(cfg.model), cfg)
    again = instantiate(cfg.model)
    checkpointer = Checkpointer(again, str(tmp_path))
    checkpointer.tag_last_checkpoint("own.pth")
    checkpointer.resume_or_load("", resume=True)
    assert torch.equal(again.head.cls_score.weight, model.head.cls_score.weight)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_set", "train.init_classes=no_such_set: no data set with known classes"),
        ("[a,b,a]", "train.init_classes has a more than once"),
        ("3", "has to be a data set's name, a list of class names, or False .* is 3"),
    ],
)
def test_bad_values(value, message):
    with pytest.raises(UserError, match=message):
        init_classes_of(tiny_config(f"train.init_classes={value}"))


def test_coco_by_name():
    assert len(init_classes_of(tiny_config("train.init_classes=coco_2017_train"))) == 80
    assert init_classes_of(tiny_config()) is None
    assert init_classes_of(tiny_config("train.init_classes=False")) is False
