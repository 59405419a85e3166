"""12 epochs of COCO-LT with cosine annealing."""

from .coco_cosine_schedule import lr_multiplier

# 99,411 images in the published file; a batch of 16 makes an epoch of 6,214 iterations.
epoch = 6214
max_iter = 12 * epoch  # 74,568
lr_multiplier.warmup_length = 500 / max_iter
