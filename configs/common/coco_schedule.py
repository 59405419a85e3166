"""The 12-epoch ("1x") schedule of the paper's detectors on COCO train2017."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

# 117,266 images of train2017 have a box; a batch of 16 makes an epoch of 7,330 iterations.
epoch = 7330
max_iter = 12 * epoch  # 87,960

# Learning rate times 0.1 after epochs 8 and 11; linear warm-up from 0.001 over 500 iterations.
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[8 * epoch, 11 * epoch, 12 * epoch]
    ),
    warmup_length=500 / max_iter,
    warmup_method="linear",
    warmup_factor=0.001,
)
