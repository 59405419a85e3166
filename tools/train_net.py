#!/usr/bin/env python
"""Train or evaluate a LazyConfig; flags as Detectron2's lazyconfig_train_net.py.

    tools/train_net.py --config-file configs/COCO/retinanet_R_50_FPN_1x_iou_balanced.py \
        --num-gpus 8 [--resume | --eval-only] [key=value ...]
    torchrun --nproc-per-node 8 tools/train_net.py --config-file ...
"""

import sys

from detectron2.engine import default_argument_parser

from iou_balanced.engine import UserError, launch, load_config, main


def _run() -> None:
    args = default_argument_parser(epilog=__doc__).parse_args()
    # Before any process is started, so that a mistake is said once.
    cfg = load_config(args.config_file, args.opts)
    launch(
        main,
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=cfg.train.device,
        args=(args,),
    )


if __name__ == "__main__":
    try:
        _run()
    except UserError as e:
        sys.exit(f"error: {e}")
