"""The numbers of a yaml (yacs) config in which silent nonsense is possible."""

from detectron2.config import CfgNode

from iou_balanced.losses.checks import LARGEST_EXPONENT
from iou_balanced.modeling.cls_members import MEMBERS

from .errors import UserError
from .options import DEVICE, FLAG, FOLDER, NORM, Rule, number, one_of, or_null, shown, whole

EXPONENT = Rule(
    lambda x: number().allows(x) and x <= LARGEST_EXPONENT,
    f"a number in [0, {LARGEST_EXPONENT:g}]",
)

YAML_OPTIONS = {
    "OUTPUT_DIR": FOLDER,
    "MODEL.DEVICE": DEVICE,
    "DATALOADER.NUM_WORKERS": whole(0),
    "TEST.REPORT": FLAG,
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
