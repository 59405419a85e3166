"""Cityscapes at MMDetection's scales: short edge 800 to 1024 in training, full size in testing.

Images are 2048 x 1024, so with a long edge of at most 2048 the short edge alone sets the scale.
"""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.data import register_cityscapes
from iou_balanced.evaluation import COCOBoxEvaluator

# $DETECTRON2_DATASETS/cityscapes, or datasets.train.root=... datasets.test.root=...
datasets = OmegaConf.create(
    dict(train=L(register_cityscapes)(split="train"), test=L(register_cityscapes)(split="val")),
    flags={"allow_objects": True},
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "${datasets.train}"
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=(800, 1024), max_size=2048, sample_style="range"),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.train.total_batch_size = 8
dataloader.test.dataset.names = "${datasets.test}"
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=2048)
]
dataloader.evaluator = L(COCOBoxEvaluator)(dataset_name="${..test.dataset.names}")
