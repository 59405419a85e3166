"""COCO-LT, long-tailed COCO train2017, tested on COCO val2017; image sizes as in coco.py."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.data import register_coco_lt
from iou_balanced.evaluation import COCOBoxEvaluator

# $DETECTRON2_DATASETS/coco, or datasets.train.root=... datasets.test.root=...; another drawing:
# datasets.train.seed=1
datasets = OmegaConf.create(
    dict(train=L(register_coco_lt)(split="train"), test=L(register_coco_lt)(split="val")),
    flags={"allow_objects": True},
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "${datasets.train}"
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.test.dataset.names = "${datasets.test}"
dataloader.evaluator = L(COCOBoxEvaluator)(dataset_name="${..test.dataset.names}")
