"""COCO 2017 as the paper trains on it: images of [800, 1333], no scale jitter, random flip."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.evaluation import COCOBoxEvaluator

# A data set's name, or a call of one of iou_balanced.data's register functions:
# datasets.train._target_=iou_balanced.data.register_coco_json datasets.train.json_file=...
datasets = OmegaConf.create(dict(train="coco_2017_train", test="coco_2017_val"))

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "${datasets.train}"
dataloader.train.mapper.use_instance_mask = False
# Detectron2's own jitters the short edge between 640 and 800.
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.test.dataset.names = "${datasets.test}"
dataloader.evaluator = L(COCOBoxEvaluator)(dataset_name="${..test.dataset.names}")
