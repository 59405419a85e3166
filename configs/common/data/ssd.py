"""SSD's augmentations, as in MMDetection 3.3, and its images of a fixed size."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from iou_balanced.data import (
    BoxAwareDatasetMapper,
    MinIoURandomCrop,
    PhotometricDistortion,
    RandomExpand,
)


def set_ssd_images(dataloader, size):
    """Let a data loader give RGB images of `size` x `size` pixels, in place."""
    train, test = dataloader.train, dataloader.test
    train.mapper._target_ = BoxAwareDatasetMapper
    train.mapper.image_format = "RGB"
    train.mapper.augmentations = [
        L(RandomExpand)(max_ratio=4.0, prob=0.5, fill=(123.0, 117.0, 104.0)),  # RGB
        L(MinIoURandomCrop)(min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
        L(T.Resize)(shape=(size, size)),
        L(T.RandomFlip)(horizontal=True),
        L(PhotometricDistortion)(
            brightness_delta=32,
            contrast_range=(0.5, 1.5),
            saturation_range=(0.5, 1.5),
            hue_delta=18,
            image_format="RGB",
        ),
    ]
    test.mapper.augmentations = [L(T.Resize)(shape=(size, size))]
    train.aspect_ratio_grouping = False  # all images have the same shape
    train.total_batch_size = 64
