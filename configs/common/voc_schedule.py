"""The 12-epoch schedule of the paper's detectors on PASCAL VOC 07+12 trainval."""

from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import MultiStepParamScheduler

# 5,011 + 11,540 = 16,551 images; a batch of 16 makes an epoch of 1,035 iterations. Those that have
# difficult objects only are not trained on, so that an epoch ends a little earlier than that.
epoch = 1035
max_iter = 12 * epoch  # 12,420

# Learning rate times 0.1 after epoch 9, and no warm-up, as MMDetection trains on VOC (4 epochs of
# the data set repeated 3 times). The authors' own VOC files drop it after 8 and 11 instead, and
# warm up from 1/3 over 500 iterations.
lr_multiplier = L(MultiStepParamScheduler)(values=[1.0, 0.1], milestones=[9 * epoch, 12 * epoch])
