"""foveabox_R_50_FPN_1x_iou_balanced on test-dev (Table 1).

--eval-only writes the file for the COCO server.
"""

from ..common.data.coco_test_dev import dataloader, datasets
from .foveabox_R_50_FPN_1x_iou_balanced import lr_multiplier, model, optimizer, train

dataloader.evaluator.result_file = "detections_test-dev2017_foveabox_results.json"
train.output_dir = "./output/foveabox_R_50_FPN_1x_iou_balanced_test_dev"
train.best_checkpoint.metric = None  # there are no annotations
