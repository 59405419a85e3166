"""Loading of weights that never ends in a silent random start."""

import logging
from collections.abc import Sequence

from detectron2.layers import FrozenBatchNorm2d
from omegaconf import DictConfig, OmegaConf
from torch import nn

from iou_balanced.backbones.timm_backbone import PREFIX as TIMM_PREFIX
from iou_balanced.formats.class_names import list_names

from .class_mapping import INIT_CLASSES, ClassMapping, loaded_by_position
from .class_names import (
    KEY,
    ModelClasses,
    check_resumed,
    initial_mapping,
    names_in,
    on_every_process,
)
from .config import all_keys
from .durable import DurableCheckpointer
from .errors import UserError
from .lazy_class_names import WEIGHTS_KEY, init_classes_of
from .resumed_state import check_weights, same_optimizer
from .safe_loading import SafeLoading

logger = logging.getLogger(__name__)


class Checkpointer(DurableCheckpointer, SafeLoading):
    """`DurableCheckpointer`, which loads data only, knows the classes, and what did not match.

    With `classes`, their names are saved with every file, and what is loaded is compared with them:
    a resume needs the same classes in the same order; else the rows of a classifier are given to
    the classes of the same names, see `ClassMapping`. Files of Detectron2's own checkpointer have
    no names: they are loaded as it does, and the log says so. In Detectron2's own checkpointer the
    files load too.

    Args:
        model, save_dir, save_to_disk, checkpointables: see `DurableCheckpointer`.
        classes: of the model; None, or without names, compares nothing.
        init_classes: what overrides the names in a file that is not resumed; see
            `initial_mapping`.

    Raises:
        UserError: by `load`: the classes of the file are others; or a resume finds another model or
            optimizer in it.
    """

    incompatible = None
    # Words for messages: the key of the initial weights, what names the classes of these, and what
    # loads them as they are.
    weights_key = WEIGHTS_KEY
    how_to_name = f"; {INIT_CLASSES} names them"
    way_out = f"{INIT_CLASSES}=False"

    def __init__(
        self,
        model,
        save_dir="",
        *,
        classes: ModelClasses | None = None,
        init_classes: Sequence[str] | bool | None = None,
        save_to_disk=None,
        **checkpointables,
    ):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.classes = classes or ModelClasses(None, "")
        self.init_classes = init_classes
        self._path, self._resumes = "", False

    def save(self, name, **kwargs):
        if self.classes.names is not None:
            kwargs[KEY] = list(self.classes.names)
        super().save(name, **kwargs)

    def load(self, path, checkpointables=None):
        # Weights alone, without the optimizer and the like, are loaded for a new run.
        self._path, self._resumes = path, checkpointables is None
        optimizer = getattr(self.checkpointables.get("trainer"), "optimizer", None)
        if not self._resumes or optimizer is None:
            return super().load(path, checkpointables)
        with same_optimizer(optimizer, self._of_another()):
            return super().load(path)

    def _load_model(self, checkpoint):
        mapping = None
        if self.classes.names is not None:
            with on_every_process():
                mapping = self._compare(names_in(checkpoint))
        if mapping is not None:
            checkpoint["model"] = mapping.apply(self.model, checkpoint["model"])
        self.incompatible = super()._load_model(checkpoint)
        # The weights of a ResNet from timm are under two names, of which a model uses one.
        unused = self.incompatible.unexpected_keys
        unused[:] = [name for name in unused if not name.startswith(f"{TIMM_PREFIX}.")]
        if self._resumes and self.checkpointables:
            weights = _weight_names(self.model, "", running_stats=True)
            check_weights(self.unmatched(), weights, self._of_another())
        if self.classes.names is not None and mapping is None and names_in(checkpoint) is None:
            self._warn_of_order()
        return self.incompatible

    def _compare(self, found: list[str] | None) -> ClassMapping | None:
        if self._resumes:
            check_resumed(found, self.classes, self._path, self.weights_key)
            return None
        return initial_mapping(
            found, self.classes, self.init_classes, file=self._path, way_out=self.way_out
        )

    def _of_another(self) -> str:
        return (
            f"{self._path} is of another model or optimizer (a new run, with {self.weights_key}="
            f"{self._path} and another output folder, takes the weights that fit)"
        )

    def _warn_of_order(self) -> None:
        """Of a file without names, which may have numbered the classes otherwise."""
        num_classes = len(self.classes.names)
        if self.init_classes is False or not loaded_by_position(
            self.model, num_classes, self.unmatched()
        ):
            return
        logger.warning(
            "%s does not name the classes of its classifier: they are taken to be those of %s, in "
            "the same order%s",
            self._path,
            self.classes.of,
            "" if self._resumes else self.how_to_name,
        )

    def unmatched(self) -> set[str]:
        """Names of the model's parameters that the last file lacked, or had in another shape."""
        if self.incompatible is None:
            return set()
        shapes = {name for name, _, _ in self.incompatible.incorrect_shapes}
        return set(self.incompatible.missing_keys) | shapes


def load_initial_weights(checkpointer: Checkpointer, cfg: DictConfig) -> None:
    """Load train.init_checkpoint into the model, and nothing but the model.

    The rows of the classes in it, by the names in the file or train.init_classes, go to those of
    the same name here.

    Raises:
        UserError: the file cannot be had or does not fit the backbone, the training set's classes
            or train.init_classes; or there is none, and the model has frozen layers that would keep
            random values.
    """
    path = cfg.train.init_checkpoint
    model = checkpointer.model
    if not path:
        _check_scratch(model, cfg)
        logger.info("train.init_checkpoint is empty: training from scratch")
        return
    checkpointer.unsafe = bool(cfg.train.unsafe_load)
    checkpointer.init_classes = init_classes_of(cfg)
    if checkpointer.init_classes and checkpointer.classes.names is None:
        raise UserError(
            f"{INIT_CLASSES} needs the names of the training set's classes, but "
            "dataloader.train.dataset.names is no data set with known classes"
        )
    scratch = f", or train from scratch: {_scratch_overrides(cfg)}"
    _load(checkpointer, path, "train.init_checkpoint=", scratch)
    backbone = getattr(getattr(model, "module", model), "backbone", None)
    bottom_up = hasattr(
        backbone, "bottom_up"
    )  # ImageNet weights have no FPN, which starts at random
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
        What else the file holds, for example "iteration" and "class_names".

    Raises:
        UserError: there is no such file, or it does not fit the model.
    """
    path = cfg.train.init_checkpoint
    if not path:
        raise UserError(
            "--eval-only evaluates a trained model: give train.init_checkpoint=FILE, for example "
            f"{cfg.train.output_dir}/model_final.pth"
        )
    unsafe = bool(cfg.train.unsafe_load)
    return load_trained(model, path, key="train.init_checkpoint=", unsafe=unsafe)


def load_trained(model: nn.Module, path: str, *, key: str, unsafe: bool = False) -> dict:
    """Load a file in which every parameter of the model has to be.

    Args:
        model: gets the weights.
        path: of a checkpoint, or an address that Detectron2 knows.
        key: what names the file, for messages.
        unsafe: whether code in the file may run; see `SafeLoading`.

    Returns:
        What else the file holds, for example "iteration" and "class_names".

    Raises:
        UserError: there is no such file, it does not fit the model, or holds more than weights.
    """
    checkpointer = Checkpointer(model)
    checkpointer.unsafe = unsafe
    extra = _load(checkpointer, path, key)
    names = _weight_names(model, "", running_stats=True)
    missing = sorted(checkpointer.unmatched() & names)
    if missing:
        classes = names_in(extra)
        known = "" if classes is None else f" Its {len(classes)} are {list_names(classes)}."
        raise UserError(
            f"{key}{path} lacks {len(missing)} of the model's {len(names)} parameters (or has them "
            f"in another shape), first {missing[0]}: its detections would be those of a partly "
            "random model. Is it a checkpoint of this config, with this number of classes?"
            f"{known}"
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


def _load(checkpointer: Checkpointer, path: str, key: str, way_out: str = "") -> dict:
    try:
        return checkpointer.load(path, checkpointables=[])
    except UserError:
        raise
    except Exception as e:  # each path handler and file format fails in a way of its own
        raise UserError(
            f"{key}{path} cannot be had ({type(e).__name__}: {e}). Give another file{way_out}"
        ) from e


def _check_scratch(model: nn.Module, cfg: DictConfig) -> None:
    frozen_bn = sum(isinstance(m, FrozenBatchNorm2d) for m in model.modules())
    # Parameters that no map in use depends on (see `TimmBackbone`) may keep any values.
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
