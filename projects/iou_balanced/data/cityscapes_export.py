"""Write the polygons of a split of Cityscapes as a COCO JSON file, and print its path.

python -m iou_balanced.data.cityscapes_export --root datasets/cityscapes --split val

Image names in the file are relative to leftImg8bit/<split>.
"""

import argparse
import sys

from iou_balanced.data.datasets.cityscapes import SPLITS, export_cityscapes
from iou_balanced.data.datasets.cityscapes_polygons import BOXES, GROUPS


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m iou_balanced.data.cityscapes_export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", help="folder with leftImg8bit and gtFine ($DETECTRON2_DATASETS/cityscapes)"
    )
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument(
        "--output", help="the file to write (default: the cache that training uses)"
    )
    parser.add_argument(
        "--boxes",
        choices=BOXES,
        default=BOXES[0],
        help="around an object's visible part, or its whole polygon (%(default)s)",
    )
    parser.add_argument(
        "--groups",
        choices=GROUPS,
        default=GROUPS[0],
        help="a crowd region for each group, or for all groups of a class (%(default)s)",
    )
    try:
        print(export_cityscapes(**vars(parser.parse_args(argv))))
    except (OSError, ValueError, ImportError) as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
