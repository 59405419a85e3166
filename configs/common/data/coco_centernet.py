"""COCO 2017 as CenterNet trains on it: RGB images, cropped at random to 512 x 512.

For models with a `canvas`, which is what the test loader puts images on.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from iou_balanced.data import ColorJitter, RandomCenterScale

from .coco import dataloader, datasets

# Section 5 of arXiv 1904.07850 and its authors' code. Detectron2's own mapper drops the boxes that
# lie outside of the crop, and crowds (some 10,000 of the 860,000), which the authors train on as on
# single objects.
dataloader.train.mapper.augmentations = [
    L(RandomCenterScale)(
        size=(512, 512), scales=(0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3), border=128
    ),
    L(T.RandomFlip)(horizontal=True),
    L(ColorJitter)(brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1, image_format="RGB"),
]
dataloader.test.mapper.augmentations = ["${model.canvas}"]
for _split in (dataloader.train, dataloader.test):
    _split.mapper.image_format = "RGB"
# The authors train on images without boxes too.
dataloader.train.dataset.filter_empty = False
dataloader.train.aspect_ratio_grouping = False  # all images have the same shape
dataloader.train.total_batch_size = 128
