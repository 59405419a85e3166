#!/usr/bin/env python
"""Compare COCO result files with intervals: which differences are more than noise.

    python tools/analyze.py GT.json plain=a.json balanced=b.json --output-dir report
    python tools/analyze.py GT.json plain=a0.json,a1.json balanced=b0.json,b1.json
    python tools/analyze.py VOC_FOLDER --split val plain=a.json balanced=b.json

The first argument is the ground truth: COCO JSON, or a folder in VOC format. Each other one is a
run: a name and its result file, or one file for each seed. Differences are to the first run. Writes
report.html, a page that holds everything in itself, its charts as PNG files, and all numbers as
analysis.json and analysis.csv. Needs the package with its extra `analysis`; neither torch nor
Detectron2.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects"))

from iou_balanced.analysis import Analysis, analyze
from iou_balanced.analysis.page import (
    NUM_IMAGES,
    PAGE_FILE,
    ImageFinder,
    format_table,
    make_page,
)

FILES = (PAGE_FILE, "analysis.json", "analysis.csv")


def parse_run(text: str) -> tuple[str, list[str]]:
    """A name and its files from "name=a.json,b.json"."""
    name, equals, files = text.partition("=")
    paths = [file for file in files.split(",") if file]
    if not equals or not name or not paths:
        raise argparse.ArgumentTypeError(
            f"expected NAME=FILE.json, or NAME=FILE.json,FILE.json for seeds, but got {text!r}"
        )
    return name, paths


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ground_truth", help="COCO JSON file, or a folder in VOC format")
    parser.add_argument("runs", nargs="+", type=parse_run, metavar="NAME=FILE[,FILE...]")
    add_options(parser)
    parser.add_argument("--split", help="of a folder in VOC format")
    parser.add_argument(
        "--difficult",
        choices=("count", "ignore"),
        default="count",
        help="VOC's difficult objects: like any other, or left aside",
    )
    parser.add_argument(
        "--same-weights",
        action="append",
        default=[],
        metavar="NAME",
        help="a run that is no training of its own: the first run's weights, seed by seed, "
        "evaluated in another way; may be given again",
    )
    args = parser.parse_args(argv)
    refuse_same_names(parser, args.runs)
    return args


def refuse_same_names(parser: argparse.ArgumentParser, runs: list[tuple[str, list[str]]]) -> None:
    """Exit where two runs have one name."""
    names = [name for name, _ in runs]
    if len(set(names)) < len(names):
        parser.error(f"two runs have the same name: {', '.join(names)}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of the numbers and of the page."""
    parser.add_argument("--output-dir", type=Path, default=Path("report"))
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the files of an earlier analysis"
    )
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws of the images")
    parser.add_argument(
        "--permutations", type=int, help="swaps of two runs; default: as many as draws"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument(
        "--train-counts",
        help="training instances of each class, for AP_tail and AP_head: a file of "
        "iou_balanced.data.class_counts, or the training annotations",
    )
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--images", help="folder of the image files; default: looked for beside the ground truth"
    )
    parser.add_argument(
        "--num-images",
        type=int,
        default=NUM_IMAGES,
        help="images on the page (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> Analysis:
    """Analyze what the command line names."""
    given = {"split": args.split, "difficult": args.difficult, "same_weights": args.same_weights}
    return analyze(args.ground_truth, dict(args.runs), **given, **options(args))


def check_output_dir(folder: Path, *, overwrite: bool) -> None:
    """Refuse to lose what an earlier analysis wrote, before the minutes of this one.

    Raises:
        ValueError: it is no folder, or has such a file and `overwrite` is false.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output-dir {folder} is a file: give a folder")
    found = [name for name in FILES if (folder / name).exists()]
    if found and not overwrite:
        raise ValueError(
            f"--output-dir {folder} has {found[0]} already: give another folder, or --overwrite to "
            "replace the files of the same name"
        )


def options(args: argparse.Namespace) -> dict:
    """Arguments of `analyze`, from `add_options`."""
    names = ("train_counts", "draws", "seed", "confidence", "processes")
    permutations = args.draws if args.permutations is None else args.permutations
    given = {name: getattr(args, name) for name in names}
    return {**given, "permutations": permutations, "progress": True}


def write(
    args: argparse.Namespace, make_analysis: Callable[[], Analysis], trainings: dict | None = None
) -> None:
    """Analyze, draw, and write everything; say what was found, or in one line what is wrong.

    Args:
        trainings: run -> metrics.json.
    """
    tool = Path(sys.argv[0]).stem
    try:
        check_output_dir(args.output_dir, overwrite=args.overwrite)
        ImageFinder("", args.images)  # a mistake there is said before the minutes of the analysis
        analysis = make_analysis()
        page = make_page(
            analysis, images=args.images, num_images=args.num_images, trainings=trainings
        )
        figures = page.draw_figures()  # so that all is there before the first file is written
        paths = analysis.write(args.output_dir)
        paths = [page.write(args.output_dir, figures)[0], *paths]
    except (ImportError, OSError, ValueError) as e:
        sys.exit(f"{tool}: {e}")
    except KeyboardInterrupt:
        sys.exit(f"{tool}: interrupted; nothing was written")
    for text in analysis.warnings:
        print(f"warning: {text}", file=sys.stderr)
    print(format_table(analysis), *analysis.verdict, sep="\n")
    print(*paths, sep="\n")


def main() -> None:
    args = parse_args()
    write(args, lambda: run(args))


if __name__ == "__main__":
    main()
