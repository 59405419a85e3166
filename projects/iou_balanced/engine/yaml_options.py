"""The numbers of a yaml (yacs) config in which silent nonsense is possible."""

import math

from detectron2.config import CfgNode

from iou_balanced.data.image_reading import ON_BAD_IMAGE
from iou_balanced.losses.checks import LARGEST_EXPONENT
from iou_balanced.losses.reweighting import HATS
from iou_balanced.modeling.cls_members import MEMBERS

from .errors import UserError
from .options import DEVICE, FLAG, FOLDER, NAME, NORM, Rule, number, one_of, or_null, shown, whole
from .yaml_logit_adjustment import ADJUSTMENTS

EXPONENT = Rule(
    lambda x: number().allows(x) and x <= LARGEST_EXPONENT,
    f"a number in [0, {LARGEST_EXPONENT:g}]",
)

_SHARE = Rule(lambda x: number().allows(x) and x <= 1, "a number in [0, 1]")
_IOU = Rule(lambda x: number(above=True).allows(x) and x <= 1, "a number above 0 and up to 1")


def _numbers(rule: Rule, text: str, lengths: tuple[int, ...] = ()) -> Rule:
    """A list of numbers, or a tuple; of one of the lengths, where such are given."""

    def allows(value) -> bool:
        is_list = isinstance(value, (list, tuple)) and (not lengths or len(value) in lengths)
        return is_list and all(map(rule.allows, value))

    return Rule(allows, text)


_SIZE = _numbers(whole(1), "two whole numbers from 1 on, height and width", (2,))
_NAMES = _numbers(NAME, "a list of names of data sets")

YAML_OPTIONS = {
    "DATASETS.TRAIN": _NAMES,
    "DATASETS.TEST": _NAMES,
    "DATALOADER.ASPECT_RATIO_GROUPING": FLAG,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": FLAG,
    "DATALOADER.ON_BAD_IMAGE": one_of(*ON_BAD_IMAGE),
    "SEED": whole(-1, "; -1 for none"),
    "TEST.DETECTIONS_PER_IMAGE": whole(1),
    "SOLVER.OPTIMIZER": one_of("SGD", "ADAM"),
    "SOLVER.GAMMA": number(),
    "SOLVER.STEPS": _numbers(whole(0), "a list of whole numbers from 0 on"),
    "SOLVER.NESTEROV": FLAG,
    "INPUT.FORMAT": one_of("RGB", "BGR", "L", "YUV-BT.601"),
    "MODEL.PIXEL_MEAN": _numbers(number(-math.inf), "a list of 1 or 3 finite numbers", (1, 3)),
    "MODEL.PIXEL_STD": _numbers(number(above=True), "a list of 1 or 3 numbers above 0", (1, 3)),
    "MODEL.RETINANET.NUM_CLASSES": whole(1),
    "MODEL.RETINANET.PRIOR_PROB": number(above=True, below=1.0),
    "MODEL.RETINANET.SCORE_THRESH_TEST": _SHARE,
    "MODEL.RETINANET.NMS_THRESH_TEST": _IOU,
    "MODEL.RETINANET.TOPK_CANDIDATES_TEST": whole(1),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": EXPONENT,
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": Rule(
        lambda x: number(-math.inf).allows(x) and x <= 1,
        "a number in [0, 1], or below 0 for no weighting",
    ),
    "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": number(),
    "MODEL.RETINANET.NUM_CONVS": whole(0),
    "MODEL.ROI_HEADS.NUM_CLASSES": whole(1),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": whole(1),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": _SHARE,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": _SHARE,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": _IOU,
    "MODEL.CENTERNET.NUM_CLASSES": whole(1),
    "MODEL.CENTERNET.BACKBONE": NAME,
    "MODEL.CENTERNET.FREEZE_AT": whole(0),
    "MODEL.CENTERNET.NECK": one_of("upconv", "dla"),
    "MODEL.CENTERNET.UP_CHANNELS": _numbers(whole(1), "a list of whole numbers from 1 on"),
    "MODEL.CENTERNET.DEFORMABLE": FLAG,
    "MODEL.CENTERNET.HEAD_CHANNELS": whole(1),
    "MODEL.CENTERNET.NORM_AFTER_ACTIVATION": FLAG,
    "MODEL.CENTERNET.PRIOR_PROB": number(above=True, below=1.0),
    "MODEL.CENTERNET.REGRESSION_STD": or_null(number(), "PyTorch's own"),
    "MODEL.CENTERNET.BBOX_REG_WEIGHTS": _numbers(
        number(above=True), "four numbers above 0, of offset x, y, width and height", (4,)
    ),
    "MODEL.CENTERNET.FOCAL_LOSS_ALPHA": EXPONENT,
    "MODEL.CENTERNET.FOCAL_LOSS_BETA": EXPONENT,
    "MODEL.CENTERNET.SCORE_THRESH_TEST": _SHARE,
    "MODEL.CENTERNET.FLIP_TEST": FLAG,
    "MODEL.CENTERNET.CROP_SIZE": _SIZE,
    "MODEL.CENTERNET.CANVAS": Rule(lambda x: x in ("fit", "pad", ""), "fit, pad or ''"),
    "MODEL.CENTERNET.FIT_SIZE": _SIZE,
    "MODEL.CENTERNET.PAD_DIVISOR": whole(1),
    "OUTPUT_DIR": FOLDER,
    "MODEL.DEVICE": DEVICE,
    "DATALOADER.NUM_WORKERS": whole(0),
    "TEST.REPORT": FLAG,
    "TEST.LOGIT_ADJUSTMENT.NAME": one_of("", *ADJUSTMENTS),
    "TEST.LOGIT_ADJUSTMENT.CLASS_COUNTS": or_null(NAME, "the counts that the training left"),
    "TEST.LOGIT_ADJUSTMENT.COUNTED": or_null(one_of("instances", "images"), "the class's own"),
    "TEST.LOGIT_ADJUSTMENT.TAU": or_null(number(), "the class's own"),
    "TEST.LOGIT_ADJUSTMENT.STRENGTH": or_null(number(), "the class's own"),
    "TEST.EVAL_PERIOD": whole(0, "; 0 evaluates at the end only"),
    "SOLVER.MAX_ITER": whole(1),
    "SOLVER.CHECKPOINT_PERIOD": whole(1),
    "SOLVER.IMS_PER_BATCH": whole(1),
    "SOLVER.REFERENCE_WORLD_SIZE": whole(0, "; 0 for no scaling"),
    "SOLVER.ACCUMULATION_STEPS": whole(1),
    "SOLVER.AMP.ENABLED": FLAG,
    "SOLVER.BASE_LR": number(),
    "SOLVER.BIAS_LR_FACTOR": or_null(number(), "1"),
    "SOLVER.MOMENTUM": number(below=1.0),
    "SOLVER.WEIGHT_DECAY": number(),
    "SOLVER.WEIGHT_DECAY_NORM": or_null(number(), "SOLVER.WEIGHT_DECAY"),
    "SOLVER.WEIGHT_DECAY_BIAS": or_null(number(), "SOLVER.WEIGHT_DECAY"),
    "SOLVER.WARMUP_FACTOR": number(),
    "SOLVER.WARMUP_ITERS": whole(0),
    "SOLVER.WARMUP_METHOD": one_of("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.ENABLED": FLAG,
    "MODEL.IOU_BALANCED.CLS_ETA": EXPONENT,
    "MODEL.IOU_BALANCED.CLS_LOSS": one_of("", *MEMBERS),
    "MODEL.IOU_BALANCED.CORRELATION": number(),
    "MODEL.IOU_BALANCED.LOC_LAMBDA": EXPONENT,
    "MODEL.IOU_BALANCED.LOC_WEIGHT": or_null(number(), "one that is measured"),
    "MODEL.IOU_BALANCED.LOC_NORMALIZE": FLAG,
    "MODEL.IOU_BALANCED.LOC_MEASURE_FROM": whole(0),
    "MODEL.IOU_BALANCED.LOC_MEASURE_ITERATIONS": whole(1),
    "MODEL.IOU_BALANCED.ACROSS_PROCESSES": FLAG,
}
_OF_WEIGHTS = {
    "NAME": Rule(lambda x: isinstance(x, str), "the name of a weighting, or '' for none"),
    "SCHEDULE": Rule(lambda x: x in ("linear", "constant", ""), "linear, constant or ''"),
    "TOTAL_EPOCHS": whole(2),
    "DEFERRED_EPOCHS": whole(0),
    "UPDATE": one_of("epoch", "iteration"),
    "READING": one_of("last", "total", "next"),
    "INTENSITY": number(),
    "FLOOR": number(above=True),
    "ALLOW_OTHER_COUNTS": FLAG,
    "ETA": _SHARE,
    "COUNT_OVER": one_of("image", "process", "batch"),
    "COUNTED": one_of("instances", "locations"),
    "HAT": one_of(*HATS),
    "BETA": _SHARE,
    "POWER": EXPONENT,
    "NORMALIZE": FLAG,
    "PER_SAMPLE": FLAG,
    "TAIL_RATIO": _SHARE,
    "BACKGROUND_WEIGHT": _SHARE,
}
# Any word would count as true, and every default is None, so that yacs lets any type pass.
YAML_OPTIONS.update(
    {
        f"MODEL.CLASS_BALANCE.{key}": rule if key == "NAME" else or_null(rule, "the class's own")
        for key, rule in _OF_WEIGHTS.items()
    }
)
# A negative value would turn the gradient round, and 0 leave nothing of it.
_OF_CLIPPING = {
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": number(above=True),
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": NORM,
}


def check_yaml_options(cfg: CfgNode) -> None:
    """Refuse values that make no sense, of those keys that the config has.

    Raises:
        UserError: names the first such key, what came and what is allowed.
    """
    for key, rule in YAML_OPTIONS.items():
        _check(cfg, key, rule)
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        for key, rule in _OF_CLIPPING.items():
            _check(cfg, key, rule)


def _check(cfg: CfgNode, key: str, rule: Rule) -> None:
    *parents, name = key.split(".")
    node = cfg
    for parent in parents:
        node = node.get(parent)
        if node is None:
            return
    if name in node and not rule.allows(node[name]):
        raise UserError(f"{key}={shown(node[name])}: give {rule.text}")
