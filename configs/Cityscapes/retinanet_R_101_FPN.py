"""RetinaNet R101 on Cityscapes, a baseline of Table 6.

It starts from the checkpoint that COCO/retinanet_R_101_FPN_1x.py writes. Train that first, or give
train.init_checkpoint another COCO RetinaNet R101, such as Detectron2's own:
detectron2://COCO-Detection/retinanet_R_101_FPN_3x/190397697/model_final_971ab9.pkl
"""

from ..common.cityscapes_schedule import epoch, lr_multiplier, max_iter
from ..common.data.cityscapes import dataloader, datasets
from ..common.models.retinanet import model
from ..common.optim import optimizer  # lr 0.01, here for a batch of 8
from ..common.train import train

model.backbone.bottom_up.stages.depth = 101
model.num_classes = 8
train.init_checkpoint = "./output/retinanet_R_101_FPN_1x/model_final.pth"
train.init_classes = "coco_2017_train"  # all classes but rider are among COCO's
train.output_dir = "./output/cityscapes/retinanet_R_101_FPN"
train.reference_batch_size = 8
train.max_iter = max_iter  # 64 epochs
train.eval_period = train.checkpointer.period = 8 * epoch
