"""MMDetection's 64-epoch schedule for Cityscapes train, for models that start from COCO."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler

# 2,975 images in batches of 8 make an epoch of 372 iterations. The few without a box are not
# trained on, so that is an iteration or two more than a pass.
epoch = 372
max_iter = 64 * epoch  # 23,808

# Learning rate times 0.1 after epoch 56; linear warm-up from 0.001 over 500 iterations.
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[56 * epoch, 64 * epoch]),
    warmup_length=500 / max_iter,
    warmup_method="linear",
    warmup_factor=0.001,
)
