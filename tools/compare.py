#!/usr/bin/env python
"""Compare trainings by their output folders, with intervals: tools/analyze.py on what they left.

    tools/compare.py output/plain output/balanced --output-dir report
    tools/compare.py plain=output/plain0,output/plain1 balanced=output/balanced0,output/balanced1

A run is train.output_dir of tools/train_net.py, or several of them, one for each seed. The last
evaluation of each is compared; differences are to the first run. Of trainings before 0.2 the data
set is found by their config.yaml, which needs Detectron2.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "projects"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from analyze import add_options, options, parse_run, refuse_same_names, write
from iou_balanced.analysis import Analysis, analyze, read_ground_truth
from iou_balanced.analysis.run_folder import RunFolder, find_inputs, read_run_folder


def parse_folders(text: str) -> tuple[str, list[str]]:
    """A name and its folders from "folder" or "name=folder,folder"."""
    if "=" in text:
        return parse_run(text)
    return os.path.basename(os.path.abspath(text)), [text]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=parse_folders, metavar="DIR|NAME=DIR[,DIR...]")
    parser.add_argument(
        "--ground-truth", help="COCO JSON file, where the one of the evaluations has moved"
    )
    add_options(parser)
    args = parser.parse_args(argv)
    refuse_same_names(parser, args.runs)
    return args


def read_folders(runs: list[tuple[str, list[str]]]) -> dict[str, list[RunFolder]]:
    """Run -> its folders.

    Raises:
        OSError, ValueError: a folder has no evaluation; two are of different data sets.
    """
    found = {}
    for name, folders in runs:
        for folder in folders:
            if find_inputs(folder) is None:
                write_inputs_by_config(folder)
        found[name] = [read_run_folder(folder) for folder in folders]
    first, *others = [x for members in found.values() for x in members]
    for other in others:
        if other.data_set != first.data_set:
            raise ValueError(
                f"{first.folder} is an evaluation on {first.data_set!r}, but {other.folder} one "
                f"on {other.data_set!r}: evaluate both on one data set (--eval-only)"
            )
    return found


def write_inputs_by_config(folder: str) -> None:
    """Do what today's evaluators do, for the data set that config.yaml names."""
    config = Path(folder) / "config.yaml"
    inference = Path(folder) / "inference"
    if not config.is_file() or not (inference / "coco_instances_results.json").is_file():
        return  # `read_run_folder` says what is missing
    from detectron2.config import LazyConfig, instantiate

    from iou_balanced.evaluation.analysis_inputs import write_analysis_inputs
    from iou_balanced.evaluation.coco_ground_truth import ground_truth_of, keep_converted

    cfg = LazyConfig.load(str(config))
    if "DATASETS" in cfg:  # of a trainer for yaml configs
        (name,) = cfg.DATASETS.TEST
    else:
        name = instantiate(cfg.datasets.test)
    truth = ground_truth_of(name)
    keep_converted(name, str(inference), truth)
    write_analysis_inputs(inference, name, truth)


def run(args: argparse.Namespace, found: dict[str, list[RunFolder]]) -> Analysis:
    """Analyze what the folders hold."""
    first = next(iter(found.values()))[0]
    given = args.ground_truth
    truth = read_ground_truth(given) if given else first.read_ground_truth()
    args.train_counts = args.train_counts or first.class_counts
    args.images = args.images or first.images
    runs = {name: [str(x.detections) for x in members] for name, members in found.items()}
    return analyze(truth, runs, **options(args))


def main() -> None:
    args = parse_args()
    try:
        found = read_folders(args.runs)
    except (ImportError, OSError, ValueError) as e:
        sys.exit(f"compare: {e}")
    trainings = {name: members[0].metrics for name, members in found.items()}
    write(args, lambda: run(args, found), trainings)


if __name__ == "__main__":
    main()
