"""CenterNet's 140 epochs on COCO-LT in batches of 128, with cosine annealing."""

from .centernet_schedule import lr_multiplier

# 99,411 images in the published file make 776 whole batches of 128.
epoch = 776
max_iter = 140 * epoch  # 108,640
lr_multiplier.warmup_length = 500 / max_iter
