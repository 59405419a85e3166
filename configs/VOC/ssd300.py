"""SSD300 with VGG16 on PASCAL VOC, the baseline of Table 5."""

from iou_balanced.backbones import register_weights_handler

from ..common.data.ssd import set_ssd_images
from ..common.data.voc import dataloader, datasets
from ..common.models.ssd300 import model
from ..common.optim import optimizer
from ..common.ssd_schedule import ssd_schedule
from ..common.train import train

model.num_classes = 20
# In pixels: 30, 60, 111, 162, 213, 264 and 315.
model.anchor_generator.min_max_sizes.update(scale_range=(0.2, 0.9), first_scale=0.1)
set_ssd_images(dataloader, 300)
optimizer.lr, optimizer.weight_decay = 1e-3, 5e-4
# 16,551 images of 07+12 trainval; a batch of 64 makes an epoch of 259 iterations.
epoch = 259
lr_multiplier, max_iter = ssd_schedule(epoch, drops=(80, 100))
register_weights_handler()
train.init_checkpoint = "torchvision://vgg16/IMAGENET1K_FEATURES"
train.output_dir = "./output/voc/ssd300"
train.reference_batch_size = 64
train.max_iter = max_iter  # 120 epochs: 31,080
train.eval_period = train.checkpointer.period = 10 * epoch
