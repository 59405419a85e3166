"""Keys that a config leaves to its user: their value is "???", omegaconf's word for missing."""

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from .errors import UserError

_OF_TRAINING = ("datasets.train.", "dataloader.train.", "optimizer.", "lr_multiplier.")


def check_missing(cfg: DictConfig, *, eval_only: bool = False, below: str = "") -> None:
    """Refuse a config whose user has not said all that it asks for.

    Args:
        cfg: a LazyConfig.
        eval_only: leaves aside what only a training needs; but for a root of the test set that is
            the training set's.
        below: looks at keys that begin so only.

    Raises:
        UserError: a key has no value; names all of them.
    """
    missing = sorted(_missing_keys(OmegaConf.to_container(cfg, resolve=False)))
    missing = [key for key in missing if key.startswith(below)]
    if eval_only:
        missing = [key for key in missing if not key.startswith(_OF_TRAINING)]
        missing += _test_keys_without_value(cfg)
    if missing:
        given = " ".join(f"{key}=..." for key in missing)
        verb = "has no value" if len(missing) == 1 else "have no values"
        raise UserError(
            f"{' and '.join(missing)} {verb}: the config leaves it to you; give {given}"
        )


def leave_out_missing(cfg: DictConfig) -> None:
    """Make None of what has no value and an evaluation does not need: "???" cannot be saved.

    Args:
        cfg: a LazyConfig that `check_missing` has let pass; changed in place.
    """
    for key in _missing_keys(OmegaConf.to_container(cfg, resolve=False)):
        OmegaConf.update(cfg, key, None)


def _test_keys_without_value(cfg: DictConfig) -> list[str]:
    """Those of datasets.test that refer to a key of the training set without a value."""
    node = OmegaConf.select(cfg, "datasets.test")
    if not OmegaConf.is_dict(node):
        return []
    return [f"datasets.test.{key}" for key in node if _is_unresolved(node, key)]


def _is_unresolved(node: DictConfig, key: str) -> bool:
    try:
        node[key]
    except InterpolationToMissingValueError:
        return True
    except OmegaConfBaseException:  # said elsewhere, or never asked for
        return False
    return False


def _missing_keys(node, prefix: str = "") -> list[str]:
    """Dotted keys of all leaves "???"; omegaconf's own `missing_keys` stops at interpolations."""
    if isinstance(node, (dict, list)):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return [found for k, v in items for found in _missing_keys(v, f"{prefix}{k}.")]
    return [prefix[:-1]] if isinstance(node, str) and node == "???" else []
