"""The detector of a LazyConfig."""

import copy
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

from .detector import Detector, fitting, plain
from .input_images import InputImages


def load_lazy(
    config: str | DictConfig, weights: str, device: str, overrides: Sequence[str]
) -> Detector:
    """See `load_detector`."""
    if isinstance(config, str):
        cfg = load_config(config, plain(overrides))
    else:
        cfg = apply_overrides(copy.deepcopy(config), plain(overrides))
    mapper = OmegaConf.select(cfg, "dataloader.test.mapper")
    if mapper is None:
        raise UserError(
            "the config has no dataloader.test.mapper, which says how images are put into the "
            "model: give it one, as of Detectron2's common/data/coco.py"
        )
    check_device(torch.device(device), "device=")
    check_canvas(cfg)
    register_weights_handler()
    images = InputImages(instantiate(mapper))
    model = instantiate_model(cfg).to(device).eval()
    extra = load_trained(model, weights, key="weights=")
    names = names_in(extra) or _names_of_data_sets(cfg)
    return Detector(model, images, fitting(names, model), torch.device(device), model)


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
