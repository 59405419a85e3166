"""A small data set and a yaml config for the tests of `BalancedDefaultTrainer`."""

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from PIL import Image

from iou_balanced.engine import BalancedDefaultTrainer
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

NAME = "yaml_trainer_photos"
# Box and class of the objects in four images of 48 x 96 (height x width), one without any: 6, 2
# and 1 of the classes. Eq. 5: alpha = 9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1) = 0.5, 1.5, 3.
BOX = [12, 6, 36, 30]
OBJECTS = [[0, 0, 1], [0, 0, 0], [], [0, 1, 2]]
YAML = """
MODEL:
  META_ARCHITECTURE: CenterNet
  BACKBONE: {NAME: build_centernet_backbone}
  DEVICE: cpu
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  CENTERNET: {NUM_CLASSES: 3, BACKBONE: mobilenetv2_050, CROP_SIZE: [64, 64], FIT_SIZE: [64, 64]}
  CLASS_BALANCE: {NAME: BalanceOriented, ETA: 1, SCHEDULE: linear, TOTAL_EPOCHS: 4,
                  DEFERRED_EPOCHS: 0}
  IOU_BALANCED: {LOC_WEIGHT: 1.0, LOC_NORMALIZE: True}
INPUT: {FORMAT: RGB}
DATASETS: {TRAIN: [yaml_trainer_photos], TEST: [yaml_trainer_photos]}
TEST: {REPORT: False}
DATALOADER: {NUM_WORKERS: 0, FILTER_EMPTY_ANNOTATIONS: False}
SOLVER: {OPTIMIZER: ADAM, BASE_LR: 0.0005, WEIGHT_DECAY_NORM: 0.0001, IMS_PER_BATCH: 2, MAX_ITER: 4,
         CHECKPOINT_PERIOD: 2}
"""


@pytest.fixture
def photos(tmp_path):
    """Registers the data set; counts how often it is read."""
    records, reads = [], []
    for i, classes in enumerate(OBJECTS):
        file = tmp_path / f"{i}.png"
        pixels = np.random.RandomState(i).randint(0, 256, (48, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        objects = [
            {"bbox": BOX, "bbox_mode": BoxMode.XYXY_ABS, "category_id": k, "iscrowd": 0}
            for k in classes
        ]
        # A crowd is not counted.
        objects += [{**o, "iscrowd": 1} for o in objects[-1:]]
        records.append(
            {"file_name": str(file), "image_id": i, "height": 48, "width": 96}
            | {"annotations": objects}
        )

    def read():
        reads.append(len(records))
        return records

    DatasetCatalog.register(NAME, read)
    MetadataCatalog.get(NAME).set(thing_classes=["cat", "dog", "emu"])
    yield records, reads
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture
def yaml_config(photos, tmp_path):
    cfg = get_cfg()
    for add_config in (add_centernet_config, add_class_balance_config, add_iou_balanced_config):
        add_config(cfg)
    cfg.merge_from_other_cfg(CfgNode.load_cfg(YAML))
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


class Watch(HookBase):
    """Records the class weights of each iteration; ends the training after `stop` of them."""

    def __init__(self, stop=None):
        self.stop, self.weights = stop, {}

    def after_step(self):
        weights = self.trainer.model.class_balance.weights_in_force.own
        assert weights.shape == (2, 3) and torch.equal(weights[0], weights[1])
        self.weights[self.trainer.iter] = weights[0].tolist()
        if self.trainer.iter + 1 == self.stop:
            raise InterruptedError


def train(cfg, *, resume=False, stop=None):
    trainer = BalancedDefaultTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    watch = Watch(stop)
    trainer.register_hooks([watch])
    if stop is None:
        trainer.train()
    else:
        with pytest.raises(InterruptedError):
            trainer.train()
    return trainer, watch.weights
