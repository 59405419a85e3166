"""Loading of weights that never ends in a silent random start."""

import logging

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import FrozenBatchNorm2d
from omegaconf import DictConfig, OmegaConf
from torch import nn

from iou_balanced.backbones.timm_backbone import PREFIX as TIMM_PREFIX

from .class_mapping import class_mapping_of
from .config import all_keys
from .errors import UserError

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's, which remembers what it could not match in `incompatible`."""

    incompatible = None
    class_mapping = None  # applied to what is loaded while it is set

    def _load_model(self, checkpoint):
        if self.class_mapping is not None:
            checkpoint["model"] = self.class_mapping.apply(self.model, checkpoint["model"])
        self.incompatible = super()._load_model(checkpoint)
        # The weights of a ResNet from timm are under two names, of which a model uses one.
        unused = self.incompatible.unexpected_keys
        unused[:] = [name for name in unused if not name.startswith(f"{TIMM_PREFIX}.")]
        return self.incompatible

    def unmatched(self) -> set[str]:
        """Names of the model's parameters that the last file lacked, or had in another shape."""
        if self.incompatible is None:
            return set()
        shapes = {name for name, _, _ in self.incompatible.incorrect_shapes}
        return set(self.incompatible.missing_keys) | shapes


def load_initial_weights(checkpointer: Checkpointer, cfg: DictConfig) -> None:
    """Load train.init_checkpoint into the model, and nothing but the model.

    With train.init_classes the rows of the classes in it go to those of the same name here.

    Raises:
        UserError: the file cannot be had or does not fit the backbone or train.init_classes; or
            there is none, and the model has frozen layers that would keep random values.
    """
    path = cfg.train.init_checkpoint
    model = checkpointer.model
    if not path:
        _check_scratch(model, cfg)
        logger.info("train.init_checkpoint is empty: training from scratch")
        return
    checkpointer.class_mapping = class_mapping_of(cfg)
    try:
        _load(checkpointer, cfg)
    finally:
        checkpointer.class_mapping = None  # a resumed run has its own classifier
    backbone = getattr(getattr(model, "module", model), "backbone", None)
    bottom_up = hasattr(backbone, "bottom_up")  # an FPN on top is new in ImageNet weights
    backbone = backbone.bottom_up if bottom_up else backbone
    if backbone is None or cfg.train.allow_random_backbone:
        return
    names = _weight_names(backbone, "backbone.bottom_up." if bottom_up else "backbone.")
    missing = sorted(checkpointer.unmatched() & names)
    if missing:
        raise UserError(
            f"train.init_checkpoint={path} lacks {len(missing)} of the backbone's {len(names)} "
            f"parameters (or has them in another shape), first {missing[0]}: these would start at "
            "random. Give the weights of this backbone; train.allow_random_backbone=True if it is "
            f"meant; or train from scratch: {_scratch_overrides(cfg)}"
        )


def load_for_evaluation(model: nn.Module, cfg: DictConfig) -> dict:
    """Load train.init_checkpoint, in which every parameter has to be.

    Returns:
        What else the file holds, for example "iteration".

    Raises:
        UserError: there is no such file, or it does not fit the model.
    """
    path = cfg.train.init_checkpoint
    if not path:
        raise UserError(
            "--eval-only evaluates a trained model: give train.init_checkpoint=FILE, for example "
            f"{cfg.train.output_dir}/model_final.pth"
        )
    checkpointer = Checkpointer(model)
    extra = _load(checkpointer, cfg, or_scratch=False)
    names = _weight_names(model, "", running_stats=True)
    missing = sorted(checkpointer.unmatched() & names)
    if missing:
        raise UserError(
            f"train.init_checkpoint={path} lacks {len(missing)} of the model's {len(names)} "
            f"parameters (or has them in another shape), first {missing[0]}: its metrics would be "
            "those of a partly random model. Is it a checkpoint of this config, with this number "
            "of classes?"
        )
    return extra


def _weight_names(module: nn.Module, prefix: str, *, running_stats: bool = False) -> set[str]:
    """What a module computes with: its parameters, and the buffers of its frozen BatchNorm.

    Detectron2 fills in a frozen layer's statistics where an old file has them in the weights;
    such are not missing. Those of a trainable layer count with `running_stats` only: old ImageNet
    weights lack them, and training finds them.
    """
    kinds = (FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm)[: 2 if running_stats else 1]
    names = {f"{prefix}{name}" for name, _ in module.named_parameters()}
    for name, child in module.named_modules(prefix=prefix.rstrip(".")):
        if isinstance(child, kinds):
            buffers = {buffer for buffer, _ in child.named_buffers()}
            names |= {f"{name}.{buffer}" for buffer in buffers - {"num_batches_tracked"}}
    return names


def _load(checkpointer: Checkpointer, cfg: DictConfig, *, or_scratch: bool = True) -> dict:
    path = cfg.train.init_checkpoint
    try:
        return checkpointer.load(path, checkpointables=[])
    except UserError:
        raise
    except Exception as e:  # each path handler and file format fails in a way of its own
        raise UserError(
            f"the weights train.init_checkpoint={path} cannot be had ({type(e).__name__}: {e}). "
            "Give another file"
            + (f", or train from scratch: {_scratch_overrides(cfg)}" if or_scratch else "")
        ) from e


def _check_scratch(model: nn.Module, cfg: DictConfig) -> None:
    frozen_bn = sum(isinstance(m, FrozenBatchNorm2d) for m in model.modules())
    # Those that nothing is computed with may keep any values (`TimmBackbone`).
    unused = {
        f"{name}.{key}" if name else key
        for name, m in model.named_modules()
        for key in getattr(m, "unused_parameters", ())
    }
    frozen = sum(not p.requires_grad and name not in unused for name, p in model.named_parameters())
    if frozen_bn or frozen:
        raise UserError(
            f"train.init_checkpoint is empty, but {frozen_bn} BatchNorm layers and {frozen} "
            "parameters of the model are frozen and would keep random values. Give weights, or "
            f"train from scratch: {_scratch_overrides(cfg)}"
        )


def _scratch_overrides(cfg: DictConfig) -> str:
    """The overrides that make this config trainable from random weights."""
    found = ["train.init_checkpoint=''"]
    for key in all_keys(cfg.model):
        value = OmegaConf.select(cfg.model, key)
        if value == "FrozenBN":
            found.append(f"model.{key}=BN")
        elif key.rsplit(".", 1)[-1] == "freeze_at" and value > 0:
            found.append(f"model.{key}=0")
    return " ".join(found)
