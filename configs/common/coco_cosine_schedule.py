"""12 epochs of COCO train2017 with cosine annealing, as "Balance-Oriented Focal Loss" has FCOS."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import CosineParamScheduler

from .coco_schedule import epoch, max_iter

# Half a cosine from 1 to 0, updated at each iteration (the paper says "decreased until 0"). Its
# warm-up is that of the other detectors: linear from 0.001 over 500 iterations.
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=0.0),
    warmup_length=500 / max_iter,
    warmup_method="linear",
    warmup_factor=0.001,
)
