"""COCO 2017 test-dev: no annotations; evaluation writes a file for the server instead."""

from .coco import dataloader, datasets

datasets.test = "coco_2017_test-dev"
# The form of name that the server takes; the part after 2017 is free.
dataloader.evaluator.result_file = "detections_test-dev2017_retinanet_results.json"
