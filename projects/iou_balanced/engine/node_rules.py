"""What the values in a LazyConfig's calls may be: one table for each kind of node.

The names are arguments of Detectron2, of torch and of this package that have one meaning wherever
they stand. Losses, schedules and detectors check their own arguments when they are made; here is
what would be taken silently, and what would fail where nothing names the key.
"""

import math

from omegaconf import DictConfig, ListConfig, OmegaConf

from iou_balanced.evaluation.metrics import SCORERS
from iou_balanced.evaluation.voc import METRICS

from .options import FLAG, NAME, Rule, number, one_of, or_null, whole

_TASKS = ("bbox", "segm", "keypoints")


def is_own(value) -> bool:
    """Whether it is a call or an object, which no command line can write."""
    return value is not None and not isinstance(value, (bool, int, float, str, bytes, ListConfig))


def list_of(rule: Rule, value, lengths: tuple[int, ...] = ()) -> bool:
    """Whether it is a list, of one of the lengths if such are given, whose values are allowed."""
    is_list = OmegaConf.is_list(value) and (not lengths or len(value) in lengths)
    return is_list and all(map(rule.allows, value))


def _nested(rule: Rule, value) -> bool:
    """Of a list, of lists, or a number for all of them; not empty."""
    if OmegaConf.is_list(value):
        return len(value) > 0 and all(is_own(x) or _nested(rule, x) for x in value)
    return rule.allows(value)


def _is_ascending(value) -> bool:
    return list_of(IOU, value) and len(value) > 0 and list(value) == sorted(value)


def _is_call(value) -> bool:
    return is_own(value) and not (isinstance(value, DictConfig) and "_target_" not in value)


COUNT = whole(1)
SHARE = Rule(lambda x: number().allows(x) and x <= 1, "a number in [0, 1]")
IOU = Rule(lambda x: number(above=True).allows(x) and x <= 1, "a number above 0 and up to 1")
_PROBABILITY = number(above=True, below=1.0)
_ABOVE = number(above=True)
PAIR = Rule(
    lambda x: list_of(COUNT, x, (2,)),
    "two whole numbers from 1 on, for training and for testing",
)
COUNTS = Rule(lambda x: COUNT.allows(x) or PAIR.allows(x), f"{COUNT.text}, or {PAIR.text}")
_MEAN = Rule(lambda x: list_of(number(-math.inf), x, (1, 3)), "a list of 1 or 3 finite numbers")
_STD = Rule(lambda x: list_of(number(above=True), x, (1, 3)), "a list of 1 or 3 numbers above 0")
THRESHOLDS = Rule(_is_ascending, "a list of ascending numbers above 0 and up to 1")
_FORMAT = one_of("RGB", "BGR", "L", "YUV-BT.601")
_NAMES = Rule(lambda x: list_of(NAME, x) and len(x) > 0, "a list of names")
_NORM = Rule(
    lambda x: x is None or isinstance(x, str) or _is_call(x),
    "the name of a norm such as BN, GN or FrozenBN, a call, or null for none",
)
CALL = Rule(_is_call, "a call, a LazyCall of a function or class")
SAMPLER = or_null(CALL, "all images in a random order")
_SIZES = Rule(lambda x: OmegaConf.is_list(x) and _nested(_ABOVE, x), "lists of numbers above 0")
_PIXELS = Rule(lambda x: _nested(COUNT, x), "a whole number from 1 on, or a list of such")
_CALLS = Rule(
    lambda x: OmegaConf.is_list(x) and all(a is None or _is_call(a) for a in x),
    "a list of calls, [] for none",
)
_POSITIVE = Rule(lambda x: OmegaConf.is_list(x) and _nested(_ABOVE, x), "a list of numbers above 0")
_WEIGHTS = Rule(
    lambda x: list_of(_ABOVE, x, (4,)), "four numbers above 0, of x, y, width and height"
)

OF_MODELS = {
    "num_classes": COUNT,
    "test_score_thresh": SHARE,
    "test_nms_thresh": IOU,
    "nms_thresh": IOU,
    "test_topk_candidates": COUNT,
    "max_detections_per_image": COUNT,
    "test_topk_per_image": Rule(
        lambda x: COUNT.allows(x) or (whole(-1).allows(x) and x == -1),
        f"{COUNT.text}, or -1 for all of them",
    ),
    "pre_nms_topk": COUNTS,
    "post_nms_topk": COUNTS,
    "input_format": _FORMAT,
    "pixel_mean": _MEAN,
    "pixel_std": _STD,
}
"""Of a model, in whatever class."""
OF_OUR_CALLS = {
    "prior_prob": _PROBABILITY,
    "batch_size_per_image": COUNT,
    "positive_fraction": SHARE,
    "min_box_size": number(),
    "smooth_l1_beta": number(),
    "head_in_features": or_null(_NAMES, "all of the backbone's"),
    "box_in_features": _NAMES,
    "in_features": _NAMES,
    "conv_dims": Rule(
        lambda x: COUNT.allows(x) or (list_of(whole(-1), x) and 0 not in x),
        "a list of whole numbers",
    ),
    "head_channels": COUNT,
    "flip_test": FLAG,
    "deformable": FLAG,
    "norm_after_activation": FLAG,
    "cls_agnostic_bbox_reg": FLAG,
    "allow_low_quality_matches": FLAG,
    "regression_std": or_null(number(), "PyTorch's own"),
    "norm": _NORM,
    **dict.fromkeys(("backbone", "head", "anchor_generator", "anchor_matcher"), CALL),
    **dict.fromkeys(("proposal_generator", "roi_heads", "proposal_matcher", "bottom_up"), CALL),
    "stem": CALL,
    "box2box_transform": or_null(CALL, "the detector's own"),
}
"""Of a model, in the classes of Detectron2 and of this package."""
OF_CLASSES = {
    ("AnchorGenerator", "sizes"): _SIZES,
    ("AnchorGenerator", "aspect_ratios"): _SIZES,
    ("AnchorGenerator", "offset"): number(below=1.0),
    ("AnchorGenerator", "strides"): _POSITIVE,
    ("BoxGenerator", "strides"): _POSITIVE,
    ("Matcher", "thresholds"): THRESHOLDS,
    ("Matcher", "labels"): Rule(
        lambda x: list_of(whole(-1), x) and len(x) > 1 and set(x) <= {-1, 0, 1},
        "a list of -1, 0 and 1, one more than the thresholds",
    ),
    ("Box2BoxTransform", "weights"): _WEIGHTS,
    ("FPN", "out_channels"): COUNT,
    ("Stem", "out_channels"): COUNT,
    ("Stem", "in_channels"): COUNT,
}
"""Of a model, in classes whose name ends so; what others call so is theirs."""
OF_EVALUATORS = {
    "scorer": one_of(*SCORERS),
    "tasks": or_null(
        Rule(
            lambda x: OmegaConf.is_list(x) and all(task in _TASKS for task in x),
            f"a list of {', '.join(_TASKS[:-1])} and {_TASKS[-1]}",
        ),
        "those of the detections",
    ),
    "max_dets_per_image": or_null(COUNT, "100"),
    "metric": one_of(*METRICS),
    "tail_ratio": SHARE,
    "dataset_name": Rule(lambda x: NAME.allows(x) or _is_call(x), "the name of a data set"),
    "result_file": or_null(
        Rule(lambda x: isinstance(x, str) and x.endswith(".json"), "a name that ends in .json"),
        "none",
    ),
}
OF_MAPPERS = {
    "is_train": FLAG,
    "image_format": _FORMAT,
    "use_instance_mask": FLAG,
    "use_keypoint": FLAG,
    "recompute_boxes": FLAG,
    "ignore_difficult": FLAG,
    "instance_mask_format": one_of("polygon", "bitmask"),
    "augmentations": _CALLS,
}
OF_AUGMENTATIONS = {
    "intensity_min": number(),
    "intensity_max": number(),
    "prob": SHARE,
    "horizontal": FLAG,
    "vertical": FLAG,
    "short_edge_length": _PIXELS,
    "max_size": COUNT,
    "sample_style": one_of("range", "choice"),
    "size": _PIXELS,
    "scales": Rule(
        lambda x: OmegaConf.is_list(x) and _nested(_ABOVE, x), "a list of numbers above 0"
    ),
    "border": whole(0),
    "max_ratio": number(1.0),
    "min_ious": Rule(lambda x: list_of(SHARE, x), "a list of numbers in [0, 1]"),
    "min_crop_size": IOU,
    **dict.fromkeys(("brightness", "contrast", "saturation", "lighting"), number()),
    **dict.fromkeys(("brightness_delta", "hue_delta"), number()),
}
OF_DATA_SETS = {
    "split": NAME,
    "num_images": or_null(COUNT, "the default"),
    "image_size": whole(32),
    "seed": or_null(whole(0), "the default"),
    "long_tail": FLAG,
    "masks": FLAG,
    "imbalance": number(1.0),
}
"""Of our register functions, where the values are not words of their own."""
OF_SCHEDULES = {
    **dict.fromkeys(("start_value", "end_value"), number()),
    "values": Rule(lambda x: list_of(number(), x) and len(x) > 0, "a list of numbers from 0 on"),
    "milestones": Rule(lambda x: list_of(number(), x), "a list of ascending numbers from 0 on"),
    "num_updates": or_null(COUNT, "the largest milestone"),
    "scheduler": CALL,
}
