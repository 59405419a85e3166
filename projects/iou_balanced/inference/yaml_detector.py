"""The detector of a yaml (yacs) config."""

from collections.abc import Sequence

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from iou_balanced.backbones import register_weights_handler
from iou_balanced.engine import UserError
from iou_balanced.engine.checkpoint import load_trained
from iou_balanced.engine.checks import check_device
from iou_balanced.engine.class_names import class_names_of, names_in
from iou_balanced.engine.yaml_loader import mapper_of
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

from .detector import Detector, fitting, plain
from .input_images import InputImages


def load_yaml(
    config: str | CfgNode, weights: str, device: str, overrides: Sequence[str]
) -> Detector:
    """See `load_detector`.

    Raises:
        UserError: the config or the weights cannot be used; says why.
    """
    cfg = read_yaml(config, overrides)
    check_device(torch.device(device), "device=")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, weights
    cfg.freeze()
    register_weights_handler()
    images = yaml_images(cfg)
    try:
        model = build_model(cfg).eval()
    except KeyError as e:
        raise UserError(
            f"MODEL.META_ARCHITECTURE={cfg.MODEL.META_ARCHITECTURE} or a part of it is not "
            f"registered ({e}): import the module that has it"
        ) from e
    extra = load_trained(model, weights, key="weights=")
    known = [class_names_of(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)]
    candidates = [names_in(extra), *known]
    names = next((x for x in candidates if fitting(x, model)), None)
    return Detector(model, images, names, torch.device(device), model)


def read_yaml(config: str | CfgNode, overrides: Sequence[str]) -> CfgNode:
    """The config with the overrides, not frozen; a loaded one is not modified."""
    cfg = _read(config) if isinstance(config, str) else config.clone()
    cfg.defrost()
    _override(cfg, plain(overrides))
    return cfg


def yaml_images(cfg: CfgNode) -> InputImages:
    """The test mapper of `BalancedDefaultTrainer`."""
    return InputImages(mapper_of(cfg, is_train=False))


def _read(config_file: str) -> CfgNode:
    cfg = get_cfg()
    for add_keys in (add_iou_balanced_config, add_class_balance_config, add_centernet_config):
        add_keys(cfg)
    try:
        cfg.merge_from_file(config_file)
    except KeyError as e:
        raise UserError(
            f"config file {config_file} has a key that is neither Detectron2's nor ours: "
            f"{e.args[0]}. A config of another project can be given loaded, to "
            "iou_balanced.Predictor"
        ) from e
    except (ValueError, AssertionError, yaml.YAMLError, OSError) as e:
        raise UserError(f"config file {config_file}: {' '.join(str(e).split())}") from e
    return cfg


def _override(cfg: CfgNode, overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or override.startswith("--"):
            raise UserError(f"cannot read the override {override!r}: it has to be KEY=VALUE")
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, AssertionError) as e:
            raise UserError(f"unknown key {key}: {e.args[0] if e.args else e}") from e
        except ValueError as e:
            raise UserError(f"{override}: {e}") from e
