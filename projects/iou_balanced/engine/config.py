"""Loading of a LazyConfig with the command line's overrides, checked key by key."""

import difflib
import inspect
import math
from pathlib import Path

import yaml
from detectron2.config import LazyConfig
from detectron2.engine import hooks
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from torch.nn.parallel import DistributedDataParallel

from iou_balanced.config_files import get_config_file

from .errors import UserError
from .options import check_options, no_call, train_defaults
from .replaced_calls import taken_over
from .targets import accepts, locate_target, nearest_target, requires

# Nodes without a _target_ whose keys are arguments of these.
_OPEN_NODES = {
    "train.ddp": (DistributedDataParallel,),
    "train.checkpointer": (hooks.PeriodicCheckpointer,),
}


def load_config(config_file: str, overrides: list[str]) -> DictConfig:
    """Load a LazyConfig and apply `key=value` overrides; see `apply_overrides`.

    Args:
        config_file: a path or address, or the name of a published config as `get_config_file`
            takes it.
        overrides: of the command line.

    Raises:
        UserError: the file is missing or is no LazyConfig, an override is wrong, or a value makes
            no sense (see `options.check_options`).
    """
    if not config_file:
        raise UserError("--config-file is missing: give a LazyConfig, for example one of configs/")
    cfg = _read(_find(config_file))
    missing = [key for key in ("model", "dataloader", "train") if key not in cfg]
    if missing:
        raise UserError(
            f"{config_file} has no {' and no '.join(missing)}: a config for training has model, "
            "dataloader, optimizer, lr_multiplier and train"
        )
    if isinstance(cfg.train, DictConfig):
        cfg.train = OmegaConf.merge(OmegaConf.create(train_defaults()), cfg.train)
    apply_overrides(cfg, overrides)
    if isinstance(cfg.train, DictConfig):
        if cfg.train.seed is None:
            cfg.train.seed = -1  # Detectron2's word for no seed
        if cfg.train.init_checkpoint is None:
            cfg.train.init_checkpoint = ""
    check_options(cfg)
    return cfg


def _find(config_file: str) -> str:
    if "://" in config_file or Path(config_file).exists():
        return config_file
    try:
        return get_config_file(config_file)
    except FileNotFoundError:
        return config_file


def _read(config_file: str) -> DictConfig:
    try:
        cfg = LazyConfig.load(config_file)
    except FileNotFoundError as e:
        raise UserError(f"config file {e.filename or config_file} does not exist") from e
    except (OSError, UnicodeError) as e:
        raise UserError(f"config file {config_file} cannot be read: {e}") from e
    except SyntaxError as e:  # Detectron2's names the file, and its cause the line
        place = e.__cause__ if isinstance(e.__cause__, SyntaxError) else e
        named = str(e).removeprefix("Config file ").removesuffix(" has syntax error!")
        file = named if place is not e else e.filename
        line = (place.text or "").strip()
        raise UserError(f"config file {file}, line {place.lineno}: {place.msg}: {line}") from e
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise UserError(f"config file {config_file}{where}: {getattr(e, 'problem', e)}") from e
    except OmegaConfBaseException as e:
        if config_file.endswith(".py"):
            raise UserError(f"config file {config_file}: {' '.join(str(e).split())}") from e
        cfg = None  # yaml with a single value
    except ValueError as e:
        if "has to be a python or yaml file" not in str(e):
            raise
        raise UserError(f"config file {config_file} is neither .py nor .yaml") from e
    if not isinstance(cfg, DictConfig) or not len(cfg):
        raise UserError(f"config file {config_file} holds no keys: it is no LazyConfig")
    return cfg


def overridden_keys(overrides: list[str]) -> set[str]:
    """The keys that the command line gives a value."""
    return {override.key_or_group for override in _parse(overrides)}


def apply_overrides(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Apply hydra's `key=value` overrides to a LazyConfig in place.

    Unlike Detectron2's, a key has to exist, or to be an argument that the `_target_` it belongs
    to accepts; `+key=value` adds any key. `a._target_=...` turns the value `a` into a call, so
    that a data set's name can be replaced by one of `iou_balanced.data`'s register functions.

    Args:
        cfg: a LazyConfig; changed in place.
        overrides: of the command line.

    Raises:
        UserError: an override does not parse, or its key is unknown; names the nearest key.
    """
    for override in sorted(_parse(overrides), key=_turn):
        key = override.key_or_group
        if override.is_delete():
            raise UserError(f"~{key}: keys cannot be deleted on the command line")
        if override.is_sweep_override():
            raise UserError(f"{key}: several values; put quotes around a comma: '{key}=\"a,b\"'")
        if key.endswith("._target_"):
            _set_target(cfg, key.removesuffix("._target_"), override.value())
            continue
        if not (override.is_add() or override.is_force_add()):
            _check_key(cfg, key)
            _check_value(cfg, key, override.value())
        else:
            _check_new_key(cfg, key)
        try:
            OmegaConf.update(cfg, key, override.value(), merge=True, force_add=True)
        except OmegaConfBaseException as e:
            raise UserError(f"{key}={override.value()}: {e.msg or e}".splitlines()[0]) from e
    return cfg


def _turn(override) -> float:
    """Targets first, the outer before the inner: they decide which other keys are known."""
    key = override.key_or_group
    return key.count(".") if key.endswith("._target_") else math.inf


def _parse(overrides: list[str]) -> list:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parsed = []
    for override in overrides or []:
        if override.startswith("--"):
            raise UserError(f"{override}: flags go before the key=value overrides")
        if "=" not in override:
            raise UserError(f"cannot read the override {override!r}: it has to be key=value")
        try:
            parsed.append(OverridesParser.create().parse_override(override))
        except HydraException as e:
            key, _, value = override.partition("=")
            raise UserError(
                f"cannot read the override {override!r}; where the value has spaces, brackets or "
                f"an equals sign, put it into quotes within quotes: '{key}=\"{value}\"'"
            ) from e
    return parsed


def _check_value(cfg: DictConfig, key: str, value) -> None:
    """A group of keys is no place for a number, nor is a call; a word may name what is called.

    Raises:
        UserError: the value does not go where the key is.
    """
    node = _select(cfg, key)
    if isinstance(node, DictConfig) and "_target_" in node and isinstance(value, (int, float)):
        raise UserError(no_call(key, value))
    plain = not isinstance(value, (dict, list)) and value is not None
    if plain and isinstance(node, DictConfig) and "_target_" not in node:
        raise UserError(f"{key}={value}: {key} has keys of its own: {', '.join(map(str, node))}")


def _set_target(cfg: DictConfig, path: str, target: str) -> None:
    if _select(cfg, path) is None:
        _check_key(cfg, path)
    if locate_target(target) is None:
        raise UserError(
            f"{path}._target_={target}: there is no such function or class{nearest_target(target)}"
        )
    node = _select(cfg, path)
    kept = {}
    if isinstance(node, DictConfig):
        kept = {k: _as_written(node, k) for k in node if k != "_target_" and accepts(target, k)}
        kept = taken_over(node, locate_target(node.get("_target_")), locate_target(target), kept)
    if "num_classes" not in kept and requires(target, "num_classes"):
        outer = _select(cfg, path.rpartition(".")[0])
        # By the keys: the number may be one that has yet to be given.
        if isinstance(outer, DictConfig) and "num_classes" in outer.keys():  # noqa: SIM118
            kept["num_classes"] = "${..num_classes}"
    call = DictConfig({**kept, "_target_": target}, flags={"allow_objects": True})
    OmegaConf.update(cfg, path, call, merge=False, force_add=True)


def _as_written(node: DictConfig, key: str):
    """The value, or the reference: what it refers to may yet be changed by another override."""
    return node._get_node(key)._value() if OmegaConf.is_interpolation(node, key) else node[key]


def _select(cfg: DictConfig, key: str):
    """What stands there; None also for a value that the user has yet to give."""
    try:
        return OmegaConf.select(cfg, key, throw_on_missing=False)
    except InterpolationToMissingValueError:
        return None


def _check_key(cfg: DictConfig, key: str) -> None:
    parts = key.split(".")
    for i, part in enumerate(parts):
        path = ".".join(parts[:i])
        node = OmegaConf.select(cfg, path) if path else cfg
        if isinstance(node, DictConfig) and part in node:
            if i < len(parts) - 1 and OmegaConf.is_interpolation(node, part):
                origin = str(node._get_node(part)._value())
                raise UserError(f"{path}.{part} is {origin}: override it there, not as {key}")
            continue
        if OmegaConf.is_list(node) and part.isdigit() and int(part) < len(node):
            continue
        if isinstance(node, DictConfig) and i == len(parts) - 1 and _may_be_added(node, path, part):
            return
        if isinstance(node, DictConfig) and _is_argument(node, part):
            raise UserError(f"unknown key {key}: {_lacks_call(path, part)}")
        if not OmegaConf.is_config(node):
            raise UserError(
                f"unknown key {key}: {path} is the value {node!r}; to make it a call, give "
                f"{path}._target_=..."
            )
        hint = _nearest(cfg, key, node, path)
        raise UserError(f"unknown key {key}: {path or 'the config'} has no {part!r}{hint}")


def _check_new_key(cfg: DictConfig, key: str) -> None:
    # A new group of keys cannot stand for an argument that has to be a call.
    *parts, _ = key.split(".")
    for i, part in enumerate(parts):
        path = ".".join(parts[:i])
        node = OmegaConf.select(cfg, path) if path else cfg
        if not isinstance(node, DictConfig):
            return
        if node.get(part) is None and _is_argument(node, part):
            raise UserError(f"+{key}: {_lacks_call(path, part)}")


def _is_argument(node: DictConfig, name: str) -> bool:
    target = locate_target(node.get("_target_"))
    try:
        return target is not None and name in inspect.signature(target).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False


def _lacks_call(path: str, name: str) -> str:
    hint = "; the configs whose names end with _bofl have one" if name == "class_balance" else ""
    return f"this config has no {path}.{name}: {path}.{name}._target_=... gives it one{hint}"


def _may_be_added(node: DictConfig, path: str, name: str) -> bool:
    if "_target_" in node:
        return accepts(node._target_, name)
    return any(accepts(target, name) for target in _OPEN_NODES.get(path, ()))


def _nearest(cfg: DictConfig, key: str, node, path: str) -> str:
    keys = list(all_keys(cfg))
    if isinstance(node, DictConfig) and "_target_" in node:
        target = locate_target(node._target_)
        keys += [f"{path}.{name}" for name in inspect.signature(target).parameters]
    # First among the keys beside the mistake, then among all.
    below = [k for k in keys if path and k.startswith(f"{path}.")]
    found = difflib.get_close_matches(key, below, n=1, cutoff=0.8)
    found = found or difflib.get_close_matches(key, keys, n=1, cutoff=0.8)
    if not found:  # a key without its path, for example lr for optimizer.lr
        tails = {k.rsplit(".", 1)[-1]: k for k in reversed(keys)}
        tail = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(tails), n=1, cutoff=0.6)
        found = [tails[t] for t in tail]
    return f"; did you mean {found[0]}?" if found else "; +key=value adds a key that is not there"


def all_keys(node, prefix: str = ""):
    """Every dotted key of a config, not following interpolations."""
    items = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for name in items:
        path = f"{prefix}.{name}" if prefix else str(name)
        yield path
        if OmegaConf.is_interpolation(node, name):
            continue
        child = node._get_node(name)
        if OmegaConf.is_config(child):
            yield from all_keys(child, path)
