#!/usr/bin/env python
"""Export a trained detector to ONNX: normalisation, decoding and NMS are in the graph.

    tools/export.py --config-file configs/COCO/retinanet_R_50_FPN_1x_iou_balanced.py \
        --weights output/retinanet_R_50_FPN_1x_iou_balanced/model_final.pth \
        --output model.onnx --images photos [key=value ...]

Before the file is there, ONNX Runtime runs it on images, and its detections are compared with
PyTorch's: 20 of the images given, or made ones. Exit status 1, and no file, where they differ.
"""

import argparse
import sys

from iou_balanced.engine import UserError
from iou_balanced.inference.inputs import find_inputs
from iou_balanced.inference.onnx.check import NUM_IMAGES
from iou_balanced.inference.onnx.export import export_onnx


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help="as of tools/predict.py")
    parser.add_argument("--weights", required=True, help="checkpoint")
    parser.add_argument("--output", required=True, metavar="FILE.onnx")
    parser.add_argument("--format", choices=["onnx"], default="onnx")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument(
        "--images", nargs="+", default=[], help="images, folders or globs to compare"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for the config")
    args = parser.parse_args()
    # A list that ends with overrides takes them.
    overrides = args.overrides + [x for x in args.images if "=" in x]
    images = [x for x in args.images if "=" not in x]
    try:
        files = [x.path for x in find_inputs(images) if not x.is_video] if images else []
        exported = export_onnx(
            args.config_file,
            args.weights,
            args.output,
            overrides=overrides,
            images=files[:NUM_IMAGES],
            overwrite=args.overwrite,
        )
    except UserError as e:
        sys.exit(f"error: {e}")
    found = exported.comparison
    shape = ", ".join(map(str, exported.input_shape))
    print(f"{exported.path}: images ({shape}), operators of ONNX {exported.opset}")
    print(
        f"{found.num_images} images, {found.num_detections} detections as PyTorch's: boxes to "
        f"{found.max_pixels:.1e} pixels, scores to {found.max_score:.1e}"
        + (f"; {found.num_undecided} at a threshold" if found.num_undecided else "")
    )
    if not found.num_detections:
        print(
            "Nothing was found in these images, so that nothing was compared: give --images with "
            "objects in them",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
