"""Train or evaluate a LazyConfig; flags as Detectron2's lazyconfig_train_net.py.

    python -m iou_balanced.train_net --config-file COCO/retinanet_R_50_FPN_1x_iou_balanced.py \
        --num-gpus 8 [--resume | --eval-only] [key=value ...]
    torchrun --nproc-per-node 8 -m iou_balanced.train_net --config-file ...

In a clone, tools/train_net.py is the same.
"""

import sys

from detectron2.engine import default_argument_parser

from iou_balanced.engine import UserError, launch, load_config, main

__all__ = ["run"]


def run() -> None:
    """The command line; a mistake of the user's ends the process with one line."""
    args = default_argument_parser(epilog=__doc__).parse_args()
    try:
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
    except UserError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    run()
