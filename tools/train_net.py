#!/usr/bin/env python
"""Train or evaluate a LazyConfig: `python -m iou_balanced.train_net`, for a clone.

    tools/train_net.py --config-file configs/COCO/retinanet_R_50_FPN_1x_iou_balanced.py \
        --num-gpus 8 [--resume | --eval-only] [key=value ...]
"""

from iou_balanced.train_net import run

if __name__ == "__main__":
    run()
