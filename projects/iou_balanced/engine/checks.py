"""What a LazyConfig is looked at for before anything is built."""

import logging
import os
import tempfile
from collections.abc import Sequence

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf

from iou_balanced.backbones import timm_images_warning
from iou_balanced.losses.fused.backends import of_environment

from .class_balance import class_balances, lazy_config_key
from .errors import UserError, is_from
from .lazy_class_names import check_classes, data_set_names, training_classes
from .levels import check_levels
from .missing import check_missing
from .node_options import argument_of, check_nodes, evaluated_names
from .options import check_options, check_training_nodes

logger = logging.getLogger(__name__)


def check_config(cfg: DictConfig, *, eval_only: bool = False) -> None:
    """Refuse what would fail later and less clearly.

    Args:
        cfg: a LazyConfig.
        eval_only: leaves the training set aside, which need not be on this machine, and the
            classes, which are the checkpoint's.

    Raises:
        UserError: a key without a value; a value, or an environment variable, that makes no
            sense; no such device; a batch that
            the processes or micro-batches cannot share; test images that are not on the model's
            canvas; images of other channels than the model's; a data set that is not there; a
            training set whose classes are not as many as the model's; or a test set with others
            than it.
    """
    check_missing(cfg, eval_only=eval_only)
    _check_environment()
    check_options(cfg)  # once more: it may have been changed since it was loaded
    check_nodes(cfg)
    if not eval_only:
        check_training_nodes(cfg)
        if cfg.train.logit_adjustment is not None:
            raise UserError(
                "train.logit_adjustment is for a trained model: give it with --eval-only, or to "
                "tools/predict.py"
            )
    check_device(torch.device(cfg.train.device))
    _check_batch_size(cfg)
    check_canvas(cfg)
    splits = ("test",) if eval_only else ("train", "test")
    _check_image_formats(cfg, splits)
    for split in splits:
        for name in data_set_names(cfg, split):
            _check_data_set(name)
    for key, name in evaluated_names(cfg.dataloader):
        if name not in DatasetCatalog:
            raise UserError(
                f"{key}={name}: there is no data set of this name; ${{..test.dataset.names}} is "
                "the one that dataloader.test reads"
            )
    if not eval_only:
        check_classes(cfg, training_classes(cfg))


def _check_environment() -> None:
    try:
        of_environment()
    except ValueError as e:
        raise UserError(str(e)) from e


def check_output_dir(folder: str) -> None:
    """Make the folder, and refuse one that cannot be written to.

    Raises:
        UserError: it is a file, below one, or not writable.
    """
    try:
        PathManager.mkdirs(folder)
        if "://" not in folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as e:
        raise UserError(
            f"train.output_dir={folder} is no folder that can be written to "
            f"({e.strerror or e}): give another"
        ) from e


def check_device(device: torch.device, key: str = "train.device=") -> None:
    """Refuse a GPU that this machine does not show.

    Args:
        device: any; a CPU always passes.
        key: what sets the device, for the message.

    Raises:
        UserError: there is no such device.
    """
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError(
            f"{key}{device}, but no CUDA device is visible: give {key}cpu, or run "
            "python -m iou_balanced.doctor"
        )
    if (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"{key}{device}, but this machine shows {torch.cuda.device_count()} GPUs, "
            "counted from 0"
        )


def _check_batch_size(cfg: DictConfig) -> None:
    if "train" not in cfg.dataloader:
        return
    total, processes = cfg.dataloader.train.get("total_batch_size"), comm.get_world_size()
    if total and total % processes:
        raise UserError(
            f"dataloader.train.total_batch_size={total} cannot be shared by {processes} processes"
        )
    steps = cfg.train.accumulation_steps
    if steps > 1 and not total:
        raise UserError(
            f"train.accumulation_steps={steps} divides dataloader.train.total_batch_size, which "
            "this config does not have"
        )
    if total and total % (processes * steps):
        among = f"{processes} processes with " if processes > 1 else ""
        raise UserError(
            f"dataloader.train.total_batch_size={total} cannot be shared by {among}"
            f"{steps} micro-batches{' each' if among else ''} (train.accumulation_steps): it has "
            f"to be a multiple of {processes * steps}"
        )


def _check_data_set(name: str) -> None:
    if name not in DatasetCatalog:
        raise UserError(
            f"there is no data set {name!r}: give a name of Detectron2's, or a call of one of "
            "iou_balanced.data's register functions (datasets.train._target_=...)"
        )
    metadata = MetadataCatalog.get(name)
    for key in ("json_file", "image_root"):  # of COCO and what is stored like it
        path = metadata.get(key)
        if path is not None and "://" not in str(path) and not os.path.exists(path):
            hint = ""
            if name.startswith("coco_2017"):
                hint = (
                    " COCO 2017 (train2017.zip, val2017.zip, annotations_trainval2017.zip; for "
                    "test-dev test2017.zip and image_info_test2017.zip) is at "
                    "https://cocodataset.org/#download and belongs below the folder coco in "
                    "$DETECTRON2_DATASETS (default: datasets)."
                )
            raise UserError(f"data set {name}: {os.path.abspath(path)} does not exist.{hint}")


def check_canvas(cfg: DictConfig) -> None:
    """Check that the test images are put on the canvas that the model knows.

    Raises:
        UserError: they are not, so that detections would come back at other places.
    """
    mapper = OmegaConf.select(cfg.dataloader, "test.mapper")
    augmentations = mapper.get("augmentations") if isinstance(mapper, DictConfig) else None
    if "canvas" not in cfg.model or not OmegaConf.is_list(augmentations):
        return  # a mapper of the user's own
    canvas = cfg.model.canvas
    if canvas is None:
        if any(x is None for x in augmentations):
            raise UserError(
                "model.canvas=null, and dataloader.test.mapper.augmentations has it: give the "
                "augmentations of images that are only scaled, or none, "
                "dataloader.test.mapper.augmentations=[]"
            )
    elif list(augmentations)[-1:] != [canvas]:
        raise UserError(
            "dataloader.test.mapper.augmentations has to end with ${model.canvas}, because the "
            "model takes its detections back from this canvas to the image; model.canvas=null is "
            "for images that are only scaled"
        )


def _check_image_formats(cfg: DictConfig, splits: Sequence[str]) -> None:
    """Refuse a mapper that reads other channels than those that the model is said to take.

    Predictions are made with images of the model's.

    Raises:
        UserError: it does.
    """
    expected = cfg.model.get("input_format")
    for split in splits:
        key = f"dataloader.{split}.mapper.image_format"
        found = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        if isinstance(found, str) and isinstance(expected, str) and found != expected:
            raise UserError(f"{key}={found}: give {expected}, as model.input_format")


def warn_of_other_images(cfg: DictConfig) -> None:
    """Say so where a model starts from timm's weights, and its images are others."""
    scheme, _, name = str(cfg.train.init_checkpoint).partition("://")
    if scheme != "timm":
        return
    keys = ("input_format", "pixel_mean", "pixel_std")
    values = {key: cfg.model.get(key) for key in keys}
    if any(x is None for x in values.values()):
        return
    text = timm_images_warning(
        name,
        keys=tuple(f"model.{key}" for key in keys),
        **values,
    )
    if text is not None:
        logger.warning("%s", text)


def check_accumulation(cfg: DictConfig, model: torch.nn.Module) -> None:
    """Refuse class weights that would need what the later micro-batches have not shown yet.

    Raises:
        UserError: they count the locations of several images, and the model samples these as it
            goes through them.
    """
    if cfg.train.accumulation_steps == 1 or hasattr(model, "count_positives"):
        return
    for name, module in class_balances(model).items():
        try:
            module.batch_statistics([], None)
        except ValueError as e:
            raise UserError(f"{lazy_config_key(name)}: {e}") from e


def instantiate_model(cfg: DictConfig) -> torch.nn.Module:
    """`instantiate(cfg.model)`, whose errors about arguments name the key at fault.

    Raises:
        UserError: a constructor of ours refuses an argument, or levels do not fit the backbone's.
    """  # noqa: DOC501
    try:
        model = instantiate(cfg.model)
    except ValueError as e:
        if isinstance(e, UserError) or not is_from("iou_balanced", e):
            raise
        key = _key_of(e, cfg.model, "model")
        raise UserError(f"{argument_of(e, OmegaConf.select(cfg, key), key)}: {e}") from e
    check_levels(model)
    return model


def instantiate_optimizer(node: DictConfig) -> torch.optim.Optimizer:
    """`instantiate(cfg.optimizer)`, with the model in it.

    Raises:
        UserError: torch refuses an argument.
    """  # noqa: DOC501
    try:
        return instantiate(node)
    except ValueError as e:
        if not is_from("torch.optim", e):
            raise
        raise UserError(f"optimizer: {e}") from e


def _key_of(error: ValueError, node, key: str) -> str:
    """The innermost call below `node` that fails in the same way."""
    names = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for name in names:
        if OmegaConf.is_interpolation(node, name):
            continue
        child = node[name]
        if not OmegaConf.is_config(child):
            continue
        if not isinstance(child, DictConfig) or "_target_" not in child:
            found = _key_of(error, child, f"{key}.{name}")
            if found != f"{key}.{name}":
                return found
            continue
        try:
            instantiate(child)
        except ValueError as e:
            if str(e) == str(error):
                return _key_of(error, child, f"{key}.{name}")
        except Exception:  # it may need what its parent gives it
            continue
    return key
