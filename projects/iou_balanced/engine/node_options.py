"""Values in the nodes of a LazyConfig that become models, data loaders and evaluators.

Only names that Detectron2 and this package give one meaning are looked at, where a config has
them. A value that is a call, or an object made in Python, is left alone.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .errors import UserError
from .node_rules import (
    CALL,
    COUNTS,
    OF_AUGMENTATIONS,
    OF_CLASSES,
    OF_DATA_SETS,
    OF_EVALUATORS,
    OF_MAPPERS,
    OF_MODELS,
    OF_OUR_CALLS,
    OF_SCHEDULES,
    PAIR,
    SAMPLER,
    is_own,
)
from .options import Rule, no_call, shown

_LOADERS = ("build_detection_train_loader", "build_detection_test_loader")
_OURS = ("detectron2.", "iou_balanced.", "fvcore.")


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
            _check_loader(node, f"dataloader.{split}")
    _check_evaluators(cfg.dataloader)
    if "lr_multiplier" in cfg:
        _check_calls(cfg.lr_multiplier, "lr_multiplier", OF_SCHEDULES)


def written_at(node: DictConfig, name: str, key: str) -> str:
    """The key where the value of `node[name]` is written: another where it is a reference.

    Args:
        node: what holds the value.
        name: of the value in it.
        key: its key, for a value that is written there.
    """
    if not OmegaConf.is_interpolation(node, name):
        return key
    reference = re.fullmatch(r"\$\{(\w[\w.]*)\}", str(node._get_node(name)._value()))
    return reference[1] if reference else key


def argument_of(error: ValueError, node, key: str) -> str:
    """The argument of a call that an error is about, with its value; else the call's key.

    Args:
        error: of the call; its text begins with the argument's name, as ours do.
        node: the call.
        key: its key.
    """
    named = re.match(r"Expected argument `(\w+)`|(\w+) (?=must |has to )", str(error))
    name = named and (named[1] or named[2])
    if not name or not isinstance(node, DictConfig) or name not in node:
        return key
    value = node[name]
    return f"{key}.{name}" if is_own(value) else f"{key}.{name}={shown(value)}"


def _check_calls(node, key: str, rules: Mapping[str, Rule]) -> None:
    """Hold `rules` against the arguments of each call of ours from `node` down."""
    if not OmegaConf.is_config(node):
        return
    for value in _values(node, key):
        if value.name in rules and _is_ours(value.node):
            _check_written(value, rules[value.name])


def _check_model(model: DictConfig) -> None:
    found = [(value, _rule_of(value)) for value in _values(model, "model")]
    found = [(value, rule) for value, rule in found if rule is not None]
    # References to other values last: the error is to name the place where a value is written.
    found.sort(key=lambda x: OmegaConf.is_interpolation(x[0].node, x[0].name))
    for value, rule in found:
        _check(value, rule)
    for value, _ in found:
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


def _rule_of(value: _Value) -> Rule | None:
    """What is held against a value of the model; None for nothing."""
    name, target = value.name, _target_name(value.node)
    for (ending, argument), rule in OF_CLASSES.items():
        if name == argument and target.endswith(ending) and _is_ours(value.node):
            return rule
    if name == "num_classes" and ".backbone." in value.key:
        return None  # may be null or 0: no classifier
    if name == "input_format" and "proposal_generator" in value.node and value.read() is None:
        return None  # an R-CNN needs it for drawing only
    rule = OF_MODELS.get(name)
    if rule is None and _is_ours(value.node):
        rule = OF_OUR_CALLS.get(name)
    return PAIR if rule is COUNTS and target.endswith("RPN") else rule


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
    if not len(names) or not all(isinstance(x, str) or is_own(x) for x in names):
        raise UserError(
            f"{key}.dataset.names={shown(value)}: give the name of a data set, a call that "
            "registers one, or a list of these"
        )
    place = written_at(dataset, "names", f"{key}.dataset.names")
    for i, node in enumerate(names):
        if isinstance(node, DictConfig):
            own = {x: rule for x, rule in OF_DATA_SETS.items() if x in node and _is_ours(node)}
            for name, rule in own.items():
                at = f"{place}.{i}" if OmegaConf.is_list(value) else place
                _check(_Value(f"{at}.{name}", node, name), rule)


def _check_mapper(loader: DictConfig, key: str) -> None:
    mapper = _Value(f"{key}.mapper", loader, "mapper").read() if "mapper" in loader else None
    if mapper is None:
        # Without a mapper, only a user's own data set can give what the model takes.
        is_raw = _dataset_with_names(loader, key) is not None
        refused = is_raw and _target_name(loader) in _LOADERS
    else:
        refused = not is_own(mapper) or _is_group(mapper)
    if refused:
        raise UserError(no_call(f"{key}.mapper", mapper))


def _check_loader(loader: DictConfig, key: str) -> None:
    if "dataset" in loader and _target_name(loader) in _LOADERS:
        _check(_Value(f"{key}.dataset", loader, "dataset"), CALL)
    if "sampler" in loader and _is_ours(loader):
        _check_written(_Value(f"{key}.sampler", loader, "sampler"), SAMPLER)
    mapper = loader.get("mapper")
    if isinstance(mapper, DictConfig) and _is_ours(mapper):
        for name, rule in OF_MAPPERS.items():
            if name in mapper:
                _check_written(_Value(f"{key}.mapper.{name}", mapper, name), rule)
        augmentations = mapper.get("augmentations")
        _check_calls(augmentations, f"{key}.mapper.augmentations", OF_AUGMENTATIONS)


def _evaluators(dataloader: DictConfig) -> dict[str, Any]:
    """Key -> node of each evaluator."""
    key = "dataloader.evaluator"
    if "evaluator" not in dataloader:
        return {}
    evaluator = _Value(key, dataloader, "evaluator").read()
    if OmegaConf.is_list(evaluator):
        return {f"{key}.{i}": node for i, node in enumerate(evaluator)}
    return {} if evaluator is None else {key: evaluator}


def evaluated_names(dataloader: DictConfig) -> Iterator[tuple[str, str]]:
    """(key, data set's name) of each evaluator for which a name is written.

    Args:
        dataloader: of a checked config.
    """
    for key, node in _evaluators(dataloader).items():
        if not isinstance(node, DictConfig) or "dataset_name" not in node:
            continue
        is_reference = OmegaConf.is_interpolation(node, "dataset_name")
        if not is_reference and isinstance(node.dataset_name, str):
            yield f"{key}.dataset_name", node.dataset_name


def _check_evaluators(dataloader: DictConfig) -> None:
    for path, node in _evaluators(dataloader).items():
        if not isinstance(node, DictConfig) or _is_group(node):
            raise UserError(no_call(path, node))
        if not _target_module(node).startswith("iou_balanced.evaluation"):
            continue
        for name, rule in OF_EVALUATORS.items():
            if name in node:
                _check_written(_Value(f"{path}.{name}", node, name), rule)


def _check_written(value: _Value, rule: Rule) -> None:
    """`_check`, but what a reference refers to is looked at where it is written."""
    if not OmegaConf.is_interpolation(value.node, value.name):
        _check(value, rule)


def _check(value: _Value, rule: Rule) -> None:
    found = value.read()
    if is_own(found) or (OmegaConf.is_list(found) and any(map(is_own, found))):
        return
    if not rule.allows(found):
        raise UserError(f"{value.key}={shown(found)}: give {rule.text}")


def _is_group(value) -> bool:
    return isinstance(value, DictConfig) and "_target_" not in value


def _is_ours(node: DictConfig) -> bool:
    """Whether the call is of Detectron2 or of this package, whose arguments are known."""
    target = node.get("_target_")
    module = target if isinstance(target, str) else getattr(target, "__module__", None)
    return str(module).startswith(_OURS)


def _target_name(node: DictConfig) -> str:
    target = node.get("_target_", "")
    return str(getattr(target, "__name__", target)).rpartition(".")[-1]


def _target_module(node: DictConfig) -> str:
    target = node._target_
    return target if isinstance(target, str) else str(getattr(target, "__module__", ""))
