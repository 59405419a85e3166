"""ssd512_iou_balanced on test-dev (Table 1).

--eval-only writes the file for the COCO server.
"""

from .ssd512_iou_balanced import dataloader, datasets, lr_multiplier, model, optimizer, train

datasets.test = "coco_2017_test-dev"
dataloader.evaluator.result_file = "detections_test-dev2017_ssd512_results.json"
train.output_dir = "./output/ssd512_iou_balanced_test_dev"
train.best_checkpoint.metric = None  # there are no annotations
