"""The built-in data set of handwritten digits in scenes; made when it is first used."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from iou_balanced.data import register_digits
from iou_balanced.evaluation import COCOBoxEvaluator

datasets = OmegaConf.create(
    dict(
        train=L(register_digits)(split="train", num_images=2400, image_size=128),
        test=L(register_digits)(split="val", num_images=400, image_size=128),
    ),
    flags={"allow_objects": True},
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "${datasets.train}"
dataloader.train.mapper.use_instance_mask = False
# No flip: a mirrored digit is another one, or none. Scenes are used at their own size.
dataloader.train.mapper.augmentations = [
    L(T.RandomBrightness)(intensity_min=0.8, intensity_max=1.2)
]
dataloader.train.aspect_ratio_grouping = False
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.test.dataset.names = "${datasets.test}"
dataloader.test.mapper.augmentations = []
dataloader.evaluator = L(COCOBoxEvaluator)(dataset_name="${..test.dataset.names}")
