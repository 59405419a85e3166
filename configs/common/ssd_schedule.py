"""The schedule of SSD: 120 epochs in batches of 64."""

from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from fvcore.common.param_scheduler import MultiStepParamScheduler


def ssd_schedule(epoch, drops):
    """Learning rate times 0.1 after each of the two `drops`; linear warm-up over 500 iterations.

    Args:
        epoch: in iterations.
        drops: in epochs.

    The paper trains for 120 epochs on VOC too; MMDetection's file for VOC repeats the data set
    until there are 240, with the drops at the same thirds.

    Returns:
        The multiplier and the length in iterations.
    """
    max_iter = 120 * epoch
    multiplier = L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[1.0, 0.1, 0.01], milestones=[*(drop * epoch for drop in drops), max_iter]
        ),
        warmup_length=500 / max_iter,
        warmup_method="linear",
        warmup_factor=0.001,
    )
    return multiplier, max_iter
