"""FCOS R50, the baseline of Table 9 of "Balance-Oriented Focal Loss"."""

from ..common.coco_cosine_schedule import lr_multiplier, max_iter
from ..common.data.coco import dataloader, datasets
from ..common.models.fcos import model
from ..common.optim import optimizer
from ..common.train import train

# Batch 16 and 12 epochs of cosine annealing are the paper's. "Other settings follow its original
# implementation" (arXiv 1904.01355): learning rate 0.01, weight decay 1e-4, [800, 1333], flips,
# and the stem and first stage of the backbone frozen with all of its BatchNorms.
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/fcos_R_50_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
