"""Numbers of a yaml config that make no sense."""

import math

import pytest
from detectron2.config import get_cfg

from iou_balanced.engine import BalancedDefaultTrainer, UserError
from iou_balanced.engine.yaml_options import check_yaml_options
from iou_balanced.modeling import add_centernet_config, add_iou_balanced_config

CLIP = "SOLVER.CLIP_GRADIENTS"
IOU = "MODEL.IOU_BALANCED"


def config(key=None, value=None):
    cfg = get_cfg()
    add_iou_balanced_config(cfg)
    add_centernet_config(cfg)
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, None),
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
