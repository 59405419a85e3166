"""Values in the nodes of a LazyConfig that become models, data loaders and evaluators.

Only names that Detectron2 and this package give one meaning are looked at, where a config has
them. A value that is a call, or an object made in Python, is left alone.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from iou_balanced.evaluation.metrics import SCORERS
from iou_balanced.evaluation.voc import METRICS

from .errors import UserError
from .options import Rule, no_call, number, one_of, or_null, shown, whole

_COUNT = whole(1)
_SHARE = Rule(lambda x: number().allows(x) and x <= 1, "a number in [0, 1]")
_IOU = Rule(lambda x: number(above=True).allows(x) and x <= 1, "a number above 0 and up to 1")
_LOADERS = ("build_detection_train_loader", "build_detection_test_loader")
_TASKS = ("bbox", "segm", "keypoints")


def _list_of(rule: Rule, value, lengths: tuple[int, ...] = ()) -> bool:
    is_list = OmegaConf.is_list(value) and (not lengths or len(value) in lengths)
    return is_list and all(map(rule.allows, value))


def _is_ascending(value) -> bool:
    return _list_of(_IOU, value) and len(value) > 0 and list(value) == sorted(value)


_PAIR = Rule(
    lambda x: _list_of(_COUNT, x, (2,)),
    "two whole numbers from 1 on, for training and for testing",
)
_COUNTS = Rule(lambda x: _COUNT.allows(x) or _PAIR.allows(x), f"{_COUNT.text}, or {_PAIR.text}")
_MEAN = Rule(lambda x: _list_of(number(-math.inf), x, (1, 3)), "a list of 1 or 3 finite numbers")
_STD = Rule(lambda x: _list_of(number(above=True), x, (1, 3)), "a list of 1 or 3 numbers above 0")
_THRESHOLDS = Rule(_is_ascending, "a list of ascending numbers above 0 and up to 1")
_FORMAT = one_of("RGB", "BGR", "L", "YUV-BT.601")

_OF_MODELS = {
    "num_classes": _COUNT,
    "test_score_thresh": _SHARE,
    "test_nms_thresh": _IOU,
    "nms_thresh": _IOU,
    "test_topk_candidates": _COUNT,
    "max_detections_per_image": _COUNT,
    "test_topk_per_image": Rule(
        lambda x: _COUNT.allows(x) or (whole(-1).allows(x) and x == -1),
        f"{_COUNT.text}, or -1 for all of them",
    ),
    "pre_nms_topk": _COUNTS,
    "post_nms_topk": _COUNTS,
    "input_format": _FORMAT,
    "pixel_mean": _MEAN,
    "pixel_std": _STD,
    "thresholds": _THRESHOLDS,
}
_OF_EVALUATORS = {
    "scorer": one_of(*SCORERS),
    "tasks": or_null(
        Rule(
            lambda x: OmegaConf.is_list(x) and all(task in _TASKS for task in x),
            f"a list of {', '.join(_TASKS[:-1])} and {_TASKS[-1]}",
        ),
        "those of the detections",
    ),
    "max_dets_per_image": or_null(_COUNT, "100"),
    "metric": one_of(*METRICS),
    "tail_ratio": _SHARE,
    "result_file": or_null(
        Rule(lambda x: isinstance(x, str) and x.endswith(".json"), "a name that ends in .json"),
        "none",
    ),
}


class _Value(NamedTuple):
    """What a node has below a name."""

    key: str
    node: DictConfig
    name: str

    def read(self) -> Any:
        """The value itself, or of what it refers to.

        Raises:
            UserError: it is missing, or refers to nothing.
        """
        try:
            return self.node[self.name]
        except OmegaConfBaseException as e:
            written = self.node._get_node(self.name)._value()
            raise UserError(f"{self.key}={written}: {str(e.msg or e).splitlines()[0]}") from e


def check_nodes(cfg: DictConfig) -> None:
    """Refuse values of the model, the data loaders and the evaluators that make no sense.

    Raises:
        UserError: names the first such key, what came and what is allowed.
    """
    _check_model(cfg.model)
    for split in ("train", "test"):
        node = OmegaConf.select(cfg, f"dataloader.{split}")
        if isinstance(node, DictConfig):
            _check_names(node, f"dataloader.{split}")
            _check_mapper(node, f"dataloader.{split}")
    _check_evaluators(cfg.dataloader)


def _check_model(model: DictConfig) -> None:
    found = [value for value in _values(model, "model") if _is_known(value)]
    # References to other values last: the error is to name the place where a value is written.
    found.sort(key=lambda value: OmegaConf.is_interpolation(value.node, value.name))
    for value in found:
        rule = _OF_MODELS[value.name]
        if rule is _COUNTS and _target_name(value.node).endswith("RPN"):
            rule = _PAIR
        _check(value, rule)
    for value in found:
        if value.name == "pixel_std" and "pixel_mean" in value.node:
            mean, std = value.node.pixel_mean, value.read()
            if OmegaConf.is_list(mean) and OmegaConf.is_list(std) and len(mean) != len(std):
                raise UserError(
                    f"{value.key}={shown(std)}: give as many numbers as pixel_mean={shown(mean)}"
                )


def _values(node: DictConfig | ListConfig, key: str) -> Iterator[_Value]:
    """The values of every call and group from `node` down, where they are written."""
    for name in node.keys() if isinstance(node, DictConfig) else range(len(node)):
        if isinstance(node, DictConfig):
            yield _Value(f"{key}.{name}", node, name)
        if not OmegaConf.is_interpolation(node, name):
            child = node._get_node(name)
            if OmegaConf.is_config(child) and not (child._is_none() or child._is_missing()):
                yield from _values(child, f"{key}.{name}")


def _is_known(value: _Value) -> bool:
    if value.name not in _OF_MODELS:
        return False
    if value.name == "thresholds":
        return _target_name(value.node).endswith("Matcher")
    if value.name == "num_classes":  # a backbone's may be null or 0: no classifier
        return ".backbone." not in value.key
    if value.name == "input_format" and "proposal_generator" in value.node:
        return value.read() is not None  # an R-CNN needs it for drawing only
    return True


def _dataset_with_names(loader: DictConfig, key: str) -> DictConfig | None:
    """The `dataset` of a loader, if it is told by the names of registered data sets."""
    dataset = _Value(f"{key}.dataset", loader, "dataset").read() if "dataset" in loader else None
    return dataset if isinstance(dataset, DictConfig) and "names" in dataset else None


def _check_names(loader: DictConfig, key: str) -> None:
    dataset = _dataset_with_names(loader, key)
    if dataset is None:
        return
    value = _Value(f"{key}.dataset.names", dataset, "names").read()
    names = value if OmegaConf.is_list(value) else [value]
    if not len(names) or not all(isinstance(x, str) or _is_own(x) for x in names):
        raise UserError(
            f"{key}.dataset.names={shown(value)}: give the name of a data set, a call that "
            "registers one, or a list of these"
        )


def _check_mapper(loader: DictConfig, key: str) -> None:
    mapper = _Value(f"{key}.mapper", loader, "mapper").read() if "mapper" in loader else None
    if mapper is None:
        # Without a mapper, only a user's own data set can give what the model takes.
        is_raw = _dataset_with_names(loader, key) is not None
        refused = is_raw and _target_name(loader) in _LOADERS
    else:
        refused = not _is_own(mapper) or _is_group(mapper)
    if refused:
        raise UserError(no_call(f"{key}.mapper", mapper))


def _check_evaluators(dataloader: DictConfig) -> None:
    key = "dataloader.evaluator"
    if "evaluator" not in dataloader:
        return
    evaluator = _Value(key, dataloader, "evaluator").read()
    if evaluator is None:
        return
    nodes = {key: evaluator}
    if OmegaConf.is_list(evaluator):
        nodes = {f"{key}.{i}": node for i, node in enumerate(evaluator)}
    for path, node in nodes.items():
        if not isinstance(node, DictConfig) or _is_group(node):
            raise UserError(no_call(path, node))
        if not _target_module(node).startswith("iou_balanced.evaluation"):
            continue
        for name, rule in _OF_EVALUATORS.items():
            if name in node:
                _check(_Value(f"{path}.{name}", node, name), rule)


def _check(value: _Value, rule: Rule) -> None:
    found = value.read()
    if _is_own(found) or (OmegaConf.is_list(found) and any(map(_is_own, found))):
        return
    if not rule.allows(found):
        raise UserError(f"{value.key}={shown(found)}: give {rule.text}")


def _is_own(value) -> bool:
    """Whether it is a call or an object, which no command line can write."""
    return value is not None and not isinstance(value, (bool, int, float, str, bytes, ListConfig))


def _is_group(value) -> bool:
    return isinstance(value, DictConfig) and "_target_" not in value


def _target_name(node: DictConfig) -> str:
    target = node.get("_target_", "")
    return str(getattr(target, "__name__", target)).rpartition(".")[-1]


def _target_module(node: DictConfig) -> str:
    target = node._target_
    return target if isinstance(target, str) else str(getattr(target, "__module__", ""))
