"""PASCAL VOC as the paper trains on it: 07+12 trainval, 07 test, at [600, 1000], random flip."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.data import register_voc
from iou_balanced.evaluation import VOCDetectionEvaluator

# The folders VOC2007 and VOC2012, or VOCdevkit with both in it, are below $DETECTRON2_DATASETS.
# Difficult objects are not trained on, as in MMDetection; datasets.train.difficult=keep does.
datasets = OmegaConf.create(
    dict(
        train=L(register_voc)(years=[2007, 2012], split="trainval", difficult="drop"),
        test=L(register_voc)(years=[2007], split="test"),
    ),
    flags={"allow_objects": True},
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "${datasets.train}"
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=600, max_size=1000),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.test.dataset.names = "${datasets.test}"
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=600, max_size=1000)
]
# Table 5 is of the 11-point metric, which VOC2007 was evaluated with.
dataloader.evaluator = L(VOCDetectionEvaluator)(
    dataset_name="${..test.dataset.names}", metric="11point"
)
