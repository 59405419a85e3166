"""Values that Detectron2 and torch would take silently, or refuse in words that name no key.

Each is one line with the key, what came and what is allowed, before anything is built.
"""

import pytest

from iou_balanced.engine import UserError, load_config
from iou_balanced.engine.checks import check_config, instantiate_model
from iou_balanced.engine.lazy_class_names import data_set_names
from iou_balanced.engine.node_options import check_nodes
from iou_balanced.engine.node_rules import OF_DATA_SETS, OF_MAPPERS

from .helpers import CONFIG, ROOT, tiny_config

CENTERNET = str(ROOT / "configs/Digits/centernet_small_long_tail_bofl.py")
SSD = str(ROOT / "configs/Digits/ssd_small_iou_balanced.py")
RCNN = str(ROOT / "configs/Digits/faster_rcnn_small_iou_balanced.py")
FLAG = "give true or false"
COUNT = "give a whole number from 1 on"
ABOVE = "give a list of numbers above 0"
FORMAT = "give RGB, BGR, L or YUV-BT.601"
MAPPER = "dataloader.train.mapper"
CALL = "give a call, a LazyCall of a function or class"
ANCHORS = "model.anchor_generator"

BAD = {
    CONFIG: {
        "model.head.prior_prob": (
            ["0", "1", "-1", "nan", "inf", "abc", "null", "true"],
            "give a n",
        ),
        "model.head.norm": (["5", "true"], "give the name of a norm"),
        "model.head.conv_dims": (["abc", "[1.5]", "null", "0"], "give a list of whole numbers"),
        "model.head_in_features": (["5", "abc", "[1]", "[]"], "give a list of names, or null"),
        "model.backbone": (["abc", "null", "''"], CALL),
        "model.backbone.out_channels": (["0", "-1", "1.5", "nan", "abc", "null", "true"], COUNT),
        "model.backbone.bottom_up": (["abc", "null"], CALL),
        "model.anchor_matcher": (["abc", "null"], CALL),
        "model.anchor_matcher.labels": (
            ["[0, 5, 1]", "[0.5]", "[0, x, 1]", "1", "null"],
            "give a list of -1, 0 and 1, one more than the thresholds",
        ),
        "model.anchor_matcher.allow_low_quality_matches": (["maybe", "5", "nan", "null"], FLAG),
        "model.box2box_transform": (["abc"], CALL),
        "model.box2box_transform.weights": (
            ["[1, 1, 1]", "[0, 1, 1, 1]", "[1, 1, 1, -1]", "[1, 1, 1, nan]", "5", "null"],
            "give four numbers above 0, of x, y, width and height",
        ),
        f"{ANCHORS}": (["abc", "null"], CALL),
        f"{ANCHORS}.sizes": (["[[0]]", "[[-5]]", "[[nan]]", "[[x]]", "[]", "5"], "give lists of n"),
        f"{ANCHORS}.aspect_ratios": (
            ["[0]", "[-1]", "[inf]", "x", "null"],
            "give lists of numbers",
        ),
        f"{ANCHORS}.strides": (["[8, 0, 32]", "[-8]", "[x]", "abc", "8"], ABOVE),
        f"{ANCHORS}.offset": (["1", "-0.1", "nan", "x", "null"], "give a number from 0 on and be"),
        f"{MAPPER}.is_train": (["maybe", "5", "null", "[]"], FLAG),
        f"{MAPPER}.use_instance_mask": (["no", "nan"], FLAG),
        f"{MAPPER}.image_format": (["rgb", "5", "null", "true"], FORMAT),
        f"{MAPPER}.augmentations": (
            ["5", "null", "abc", "[abc]", "true"],
            "give a list of calls, [] ",
        ),
        f"{MAPPER}.augmentations.0.intensity_min": (
            ["-1", "nan", "x", "null"],
            "give a number from",
        ),
        f"{MAPPER}.augmentations.0.intensity_max": (["-1", "inf", "[]"], "give a number from 0 on"),
        "dataloader.train.dataset": (["abc", "5", "null"], "give a call, a LazyCall of a"),
        "lr_multiplier.scheduler": (["abc", "null", "5"], "give a call, a LazyCall of a"),
        "lr_multiplier.scheduler.start_value": (["-1", "nan", "x", "null"], "give a number from 0"),
        "lr_multiplier.scheduler.end_value": (["-1", "inf", "x", "[]"], "give a number from 0 on"),
        "datasets.train.num_images": (["0", "-1", "1.5", "true", "x"], f"{COUNT}, or null for the"),
        "datasets.train.image_size": (
            ["31", "-1", "x", "nan", "null"],
            "give a whole number from 32",
        ),
        "datasets.train.long_tail": (["maybe", "5", "null"], FLAG),
        "datasets.train.imbalance": (["0.5", "nan", "inf", "x", "null"], "give a number from 1 on"),
        "datasets.test.seed": (["-1", "0.5", "x"], "give a whole number from 0 on"),
        "datasets.test.split": (["5", "null", "''"], "give a name"),
        "dataloader.evaluator.dataset_name": (["null", "''"], "give the name of a data set"),
    },
    CENTERNET: {
        "model.flip_test": (["maybe", "nan", "null"], FLAG),
        "model.backbone.deformable": (["maybe", "5"], FLAG),
        "model.head.norm_after_activation": (["maybe", "null"], FLAG),
        "model.head.head_channels": (["0", "x"], COUNT),
        "model.head.regression_std": (["-1", "inf", "x"], "give a number from 0 on, or null for"),
    },
    RCNN: {
        "model.roi_heads": (["null", "abc"], CALL),
        "model.roi_heads.batch_size_per_image": (["0", "1.5", "x"], COUNT),
        "model.roi_heads.positive_fraction": (
            ["-0.1", "1.5", "nan", "x"],
            "give a number in [0, 1]",
        ),
        "model.proposal_generator.batch_size_per_image": (["-1", "null"], COUNT),
        "model.proposal_generator.min_box_size": (["-1", "nan", "x"], "give a number from 0 on"),
    },
}


def written(value):
    """As the message has it: lists as Python shows them."""
    for word in ("abc", "x"):
        value = value.replace(f"[{word}", f"['{word}'").replace(f", {word}", f", '{word}'")
    return value


def cases():
    for config, keys in BAD.items():
        for key, (values, text) in keys.items():
            yield from ((config, key, value, text) for value in values)


def load(config, *overrides):
    return load_config(config, ["train.device=cpu", *overrides])


@pytest.mark.parametrize(("config", "key", "value", "text"), list(cases()))
def test_one_line_with_key_value_and_what_is_allowed(config, key, value, text):
    sign = "+" if key.endswith(("long_tail", "imbalance", "seed", "weights")) else ""
    if key.endswith("dataset_name"):
        sign = ""
    with pytest.raises(UserError) as e:
        check_nodes(load(config, f"{sign}{key}={value}"))
    assert str(e.value).startswith((f"{key}={value}: {text}", f"{key}={written(value)}: {text}"))
    assert "\n" not in str(e.value)


def test_there_are_many():
    assert len(list(cases())) > 100


GOOD = [
    *("model.head.prior_prob=0.5", "model.head.norm=GN", "model.head.norm=null"),
    *("model.backbone.norm=''", "model.box2box_transform.weights=[10,10,5,5]"),
    *("model.anchor_generator.aspect_ratios=[[1],[2],[3]]", "model.anchor_generator.offset=0.5"),
    *("model.anchor_generator.strides=[8,16,32]", "model.anchor_matcher.labels=[0,-1,1]"),
    *(f"{MAPPER}.augmentations=[]", f"{MAPPER}.is_train=1", f"+{MAPPER}.use_keypoint=false"),
    *("+datasets.train.long_tail=true", "datasets.train.num_images=null", "model.cls_loss=null"),
    *("lr_multiplier.scheduler.end_value=0", "dataloader.evaluator.dataset_name=mine"),
    "dataloader.train.mapper.augmentations="
    "[{_target_: detectron2.data.transforms.ResizeShortestEdge, short_edge_length: [64, 96]}]",
]


@pytest.mark.parametrize("override", GOOD)
def test_what_makes_sense_is_taken(override):
    check_nodes(load(CONFIG, override))


def test_values_of_an_augmentation_in_the_override():
    flip = "[{_target_: detectron2.data.transforms.RandomFlip, prob: 3}]"
    with pytest.raises(UserError, match=r"^dataloader\.train\.mapper\.augmentations\.0\.prob=3: "):
        check_nodes(load(CONFIG, f"{MAPPER}.augmentations={flip}"))


class Own:
    """A class of a user's, which may call its arguments as it likes."""

    def __init__(self, **kwargs):
        self.kwargs = kwargs


def test_classes_of_ones_own_call_their_arguments_as_they_like():
    own = f"{Own.__module__}.{Own.__qualname__}"
    overrides = [f"model.head._target_={own}", "model.head.prior_prob=7", "model.head.conv_dims=no"]
    check_nodes(load(CONFIG, *overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["datasets.train.split=all"], "datasets.train.split=all: split must be 'train' or 'val'"),
        (
            ["datasets.train._target_=iou_balanced.data.register_voc_dir"],
            "datasets.train: register_voc_dir() missing 1 required keyword-only argument: 'root'",
        ),
    ],
)
def test_a_data_set_is_named_where_it_is_written(overrides, message):
    with pytest.raises(UserError) as e:
        data_set_names(load_config(CONFIG, overrides), "train")
    assert str(e.value).startswith(message)


def test_an_evaluator_of_a_data_set_that_is_not_there(tmp_path):
    cfg = tiny_config("dataloader.evaluator.dataset_name=nowhere", f"train.output_dir={tmp_path}")
    for eval_only in (False, True):
        with pytest.raises(UserError, match=r"^dataloader\.evaluator\.dataset_name=nowhere: there"):
            check_config(cfg, eval_only=eval_only)


@pytest.mark.parametrize(
    ("key", "values"),
    {
        "cls_loss.eta": ["-1", "nan", "inf", "abc", "[]", "true", "101", "null"],
        "cls_loss.alpha": ["7", "nan", "inf", "abc", "true"],
        "cls_loss.gamma": ["-1", "nan", "abc", "[1]", "true"],
        "cls_loss.across_processes": ["maybe", "5", "null"],
        "box_loss.lam": ["-1", "inf", "abc", "null", "true"],
        "box_loss.weight": ["-1", "nan", "inf", "abc", "null", "true", "[]"],
        "box_loss.beta": ["-1", "nan", "abc", "null"],
        "box_loss.normalize": ["maybe", "null"],
        "+box_loss.measure_from": ["-1", "1.5", "abc"],
        "+box_loss.measure_iterations": ["0", "nan", "abc"],
        "+box_loss.max_weight": ["0.5", "nan", "abc"],
        "loss_normalizer.initial": ["0", "-1", "nan", "abc"],
        "+loss_normalizer.momentum": ["1", "-1", "nan", "abc", "null"],
        "loss_normalizer.across_processes": ["maybe", "null"],
    }.items(),
)
def test_arguments_of_losses_are_named_by_their_key(key, values):
    key, sign = key.lstrip("+"), key[: key.startswith("+")]
    for value in values:
        cfg = load(CONFIG, f"{sign}model.{key}={value}")
        with pytest.raises(UserError) as e:
            instantiate_model(cfg)
        argument = key.rpartition(".")[2]
        message = str(e.value)
        assert message.startswith(f"model.{key}={value}: Expected argument `{argument}`"), message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "values"),
    {
        "eta": ["1.5", "-0.1", "nan", "abc", "true", "null"],
        "intensity": ["-1", "nan", "inf", "abc"],
        "count_over": ["gpu", "5", "null"],
        "+counted": ["boxes", "5"],
        "+hat": ["none", "5"],
        "+floor": ["0", "-1", "nan", "abc"],
        "+allow_other_counts": ["maybe", "null"],
        "num_classes": ["0", "1.5", "abc"],
        "schedule.total_epochs": ["0", "-1", "nan", "abc", "null"],
        "schedule.deferred_epochs": ["-1", "nan", "abc", "null"],
        "+schedule.update": ["hour", "5"],
        "+schedule.reading": ["first", "5"],
    }.items(),
)
def test_arguments_of_weightings_and_schedules_are_named_by_their_key(key, values):
    key, sign = key.lstrip("+"), key[: key.startswith("+")]
    for value in values:
        cfg = load(CENTERNET, f"{sign}model.class_balance.{key}={value}")
        with pytest.raises(UserError, match=rf"^model\.class_balance\.{key}={value}: ") as e:
            check_nodes(cfg)
            instantiate_model(cfg)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("train.max_itre=5", "train.max_iter"),
        ("train.on_bad_images=skip", "train.on_bad_image"),
        ("train.clip_grad.maxnorm=5", "train.clip_grad.max_norm"),
        ("train.chekpointer.period=5", "train.checkpointer.period"),
        ("model.cls_loss.etta=5", "model.cls_loss.eta"),
        ("model.box_loss.lambda=5", "model.box_loss.lam"),
        ("model.box_loss.measure_form=5", "model.box_loss.measure_from"),
        ("datasets.train.num_image=5", "datasets.train.num_images"),
        ("datasets.train.long_tial=true", "datasets.train.long_tail"),
        ("dataloader.train.total_batchsize=5", "dataloader.train.total_batch_size"),
        ("dataloader.evaluator.tail_ration=0.1", "dataloader.evaluator.tail_ratio"),
        ("optimiser.lr=5", "optimizer.lr"),
    ],
)
def test_a_misspelt_key_names_the_nearest(override, nearest):
    with pytest.raises(UserError) as e:
        load_config(CONFIG, [override])
    assert str(e.value).startswith(f"unknown key {override.partition('=')[0]}: ")
    assert str(e.value).endswith(f"; did you mean {nearest}?")


def test_every_key_that_we_add_is_tried():
    tried = {key.rpartition(".")[2] for keys in BAD.values() for key in keys}
    others = {
        "masks",
        "recompute_boxes",
        "ignore_difficult",
        "use_keypoint",
        "instance_mask_format",
    }
    assert set(OF_MAPPERS) | set(OF_DATA_SETS) <= tried | others
