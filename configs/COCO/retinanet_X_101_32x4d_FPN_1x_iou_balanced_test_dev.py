"""retinanet_X_101_32x4d_FPN_1x_iou_balanced on test-dev (Table 1).

--eval-only writes the file for the COCO server.
"""

from ..common.data.coco_test_dev import dataloader, datasets
from .retinanet_X_101_32x4d_FPN_1x_iou_balanced import lr_multiplier, model, optimizer, train

dataloader.train.mapper.image_format = "RGB"
train.output_dir = "./output/retinanet_X_101_32x4d_FPN_1x_iou_balanced_test_dev"
train.best_checkpoint.metric = None  # there are no annotations
