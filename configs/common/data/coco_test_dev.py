"""COCO 2017 test-dev: no annotations; evaluation writes a file for the server instead."""

from .coco import dataloader, datasets

datasets.test = "coco_2017_test-dev"
