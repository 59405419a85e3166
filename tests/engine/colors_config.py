"""LazyConfig of the detector of colors; the data sets come by overrides."""

import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import LinearParamScheduler
from omegaconf import OmegaConf

from iou_balanced.evaluation import VOCDetectionEvaluator
from tests.engine.colors import Colors

datasets = OmegaConf.create({"train": "", "test": ""}, flags={"allow_objects": True})
model = L(Colors)(num_classes=3)


def mapper(is_train):
    return L(DatasetMapper)(is_train=is_train, augmentations=[], image_format="RGB")


dataloader = OmegaConf.create(flags={"allow_objects": True})
dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="${datasets.train}"),
    mapper=mapper(True),
    total_batch_size=6,
    num_workers=0,
    aspect_ratio_grouping=False,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="${datasets.test}", filter_empty=False),
    mapper=mapper(False),
    num_workers=0,
)
dataloader.evaluator = L(VOCDetectionEvaluator)(dataset_name="${..test.dataset.names}")
optimizer = L(torch.optim.SGD)(params=L(get_default_optimizer_params)(), lr=5.0)
lr_multiplier = L(LinearParamScheduler)(start_value=1.0, end_value=1.0)
train = dict(
    device="cpu",
    max_iter=20,
    eval_period=10,
    log_period=10,
    seed=0,
    checkpointer=dict(period=10),
    best_checkpoint=dict(metric="bbox/AP"),
    report=False,
)
