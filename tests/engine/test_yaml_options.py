"""Numbers of a yaml config that make no sense."""

import math

import pytest
from detectron2.config import CfgNode, get_cfg

from iou_balanced.engine import BalancedDefaultTrainer, UserError
from iou_balanced.engine.options import shown
from iou_balanced.engine.yaml_options import YAML_OPTIONS, check_yaml_options
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

CLIP = "SOLVER.CLIP_GRADIENTS"
IOU = "MODEL.IOU_BALANCED"


def config(key=None, value=None):
    cfg = get_cfg()
    add_iou_balanced_config(cfg)
    add_centernet_config(cfg)
    add_class_balance_config(cfg)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    if key is not None:
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        assert name in node
        node[name] = value
    return cfg


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (f"{CLIP}.CLIP_VALUE", -1.0, "give a number above 0"),
        (f"{CLIP}.CLIP_VALUE", 0.0, "give a number above 0"),
        (f"{CLIP}.CLIP_VALUE", math.nan, "give a number above 0"),
        (f"{CLIP}.CLIP_VALUE", math.inf, "give a number above 0"),
        (f"{CLIP}.NORM_TYPE", 0.0, "give a number from 1 on, or inf"),
        (f"{CLIP}.ENABLED", "maybe", "give true or false"),
        ("SOLVER.MAX_ITER", -5, "give a whole number from 1 on"),
        ("SOLVER.MAX_ITER", 1.5, "give a whole number from 1 on"),
        ("SOLVER.CHECKPOINT_PERIOD", 0, "give a whole number from 1 on"),
        ("SOLVER.CHECKPOINT_PERIOD", -1, "give a whole number from 1 on"),
        ("SOLVER.IMS_PER_BATCH", 0, "give a whole number from 1 on"),
        ("SOLVER.ACCUMULATION_STEPS", True, "give a whole number from 1 on"),
        ("SOLVER.BASE_LR", math.nan, "give a number from 0 on"),
        ("SOLVER.BASE_LR", -0.1, "give a number from 0 on"),
        ("SOLVER.MOMENTUM", 1.0, "give a number from 0 on and below 1"),
        ("SOLVER.WEIGHT_DECAY", -0.1, "give a number from 0 on"),
        ("SOLVER.WEIGHT_DECAY_BIAS", -0.1, "give a number from 0 on, or null for"),
        ("SOLVER.WARMUP_ITERS", -1, "give a whole number from 0 on"),
        ("SOLVER.WARMUP_METHOD", "sudden", "give linear or constant"),
        ("SOLVER.AMP.ENABLED", "maybe", "give true or false"),
        ("TEST.EVAL_PERIOD", -1, "give a whole number from 0 on; 0 evaluates at the end only"),
        ("DATALOADER.NUM_WORKERS", -1, "give a whole number from 0 on"),
        ("MODEL.DEVICE", "gpu", "give cpu, cuda or cuda:NUMBER"),
        ("OUTPUT_DIR", "", "give the name of a folder"),
        (f"{IOU}.CLS_ETA", math.inf, r"give a number in \[0, 100\]"),
        (f"{IOU}.LOC_LAMBDA", -1.0, r"give a number in \[0, 100\]"),
        (f"{IOU}.LOC_WEIGHT", math.nan, "give a number from 0 on, or null for one that is meas"),
        (f"{IOU}.LOC_NORMALIZE", "maybe", "give true or false"),
        (f"{IOU}.LOC_MEASURE_FROM", -1, "give a whole number from 0 on"),
        (f"{IOU}.LOC_MEASURE_ITERATIONS", 0, "give a whole number from 1 on"),
    ],
)
def test_one_line_before_anything_is_built(key, value, allowed):
    with pytest.raises(UserError, match=allowed) as e:
        BalancedDefaultTrainer(config(key, value))
    assert str(e.value).startswith(
        f"{key}={value if value != '' else repr(value)}: ".replace("True", "true")
    )


NAN, INF = math.nan, math.inf
NET, WEIGHTS, RETINA = "MODEL.CENTERNET", "MODEL.CLASS_BALANCE", "MODEL.RETINANET"
FLAG = (["maybe", 5, None, NAN], "give true or false")
COUNT = ([0, -1, 1.5, NAN, "x", None, True], "give a whole number from 1 on")
SHARE = ([-0.1, 1.5, NAN, "x", True, [1]], "give a number in [0, 1]")
PRIOR = ([0.0, 1.0, -1, NAN, "x"], "give a number above 0 and below 1")
EXPONENT = ([-1.0, 101, INF, NAN, "x"], "give a number in [0, 100]")
SIZE = ([(512,), (0, 512), 512, (1.5, 2), None], "give two whole numbers from 1 on, height and wi")
BAD = {
    "DATALOADER.ON_BAD_IMAGE": (["ignore", None, True, ""], "give error or skip"),
    "DATALOADER.ASPECT_RATIO_GROUPING": FLAG,
    "DATASETS.TRAIN": (["voc", 5, None, ("",)], "give a list of names of data sets"),
    "SOLVER.OPTIMIZER": (["ADAMW", None, 5], "give SGD or ADAM"),
    "SOLVER.GAMMA": ([-0.1, NAN, INF, "x"], "give a number from 0 on"),
    "SOLVER.STEPS": ([30000, (1.5,), (-1,), ("x",)], "give a list of whole numbers from 0 on"),
    "INPUT.FORMAT": (["rgb", None, 5], "give RGB, BGR, L or YUV-BT.601"),
    "MODEL.PIXEL_MEAN": ([5, [1, 2], [NAN] * 3, ["x"]], "give a list of 1 or 3 finite numbers"),
    "MODEL.PIXEL_STD": ([5, [1, 1, 0], [INF] * 3, [-1]], "give a list of 1 or 3 numbers above 0"),
    f"{RETINA}.NUM_CLASSES": COUNT,
    f"{RETINA}.PRIOR_PROB": PRIOR,
    f"{RETINA}.SCORE_THRESH_TEST": SHARE,
    f"{RETINA}.FOCAL_LOSS_ALPHA": ([7, NAN, "x", INF], "give a number in [0, 1], or below 0 for"),
    f"{RETINA}.FOCAL_LOSS_GAMMA": EXPONENT,
    f"{RETINA}.SMOOTH_L1_LOSS_BETA": ([-1, NAN, INF, "x"], "give a number from 0 on"),
    f"{NET}.NUM_CLASSES": COUNT,
    f"{NET}.BACKBONE": (["", 5, None], "give a name"),
    f"{NET}.FREEZE_AT": ([-1, 0.5, None], "give a whole number from 0 on"),
    f"{NET}.NECK": (["fpn", "", None], "give upconv or dla"),
    f"{NET}.UP_CHANNELS": ([256, (0,), ("x",)], "give a list of whole numbers from 1 on"),
    f"{NET}.DEFORMABLE": FLAG,
    f"{NET}.NORM_AFTER_ACTIVATION": FLAG,
    f"{NET}.HEAD_CHANNELS": COUNT,
    f"{NET}.PRIOR_PROB": PRIOR,
    f"{NET}.REGRESSION_STD": ([-1, NAN, "x"], "give a number from 0 on, or null for"),
    f"{NET}.BBOX_REG_WEIGHTS": ([5, (1, 1), (0, 1, 1, 1), (NAN,) * 4], "give four numbers above 0"),
    f"{NET}.FOCAL_LOSS_ALPHA": EXPONENT,
    f"{NET}.FOCAL_LOSS_BETA": EXPONENT,
    f"{NET}.SCORE_THRESH_TEST": SHARE,
    f"{NET}.FLIP_TEST": FLAG,
    f"{NET}.CROP_SIZE": SIZE,
    f"{NET}.FIT_SIZE": SIZE,
    f"{NET}.CANVAS": (["crop", None, 5], "give fit, pad or ''"),
    f"{NET}.PAD_DIVISOR": COUNT,
    f"{WEIGHTS}.NAME": ([None, 5], "give the name of a weighting"),
    f"{WEIGHTS}.SCHEDULE": (["cosine", 5], "give linear, constant or ''"),
    f"{WEIGHTS}.TOTAL_EPOCHS": ([0, 1.5, NAN, "x"], "give a whole number from 2 on"),
    f"{WEIGHTS}.DEFERRED_EPOCHS": ([-1, 1.5, "x"], "give a whole number from 0 on"),
    f"{WEIGHTS}.UPDATE": (["hour", 5], "give epoch or iteration"),
    f"{WEIGHTS}.READING": (["first", 5], "give last, total or next"),
    f"{WEIGHTS}.INTENSITY": ([-1, NAN, INF, "x"], "give a number from 0 on"),
    f"{WEIGHTS}.FLOOR": ([0, -1, NAN, "x"], "give a number above 0"),
    f"{WEIGHTS}.ALLOW_OTHER_COUNTS": (["maybe", 5], "give true or false"),
    f"{WEIGHTS}.ETA": SHARE,
    f"{WEIGHTS}.COUNT_OVER": (["gpu", 5], "give image, process or batch"),
    f"{WEIGHTS}.COUNTED": (["boxes", 5], "give instances or locations"),
    f"{WEIGHTS}.HAT": (["none", 5], "give base or power"),
    f"{WEIGHTS}.BETA": SHARE,
    f"{WEIGHTS}.NORMALIZE": (["maybe", 5], "give true or false"),
    f"{WEIGHTS}.PER_SAMPLE": (["maybe", 5], "give true or false"),
    f"{WEIGHTS}.TAIL_RATIO": SHARE,
    f"{WEIGHTS}.BACKGROUND_WEIGHT": SHARE,
}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [(key, value, allowed) for key, (values, allowed) in BAD.items() for value in values],
)
def test_one_line_with_key_and_what_is_allowed(key, value, allowed):
    with pytest.raises(UserError) as e:
        check_yaml_options(config(key, value))
    assert str(e.value).startswith(f"{key}={shown(value)}: {allowed}")
    assert "\n" not in str(e.value)


def added_keys():
    """The keys that our functions add to Detectron2's config."""

    def keys(node, prefix=""):
        for name, value in node.items():
            path = f"{prefix}{name}"
            yield from keys(value, f"{path}.") if isinstance(value, CfgNode) else [path]

    return set(keys(config())) - set(keys(get_cfg()))


def test_every_key_that_we_add_has_a_rule():
    # Names of maps, and of norms, which the constructors look up.
    of_others = {f"{NET}.{x}" for x in ("IN_FEATURES", "NORM", "HEAD_NORM", "BACKBONE_NORM")}
    assert added_keys() - of_others <= set(YAML_OPTIONS)
    assert len(added_keys()) > 40


def test_the_defaults_are_allowed():
    check_yaml_options(config())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
        ("DATALOADER.ON_BAD_IMAGE", "skip"),
        (f"{NET}.CANVAS", ""),
        (f"{NET}.CROP_SIZE", [128, 128]),
        (f"{WEIGHTS}.BETA", 1.0),
        (f"{RETINA}.FOCAL_LOSS_ALPHA", -1.0),
        (f"{CLIP}.NORM_TYPE", math.inf),
        ("SOLVER.WEIGHT_DECAY_BIAS", None),
        (f"{IOU}.LOC_WEIGHT", 3.0),
        ("SOLVER.REFERENCE_WORLD_SIZE", 8),
    ],
)
def test_what_makes_sense_is_taken(key, value):
    check_yaml_options(config(key, value))


def test_a_clipping_that_is_off_is_not_looked_at():
    cfg = config(f"{CLIP}.CLIP_VALUE", -1.0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    check_yaml_options(cfg)


def test_a_config_without_our_keys():
    check_yaml_options(get_cfg())
