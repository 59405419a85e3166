"""The detector of a LazyConfig."""

import copy
import os
from collections.abc import Sequence

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from iou_balanced.backbones import register_weights_handler
from iou_balanced.engine import UserError, apply_overrides, load_config
from iou_balanced.engine.checkpoint import load_trained
from iou_balanced.engine.checks import check_canvas, check_device, instantiate_model
from iou_balanced.engine.class_names import class_names_of, names_in
from iou_balanced.engine.lazy_class_names import data_set_names, default_class_names
from iou_balanced.engine.logit_adjustment import adjust_for_evaluation

from .detector import Detector, fitting, plain
from .input_images import InputImages


def load_lazy(
    config: str | DictConfig, weights: str, device: str, overrides: Sequence[str]
) -> Detector:
    """See `load_detector`."""
    cfg = read_lazy(config, overrides)
    check_device(torch.device(device), "device=")
    register_weights_handler()
    images = lazy_images(cfg)
    model = instantiate_model(cfg).to(device).eval()
    extra = load_trained(model, weights, key="weights=")
    names = fitting(names_in(extra) or _names_of_data_sets(cfg), model)
    adjust_for_evaluation(cfg, model, [os.path.dirname(weights), cfg.train.output_dir], names)
    return Detector(model, images, names, torch.device(device), model)


def read_lazy(config: str | DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config with the overrides; a loaded one is not modified."""
    if isinstance(config, str):
        return load_config(config, plain(overrides))
    return apply_overrides(copy.deepcopy(config), plain(overrides))


def lazy_images(cfg: DictConfig) -> InputImages:
    """The config's test mapper, with the pixel_range of its test set.

    Raises:
        UserError: the config has no test mapper, or puts images on another canvas than the model's.
    """
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    if mapper is None:
        raise UserError(
            "the config has no dataloader.test.mapper, which says how images are put into the "
            "model: give it one, as of Detectron2's common/data/coco.py"
        )
    check_canvas(cfg)
    data_set = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    is_call = isinstance(data_set, DictConfig)
    return InputImages(instantiate(mapper), data_set.get("pixel_range") if is_call else None)


def _names_of_data_sets(cfg: DictConfig) -> list[str] | None:
    """Of a file without names: the training set's or else the test set's, if they are here."""
    names = default_class_names(cfg)
    if names is not None:
        return names
    try:
        found = [class_names_of(name) for name in data_set_names(cfg, "test")]
    except Exception:  # a call of anybody's that does not find its files
        return None
    return found[0] if found else None
