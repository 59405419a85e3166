"""The keys of a LazyConfig that the engine itself reads: defaults, and what they may be.

`TRAIN_OPTIONS` declares those of `train`. Of the nodes that become Detectron2's and torch's own
objects only the well-known values are looked at; those of models, data sets and evaluators are in
`node_options`.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from detectron2.solver import WarmupParamScheduler
from omegaconf import DictConfig, OmegaConf

from iou_balanced.data.image_reading import ON_BAD_IMAGE

from .errors import UserError

LARGEST_SEED = 2**32 - 1 - 2**16  # numpy's, less the process's number that is added


class Rule(NamedTuple):
    """What a key may be."""

    allows: Callable[[Any], bool]
    text: str
    """Continues "give"."""


class Option(NamedTuple):
    """A key with the value for what a config leaves out."""

    default: Any
    rule: Rule


def _is_whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_finite(value) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_device(value) -> bool:
    try:
        return torch.device(value).type in ("cpu", "cuda", "mps", "xpu")
    except (RuntimeError, TypeError):
        return False


def whole(least: int, note: str = "") -> Rule:
    """A whole number from `least` on; 90000.0 and 9e4 are none."""
    return Rule(lambda x: _is_whole(x) and x >= least, f"a whole number from {least} on{note}")


def number(least: float = 0.0, *, above: bool = False, below: float = math.inf) -> Rule:
    """A finite number from `least` on, or above it, and below `below`."""
    text = f"a number {'above' if above else 'from'} {least:g}{'' if above else ' on'}"
    if below < math.inf:
        text = f"{text} and below {below:g}"
    return Rule(lambda x: _is_finite(x) and least <= x < below and not (above and x == least), text)


def one_of(*values: str) -> Rule:
    """One of a few words."""
    words = [value or "''" for value in values]
    return Rule(lambda x: x in values, f"{', '.join(words[:-1])} or {words[-1]}")


def or_null(rule: Rule, meaning: str) -> Rule:
    """`rule`, or null."""
    return Rule(lambda x: x is None or rule.allows(x), f"{rule.text}, or null for {meaning}")


# Any word would count as true, "off" and "maybe" among them; 1 and 0 are what they look like.
FLAG = Rule(lambda x: isinstance(x, (bool, int)) and x in (0, 1), "true or false")
TEXT = Rule(lambda x: isinstance(x, str), "a text")
NAME = Rule(lambda x: isinstance(x, str) and x != "", "a name")
METRIC = Rule(
    lambda x: isinstance(x, str) and x.strip() != "", "the name of a metric, such as bbox/AP"
)
FOLDER = Rule(lambda x: isinstance(x, str) and x.strip() != "", "the name of a folder")
ANY = Rule(lambda x: True, "anything")
DEVICE = Rule(_is_device, "cpu, cuda or cuda:NUMBER")
NORM = Rule(
    lambda x: x == math.inf or (_is_finite(x) and x >= 1), "a number from 1 on, or inf, the p"
)

TRAIN_OPTIONS = {
    "output_dir": Option("./output", FOLDER),
    "init_checkpoint": Option("", TEXT),
    # The classes of the classifier in init_checkpoint, a data set's name or a list of names: its
    # rows for classes of the same names are taken over. None: those that the file names; without
    # names it is loaded only where it fits, as with False.
    "init_classes": Option(None, ANY),  # looked at where the classes are known
    "max_iter": Option(90000, whole(1)),
    "amp.enabled": Option(False, FLAG),
    "amp.dtype": Option("auto", one_of("auto", "float16", "bfloat16")),
    "ddp.broadcast_buffers": Option(False, FLAG),
    "ddp.find_unused_parameters": Option(False, FLAG),
    "ddp.fp16_compression": Option(False, FLAG),
    "checkpointer.period": Option(5000, whole(1)),
    "checkpointer.max_to_keep": Option(100, or_null(whole(1), "all of them")),
    "eval_period": Option(5000, whole(0, "; 0 evaluates at the end only")),
    "log_period": Option(20, whole(1)),
    "device": Option("cuda", DEVICE),
    # Whether layers of the backbone may be missing in init_checkpoint and start at random.
    "allow_random_backbone": Option(False, FLAG),
    # Debugging: the losses check the values that they are called with, and name the row.
    "check_values": Option(False, FLAG),
    # Whether what is in init_checkpoint may run; weights need no code.
    "unsafe_load": Option(False, FLAG),
    "seed": Option(
        -1,
        Rule(
            lambda x: _is_whole(x) and -1 <= x <= LARGEST_SEED,
            f"a whole number from 0 to {LARGEST_SEED}, or null for none",
        ),
    ),
    "cudnn_benchmark": Option(False, FLAG),
    "channels_last": Option(False, FLAG),
    # The total batch size that lr and max_iter were written for; None: no linear scaling.
    "reference_batch_size": Option(None, or_null(whole(1), "no linear scaling")),
    # Micro-batches that dataloader.train.total_batch_size comes in, for one optimizer step.
    "accumulation_steps": Option(1, whole(1)),
    # Largest norm of the gradient; None: no clipping.
    "clip_grad.max_norm": Option(None, or_null(number(above=True), "no clipping")),
    "clip_grad.norm_type": Option(2.0, NORM),
    # Keeps model_best.pth; metric None: no best checkpoint.
    "best_checkpoint.metric": Option(None, or_null(METRIC, "no best checkpoint")),
    "best_checkpoint.mode": Option("max", one_of("max", "min")),
    # Repeat-factor sampling: images with a class that fewer than this share of all images show come
    # more often. None: all equally often.
    "repeat_threshold": Option(
        None,
        or_null(
            Rule(
                lambda x: _is_finite(x) and 0 < x <= 1, "a share of the images, above 0 and up to 1"
            ),
            "none",
        ),
    ),
    # With --eval-only and in tools/predict.py: a call, see iou_balanced.modeling.PriorAdjustment.
    "logit_adjustment": Option(
        None,
        or_null(
            Rule(
                lambda x: isinstance(x, DictConfig) and "_target_" in x,
                "a call (train.logit_adjustment._target_=iou_balanced.modeling.PriorAdjustment)",
            ),
            "none",
        ),
    ),
    # What becomes of a training image that cannot be read: the end, or another in its place.
    "on_bad_image": Option("error", one_of(*ON_BAD_IMAGE)),
    "progress_bar": Option(True, FLAG),
    # Writes report.html into output_dir at the end.
    "report": Option(True, FLAG),
}
"""What `train` may hold."""

# Where a config has them.
_OTHERS = {
    "train.ddp.static_graph": FLAG,
    "train.ddp.gradient_as_bucket_view": FLAG,
    "train.ddp.bucket_cap_mb": number(above=True),
    "dataloader.train.total_batch_size": whole(1),
    "dataloader.train.num_workers": whole(0),
    "dataloader.test.num_workers": whole(0),
    "dataloader.test.batch_size": whole(1),
    "dataloader.train.aspect_ratio_grouping": FLAG,
    "dataloader.train.dataset.filter_empty": FLAG,
    "dataloader.test.dataset.filter_empty": FLAG,
    "optimizer.lr": number(),
    "optimizer.weight_decay": number(),
    "optimizer.momentum": number(below=1.0),
    "optimizer.amsgrad": FLAG,
    "optimizer.nesterov": FLAG,
    "optimizer.betas": Rule(
        lambda x: OmegaConf.is_list(x) and len(x) == 2 and all(map(number(below=1.0).allows, x)),
        "two numbers from 0 on and below 1",
    ),
    "optimizer.params.base_lr": or_null(number(), "optimizer.lr"),
    "optimizer.params.weight_decay_norm": or_null(number(), "optimizer.weight_decay"),
    "optimizer.params.weight_decay_bias": or_null(number(), "optimizer.weight_decay"),
    "optimizer.params.bias_lr_factor": or_null(number(), "1"),
}
_OF_WARMUP = {
    "lr_multiplier.warmup_factor": number(),
    "lr_multiplier.warmup_length": Rule(
        lambda x: _is_finite(x) and 0 <= x <= 1, "a number in [0, 1], a share of the training"
    ),
    "lr_multiplier.warmup_method": one_of("linear", "constant"),
}


def train_defaults() -> dict:
    """The defaults of `train`, nested as in a config."""
    nested = {}
    for key, option in TRAIN_OPTIONS.items():
        *groups, name = key.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = option.default
    return nested


def check_options(cfg: DictConfig) -> None:
    """Refuse values that make no sense, of a config with all the defaults of `train`.

    Raises:
        UserError: names the first such key, what came and what is allowed.
    """
    _check_group(cfg, "train", "dataloader")
    groups = dict.fromkeys(key.rpartition(".")[0] for key in TRAIN_OPTIONS)
    _check_group(cfg, *(f"train.{group}" for group in groups if group))
    for key, option in TRAIN_OPTIONS.items():
        _check(cfg, f"train.{key}", option.rule)
    _check_call(cfg, "model")
    for key in ("optimizer", "lr_multiplier", "dataloader.train", "dataloader.test"):
        if _has(cfg, key):
            _check_call(cfg, key)
    if _has(cfg, "optimizer") and not isinstance(cfg.optimizer.get("params"), DictConfig):
        raise UserError(
            f"optimizer.params={shown(cfg.optimizer.get('params'))}: give a call that takes "
            "`model`, such as detectron2.solver.build.get_default_optimizer_params"
        )
    rules = dict(_OTHERS)
    if _has(cfg, "lr_multiplier"):
        target = cfg.lr_multiplier._target_  # a class, or its name in a config saved as yaml
        if str(getattr(target, "__name__", target)).endswith(WarmupParamScheduler.__name__):
            rules.update(_OF_WARMUP)
    for key, rule in rules.items():
        if _has(cfg, key):
            _check(cfg, key, rule)


def check_training_nodes(cfg: DictConfig) -> None:
    """Refuse a config that can be evaluated but not trained.

    Raises:
        UserError: it has no optimizer, lr_multiplier or dataloader.train.
    """
    for key in ("optimizer", "lr_multiplier", "dataloader.train"):
        if not _has(cfg, key):
            raise UserError(f"the config has no {key}: a training needs it")


def shown(value) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value) if value == "" else str(value)


def no_call(key: str, value) -> str:
    """What to say of a value in the place of a call."""
    return (
        f"{key}={shown(value)}: give a call, a LazyCall of a function or class "
        f"({key}._target_=... on the command line)"
    )


def _has(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return isinstance(node, DictConfig) and name in node


def _check(cfg: DictConfig, key: str, rule: Rule) -> None:
    value = OmegaConf.select(cfg, key)
    if not rule.allows(value):
        raise UserError(f"{key}={shown(value)}: give {rule.text}")


def _check_group(cfg: DictConfig, *keys: str) -> None:
    for key in keys:
        value = OmegaConf.select(cfg, key)
        if not isinstance(value, DictConfig):
            names = [k.split(".")[-1] for k in TRAIN_OPTIONS if f"train.{k}".startswith(f"{key}.")]
            names = {"dataloader": ["train", "test", "evaluator"]}.get(key, names)
            raise UserError(f"{key}={shown(value)}: {key} has keys of its own: {', '.join(names)}")


def _check_call(cfg: DictConfig, key: str) -> None:
    value = OmegaConf.select(cfg, key)
    if not isinstance(value, DictConfig) or "_target_" not in value:
        raise UserError(no_call(key, value))
