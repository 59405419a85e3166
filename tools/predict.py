#!/usr/bin/env python
"""Detect objects in images, folders, globs and videos, with a trained model.

    tools/predict.py --config-file configs/COCO/retinanet_R_50_FPN_1x_iou_balanced.py \
        --weights output/retinanet_R_50_FPN_1x_iou_balanced/model_final.pth \
        photos 'more/**/*.jpg' clip.mp4 --output out [key=value ...]
    tools/predict.py --weights model.onnx photos --output out

Writes pictures, detections.json (COCO results), images.json (what their ids stand for) and
detections.csv. Exit status: 0; 1 where an image could not be read (the rest is written) or nothing
could be done; 2 for wrong arguments.
"""

import argparse
import re
import sys
from pathlib import Path

from iou_balanced.engine import UserError
from iou_balanced.inference import Predictor, predict_files
from iou_balanced.inference.predictor import PRECISIONS


def parse_args(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the overrides for the config, which may stand anywhere."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder, glob or video")
    parser.add_argument(
        "--config-file", help="LazyConfig or yaml, or a name in Detectron2's model zoo"
    )
    parser.add_argument("--weights", required=True, help="checkpoint, or .onnx of tools/export.py")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for what is written")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files in an output folder that has some"
    )
    parser.add_argument(
        "--score", type=float, default=0.3, help="lowest that is kept (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=1, help="images at once (%(default)s)")
    parser.add_argument("--device", help="such as cpu or cuda:1; a GPU by default, if there is one")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="16 bits by autocast"
    )
    parser.add_argument(
        "--pixel-range",
        metavar="LOW,HIGH",
        help='for images of more than 8 bits, which are refused else; or "image"',
    )
    parser.add_argument("--no-draw", action="store_true", help="write no pictures")
    parser.add_argument(
        "--ids-from", metavar="COCO.json", help="image and category ids of detections.json"
    )
    alone = ("--overwrite", "--no-draw")
    is_value = [False, *(x.startswith("--") and "=" not in x and x not in alone for x in argv)]
    overrides = [
        x
        for x, is_of_flag in zip(argv, is_value, strict=False)
        if re.match(r"[+~]*[A-Za-z_][\w.]*=", x) and not is_of_flag and not Path(x).exists()
    ]
    return parser.parse_args([x for x in argv if x not in overrides]), overrides


def main() -> int:
    args, overrides = parse_args(sys.argv[1:])
    try:
        predictor = Predictor(
            args.config_file,
            args.weights,
            device=args.device,
            score_thresh=args.score,
            batch_size=args.batch,
            precision=args.precision,
            pixel_range=args.pixel_range
            if args.pixel_range in (None, "image")
            else args.pixel_range.split(","),
            overrides=overrides,
        )
        summary = predict_files(
            predictor,
            args.inputs,
            args.output,
            draw_pictures=not args.no_draw,
            overwrite=args.overwrite,
            ids_from=args.ids_from,
        )
    except ValueError as e:
        if not isinstance(e, UserError) and "Expected argument" not in str(e):
            raise
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        print(f"interrupted: {args.output} has what was done till then", file=sys.stderr)
        return 130
    print(
        f"{summary.num_images} images, {summary.num_detections} detections, "
        f"{summary.images_per_second:.1f} images/s; written to {args.output}"
    )
    if summary.unreadable:
        print(f"{len(summary.unreadable)} could not be read; named above", file=sys.stderr)
    return 1 if summary.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
