"""Which override of the command line a failure of a run comes from."""

import functools
import logging
import traceback
from collections.abc import Callable

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from iou_balanced.formats.image_files import ImageError

from .checks import instantiate_model, instantiate_optimizer
from .config import load_config, overridden_keys
from .errors import UserError
from .missing import check_missing
from .node_options import check_nodes
from .options import shown
from .tracebacks import log_to_files
from .trial import try_out

logger = logging.getLogger(__name__)


def naming_overrides(main: Callable) -> Callable:
    """Decorate a `main(args)`: what fails because of an override becomes one line that names it.

    Arguments of Detectron2 and torch are not checked by these, or fail with words that name no key,
    some only when the model meets an image. Where `main` fails, the config is built again, on no
    device, and then an iteration tried out on the CPU, without one override after the other. The
    one without which it goes well, or fails in another way, is to blame. An error that no override
    brought about is left alone, with its traceback; that of another is in the log file.

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
            log_to_files(logger, f"What the error is from: {error}", e)
            raise error from e

    return wrapped


def _better_error(e: Exception, args) -> UserError | None:
    is_of_image = isinstance(e.__cause__, ImageError)  # the config was good enough to read the data
    what = (args.config_file, list(args.opts or []))
    try:
        if isinstance(e, UserError) and any(key in str(e) for key in overridden_keys(args.opts)):
            return None
        error = None if is_of_image else blamed(*what, eval_only=args.eval_only)
        if error is None and (is_of_image or not isinstance(e, UserError)):
            error = blamed_for(e, *what, eval_only=args.eval_only)
        return error
    except UserError:  # the overrides cannot even be read, which `e` says
        return None


def blamed(config_file: str, overrides: list[str], *, eval_only: bool = False) -> UserError | None:
    """The error that names the override because of which the config cannot be built.

    Args:
        config_file: see `load_config`.
        overrides: likewise.
        eval_only: looks at what an evaluation needs.

    Returns:
        None where it can be built, or not without any override either.
    """
    failing = functools.partial(_failure, config_file, step=_build, eval_only=eval_only)
    failure = failing(overrides)
    override = failure and _cause(failure, overrides, failing)
    if override is None:
        return None
    if not isinstance(failure, UserError):
        return _error(override, f"nothing can be built with it ({_text(failure)})")
    is_named = override.lstrip("+~").partition("=")[0] in str(failure)
    return failure if is_named else _error(override, str(failure))


def blamed_for(
    e: Exception, config_file: str, overrides: list[str], *, eval_only: bool = False
) -> UserError | None:
    """The error that names the override because of which a run has failed.

    An iteration and a detection are tried out with a made-up image. Where that fails in the same
    way as the run did, it is tried without one override after the other.

    Args:
        e: what the run ended with.
        config_file: see `load_config`.
        overrides: likewise.
        eval_only: tries a detection only.

    Returns:
        None where the cause is none of them: it does not fail, in another way, or without any
        override too.
    """
    failing = functools.partial(_failure, config_file, step=try_out, eval_only=eval_only)
    failure = failing(overrides)
    if failure is None or not _is_alike(failure, e):
        return None
    inside = [x for x in overrides if not x.lstrip("+~").startswith(_OUTSIDE)]
    override = _cause(failure, overrides, failing, inside)
    if isinstance(e, UserError):
        reason = str(e)
    else:  # a worker's has its traceback in its text
        reason = _text(e if _place(e) == _place(failure) else failure)
    return override and _error(override, f"the run failed because of it ({reason})")


# What an iteration that is tried out does without.
_OUTSIDE = ("train.", "datasets.", "lr_multiplier.", "dataloader.evaluator")


def _error(override: str, reason: str) -> UserError:
    key, _, value = override.lstrip("+~").partition("=")
    return UserError(f"{key}={shown(value)}: {reason}")


def _cause(
    failure: Exception,
    overrides: list[str],
    failing: Callable[[list[str]], Exception | None],
    suspects: list[str] | None = None,
) -> str | None:
    """The first override without which, and without those before it, it fails in another way."""
    rest, untried = list(overrides), list(overrides if suspects is None else suspects)
    while untried:
        needed = []
        for override in untried:
            fewer = [x for x in rest if x is not override]
            try:
                without = failing(fewer)
            except UserError:  # the others need it, as those of a _target_ do
                needed.append(override)
                continue
            if _text(without) != _text(failure):
                return override
            rest = fewer
        if len(needed) == len(untried):
            return None
        untried = needed  # what needed them may be gone now
    return None


def _is_alike(failure: Exception, e: Exception) -> bool:
    """Whether both were raised at one place; or `e` tells of the other, as those of data do."""
    if type(failure) is type(e) and _place(failure) == _place(e):
        return True
    return f"{type(failure).__name__}: {failure}" in str(e)


def _place(e: Exception) -> tuple[str, int]:
    frame = traceback.extract_tb(e.__traceback__)[-1]
    return frame.filename, frame.lineno


def _text(error: Exception | None) -> str | None:
    if error is None:
        return None
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")[:300]


def _failure(
    config_file: str, overrides: list[str], *, step: Callable, eval_only: bool
) -> Exception | None:
    """What `step` raises with the config; None where nothing is.

    Raises:
        UserError: the overrides cannot be read, or leave a key without the value that it needs.
    """
    cfg = load_config(config_file, overrides)
    check_missing(cfg, eval_only=eval_only)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a second time the messages would be noise
    try:
        step(cfg, eval_only=eval_only)
    except Exception as e:
        return e
    finally:
        logging.disable(level)
    return None


def _build(cfg: DictConfig, *, eval_only: bool) -> None:
    """Make the objects of a config, on no device."""
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
