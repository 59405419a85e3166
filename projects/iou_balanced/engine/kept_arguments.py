"""What a loss that was swapped on the command line keeps of the config's arguments."""

import inspect
import logging

from omegaconf import DictConfig, OmegaConf

from .config import overridden_keys
from .options import shown
from .targets import locate_target

logger = logging.getLogger(__name__)


def kept_arguments(cfg: DictConfig, overrides: list[str]) -> dict[str, object]:
    """Key -> value of what stayed of a loss that `..._loss._target_=...` replaced.

    What is the new loss's own default anyway is left aside, and so are other calls than losses.

    Args:
        cfg: with the overrides.
        overrides: of the command line.
    """
    given, kept = overridden_keys(overrides), {}
    for path in (key.removesuffix("._target_") for key in given if key.endswith("._target_")):
        node = OmegaConf.select(cfg, path)
        if not path.endswith("loss") or not isinstance(node, DictConfig):
            continue
        try:
            parameters = inspect.signature(locate_target(node._target_)).parameters
        except (TypeError, ValueError):
            continue
        for name in node:
            key = f"{path}.{name}"
            is_default = name in parameters and parameters[name].default == node[name]
            is_given = key in given or f"{key}._target_" in given
            is_given |= name == "num_classes"  # the model's, which is no loss's own
            if name != "_target_" and not is_given and not is_default:
                kept[key] = node[name]
    return kept


def warn_of_kept_arguments(cfg: DictConfig, overrides: list[str]) -> None:
    """Say in one line what `kept_arguments` finds: w_loc, above all, is one loss's own.

    Args:
        cfg: with the overrides.
        overrides: of the command line.
    """
    kept = kept_arguments(cfg, overrides)
    if kept:
        logger.warning(
            "Of the losses that _target_ replaces, these arguments are still the config's: %s. "
            "Give each on the command line where the new loss needs another",
            " ".join(f"{key}={shown(value)}" for key, value in kept.items()),
        )
