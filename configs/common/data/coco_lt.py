"""COCO-LT, long-tailed COCO train2017, tested on COCO val2017; image sizes as in coco.py."""

from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.data import register_coco_lt

from .coco import dataloader

# $DETECTRON2_DATASETS/coco, or datasets.train.root=... datasets.test.root=...; another drawing:
# datasets.train.seed=1
datasets = OmegaConf.create(
    dict(train=L(register_coco_lt)(split="train"), test=L(register_coco_lt)(split="val")),
    flags={"allow_objects": True},
)
