"""A VOC folder of one's own: `datasets.{train,test}.root` and `.split` say which.

RGB images with a shorter side of 288 px (at most 480 px the longer one), for small detectors.
Another size: `dataloader.image_size.short=320 dataloader.image_size.max=512`.
"""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.data import register_voc_dir
from iou_balanced.evaluation import COCOBoxEvaluator

datasets = OmegaConf.create(
    dict(
        # By default one folder has both.
        train=L(register_voc_dir)(root="???", split="train"),
        test=L(register_voc_dir)(root="${..train.root}", split="val"),
    ),
    flags={"allow_objects": True},
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.image_size = dict(short=288, max=480)
_resize = dict(
    short_edge_length="${dataloader.image_size.short}", max_size="${dataloader.image_size.max}"
)
dataloader.train.dataset.names = "${datasets.train}"
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(**_resize),
    L(T.RandomFlip)(horizontal=True),
    L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2),
]
dataloader.test.dataset.names = "${datasets.test}"
dataloader.test.mapper.augmentations = [L(T.ResizeShortestEdge)(**_resize)]
for _split in (dataloader.train, dataloader.test):
    _split.mapper.image_format = "RGB"
    _split.num_workers = 2
dataloader.train.total_batch_size = 8
dataloader.evaluator = L(COCOBoxEvaluator)(dataset_name="${..test.dataset.names}")
