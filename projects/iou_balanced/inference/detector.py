"""A trained detector with all that is needed to run it on an image, from a config of any kind."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from omegaconf import DictConfig, OmegaConf
from torch import nn

from iou_balanced.engine import UserError

from .input_images import InputImages


class Detector(NamedTuple):
    """What `iou_balanced.Predictor` runs."""

    run: Callable[[list[dict]], list[dict]]
    """From inputs of one size, as `InputImages` makes them, to Detectron2's outputs."""
    images: InputImages
    class_names: list[str] | None
    """In the order of the model's outputs; None where nothing says them."""
    device: torch.device
    model: nn.Module | None = None
    """In eval mode; None for an exported one."""


def load_detector(
    config: str | os.PathLike | DictConfig | CfgNode,
    weights: str | os.PathLike,
    *,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> Detector:
    """Build the model of a config, load its weights, and take its test mapper.

    Args:
        config: a LazyConfig (.py, or the .yaml that a training saves) or a yacs config, as a file,
            as a name in Detectron2's model zoo, or loaded. A loaded one is not modified.
        weights: a checkpoint in which every parameter has to be.
        device: by default the first GPU, or the CPU where there is none.
        overrides: `key=value`, as of tools/train_net.py; of a yacs config with its keys.

    Raises:
        UserError: a file is missing or does not fit; names it.
    """
    from .lazy_detector import load_lazy
    from .yaml_detector import load_yaml

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not str(weights):
        raise UserError("weights are missing: give the checkpoint of a trained model")
    if isinstance(config, DictConfig):
        return load_lazy(config, str(weights), device, overrides)
    if isinstance(config, CfgNode):
        return load_yaml(config, str(weights), device, overrides)
    file = find_config(config)
    load = load_yaml if is_yacs(file) else load_lazy
    return load(file, str(weights), device, overrides)


def load_images(config, overrides: Sequence[str] = ()) -> InputImages:
    """The test mapper of a config alone; see `load_detector`."""
    from .lazy_detector import lazy_images, read_lazy
    from .yaml_detector import read_yaml, yaml_images

    if isinstance(config, (str, os.PathLike)):
        config = find_config(config)
    if isinstance(config, CfgNode) or (isinstance(config, str) and is_yacs(config)):
        return yaml_images(read_yaml(config, overrides))
    return lazy_images(read_lazy(config, overrides))


def find_config(config: str | os.PathLike) -> str:
    """The path of a config file, which may be a name in Detectron2's model zoo.

    Raises:
        UserError: there is none.
    """
    if os.path.isfile(config):
        return str(config)
    try:
        return model_zoo.get_config_file(str(config))
    except RuntimeError as e:
        raise UserError(
            f"config file {config} does not exist, and Detectron2's model zoo has none of this name"
        ) from e


def is_yacs(file: str) -> bool:
    """Whether a file is a yacs config, with keys such as MODEL, and no LazyConfig."""
    if Path(file).suffix not in (".yaml", ".yml"):
        return False
    text = Path(file).read_text("utf-8", errors="replace")
    return not re.search(r"^(model|dataloader|train):", text, flags=re.MULTILINE)


def num_classes_of(model: nn.Module) -> int | None:
    """Of a dense detector or an R-CNN; None where it is not known."""
    return getattr(getattr(model, "roi_heads", model), "num_classes", None)


def fitting(names: Sequence[str] | None, model: nn.Module) -> list[str] | None:
    """The names, if they are as many as the model's outputs."""
    if names is None or num_classes_of(model) not in (None, len(names)):
        return None
    return list(names)


def plain(overrides: Sequence[str]) -> list[str]:
    """The overrides as a list of texts, whatever they came in."""
    if OmegaConf.is_config(overrides):
        overrides = OmegaConf.to_container(overrides)
    return [str(x) for x in overrides]
