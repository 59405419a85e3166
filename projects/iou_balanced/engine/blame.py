"""Which override of the command line a failure to build a config comes from."""

import functools
import logging
from collections.abc import Callable

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from iou_balanced.formats.image_files import ImageError

from .checks import instantiate_model, instantiate_optimizer
from .config import load_config, overridden_keys
from .errors import UserError
from .node_options import check_nodes
from .options import shown


def naming_overrides(main: Callable) -> Callable:
    """Decorate a `main(args)`: what fails because of an override becomes one line that names it.

    Arguments of Detectron2 and torch are not checked by these, or fail with words that name no key.
    Where `main` fails, the config is built again, on no device, without one override after the
    other. The one without which it can be built, or fails in another way, is to blame. An error
    that no override brought about is left alone, with its traceback.

    Args:
        main: takes what Detectron2's `default_argument_parser` gives.
    """

    @functools.wraps(main)
    def wrapped(args):
        try:
            return main(args)
        except Exception as e:
            error = _better_error(e, args)
            if error is None:
                raise
            raise error from e

    return wrapped


def _better_error(e: Exception, args) -> UserError | None:
    if isinstance(e.__cause__, ImageError):  # the config was good enough to read the data
        return None
    try:
        if isinstance(e, UserError) and any(key in str(e) for key in overridden_keys(args.opts)):
            return None
        return blamed(args.config_file, list(args.opts or []), eval_only=args.eval_only)
    except UserError:  # the overrides cannot even be read, which `e` says
        return None


def blamed(config_file: str, overrides: list[str], *, eval_only: bool = False) -> UserError | None:
    """The error that names the override because of which the config cannot be built.

    Args:
        config_file: see `load_config`.
        overrides: likewise.
        eval_only: looks at what an evaluation needs.

    Returns:
        None where it can be built, or where no override alone is to blame.
    """
    failure = _failure(config_file, overrides, eval_only)
    if failure is None:
        return None
    for override in overrides:
        rest = [x for x in overrides if x is not override]
        try:
            without = _failure(config_file, rest, eval_only)
        except UserError:  # the others need it, as those of a _target_ do
            continue
        if _text(without) != _text(failure):
            key, _, value = override.lstrip("+~").partition("=")
            if isinstance(failure, UserError):
                reason = str(failure)
                if key in reason:
                    return failure
            else:
                reason = f"nothing can be built with it ({_text(failure)})"
            return UserError(f"{key}={shown(value)}: {reason}")
    return None


def _text(error: Exception | None) -> str | None:
    if error is None:
        return None
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")[:300]


def _failure(config_file: str, overrides: list[str], eval_only: bool) -> Exception | None:
    """What building the config raises, on no device; None where nothing is."""
    cfg = load_config(config_file, overrides)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a second time the messages would be noise
    try:
        _build(cfg, eval_only)
    except Exception as e:
        return e
    finally:
        logging.disable(level)
    return None


def _build(cfg: DictConfig, eval_only: bool) -> None:
    # The data sets are left aside: without an override, another would have to be made or read.
    check_nodes(cfg)
    with torch.device("meta"):
        model = instantiate_model(cfg)
    for split in ("test",) if eval_only else ("train", "test"):
        node = OmegaConf.select(cfg, f"dataloader.{split}.mapper")
        if node is not None:
            instantiate(node)
    if not eval_only:
        cfg.optimizer.params.model = model
        instantiate_optimizer(cfg.optimizer)
        instantiate(cfg.lr_multiplier)
