"""SSD300 with VGG16, the baseline of Table 1."""

from iou_balanced.backbones import register_weights_handler

from ..common.data.coco import dataloader, datasets
from ..common.data.ssd import set_ssd_images
from ..common.models.ssd300 import model
from ..common.optim import optimizer
from ..common.ssd_schedule import ssd_schedule
from ..common.train import train

set_ssd_images(dataloader, 300)
optimizer.lr, optimizer.weight_decay = 2e-3, 5e-4
# 117,266 images of train2017 have a box; a batch of 64 makes an epoch of 1,833 iterations.
epoch = 1833
lr_multiplier, max_iter = ssd_schedule(epoch, drops=(80, 110))
register_weights_handler()
train.init_checkpoint = "torchvision://vgg16/IMAGENET1K_FEATURES"
train.output_dir = "./output/ssd300"
train.reference_batch_size = 64
train.max_iter = max_iter  # 120 epochs: 219,960
train.eval_period = train.checkpointer.period = 5 * epoch
