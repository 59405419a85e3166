"""RetinaNet R50, the baseline of Table 5."""

from ..common.data.voc import dataloader, datasets
from ..common.models.retinanet import model
from ..common.optim import optimizer
from ..common.train import train
from ..common.voc_schedule import lr_multiplier, max_iter

model.num_classes = 20
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
train.output_dir = "./output/voc/retinanet_R_50_FPN_1x"
train.max_iter = max_iter  # 12 epochs
train.eval_period = train.checkpointer.period = max_iter // 12  # an epoch
