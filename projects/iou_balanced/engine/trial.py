"""An iteration and a detection with a made-up image: what a config's numbers do when they meet."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.structures import BoxMode
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from .checks import instantiate_model, instantiate_optimizer
from .class_balance import class_balances
from .trainer import Trainer

__all__ = ["try_out"]

_SIZE = 128  # pixels
_BOXES = ((8, 8, 56, 56), (40, 48, 120, 112))  # XYXY


def try_out(cfg: DictConfig, *, eval_only: bool = False) -> None:
    """Do once what a run does all the time, on the CPU, in float32 and in this process alone.

    Mappers, model, losses and optimizer are the config's; the image is not of its data sets.

    Args:
        cfg: a LazyConfig whose objects can be built; changed.
        eval_only: only detect.

    Raises:
        Exception: whatever the run would end with.
    """
    with _image() as image, mock.patch.object(dist, "is_initialized", return_value=False):
        seed_all_rng(0)
        model = instantiate_model(cfg)
        if not eval_only:
            _train(cfg, model, image)
        model.eval()
        with torch.no_grad():
            model([_mapped(cfg, "test", image)])


@contextlib.contextmanager
def _image() -> Iterator[dict]:
    """A dict of Detectron2's, of an image in a file with two objects of the first class."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.png")
        pixels = np.random.RandomState(0).randint(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        yield {
            "file_name": str(file),
            "image_id": 1,
            "height": _SIZE,
            "width": _SIZE,
            "annotations": [_annotation(*box) for box in _BOXES],
        }


def _annotation(x0: int, y0: int, x1: int, y1: int) -> dict:
    return {
        "bbox": [x0, y0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "iscrowd": 0,
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
    }


def _mapped(cfg: DictConfig, split: str, image: dict) -> dict:
    mapper = OmegaConf.select(cfg, f"dataloader.{split}.mapper")
    return image if mapper is None else instantiate(mapper)(image)


def _train(cfg: DictConfig, model: nn.Module, image: dict) -> None:
    for module in class_balances(model).values():
        if module.class_counts is None and module.image_counts is None:
            ones = [1] * module.num_classes
            module.set_class_counts(ones, ones, [str(i) for i in range(module.num_classes)])
        module.set_iteration(0, cfg.train.max_iter)
    cfg.optimizer.params.model = model
    trainer = Trainer(
        model,
        [[_mapped(cfg, "train", image)]],
        instantiate_optimizer(cfg.optimizer),
        clip_max_norm=cfg.train.clip_grad.max_norm,
        clip_norm_type=cfg.train.clip_grad.norm_type,
    )
    trainer.iter = 0
    model.train()
    with EventStorage() as trainer.storage:
        trainer.run_step()
