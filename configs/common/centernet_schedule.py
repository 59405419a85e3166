"""CenterNet's 140 epochs of COCO train2017 in batches of 128, with two ways to lower the rate."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler

# All 118,287 images of train2017, those without a box too; an epoch is 924 whole batches of 128,
# because the authors leave out the last, smaller one.
epoch = 924
max_iter = 140 * epoch  # 129,360

# Half a cosine from 1 to 0, updated at each iteration (the paper says "decreased until 0"), after
# 500 iterations of warm-up. That is linear from 0.001, as the other detectors'.
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=500 / max_iter,
    warmup_method="linear",
    warmup_factor=0.001,
)
# The schedule of the authors of CenterNet: times 0.1 after epochs 90 and 120.
step_lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[90 * epoch, 120 * epoch, max_iter]
    ),
    warmup_length=500 / max_iter,
    warmup_method="linear",
    warmup_factor=0.001,
)
