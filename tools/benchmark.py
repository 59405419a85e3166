#!/usr/bin/env python
"""How fast and how large it is, beside other packages; the same command on a CPU and a GPU.

tools/benchmark.py loss          focal losses by themselves: fvcore, torchvision, each backend
tools/benchmark.py slopes        how their cost grows with anchors, classes and positives
tools/benchmark.py detectors     the loss part of a step of each detector
tools/benchmark.py step          whole training steps, stock Detectron2 beside ours
tools/benchmark.py decode        what CenterNet does beside its network, decoding included
tools/benchmark.py evaluation    COCO evaluation at the size of val2017, by each scorer
tools/benchmark.py all           all of these

All that is compared runs alternately in one process. Milliseconds depend on the machine and its
load: the ratios are what to quote, on a CPU those of processor time.
"""

import argparse
import sys
from pathlib import Path

import torch
from tabulate import tabulate

from iou_balanced.engine.denormals import flushed_denormals

sys.path.insert(0, str(Path(__file__).resolve().parent))
from benchmark_parts import centernet, detectors, evaluation, losses, steps, timing

TABLES = {
    "loss": (losses.rows, losses.COLUMNS),
    "slopes": (losses.slopes, ["backend", "against", "slope"]),
    "detectors": (detectors.rows, detectors.COLUMNS),
    "step": (steps.rows, steps.COLUMNS),
    "decode": (centernet.rows, centernet.COLUMNS),
    "evaluation": (evaluation.rows, evaluation.COLUMNS),
}
NOT_SETTINGS = ("what", "record", "device")
DETECTORS = {"detectors": detectors.DETECTORS, "step": steps.DETECTORS, "all": steps.DETECTORS}
"""Those that a table can be asked for."""


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 1 on")
    return number


def parse(argv: list[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*TABLES, "all"])
    parser.add_argument("detectors", nargs="*", metavar="DETECTOR", help=f"{detectors.DETECTORS}")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--anchors", type=positive, default=3_200_000 if has_gpu else 100_000)
    parser.add_argument("--classes", type=positive, default=80)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--amp", choices=["float16", "bfloat16"], help="autocast, of `step`")
    parser.add_argument(
        "--backends",
        nargs="+",
        default=["eager", "compile", "triton"] if has_gpu else ["eager", "compile"],
        choices=["eager", "compile", "triton"],
    )
    parser.add_argument("--images", type=positive, default=8 if has_gpu else 2)
    parser.add_argument("--size", type=positive, default=800 if has_gpu else 640)
    parser.add_argument("--objects", type=positive, default=8, help="in each image")
    parser.add_argument("--repeats", type=positive, default=15)
    parser.add_argument("--evaluation-images", type=positive, default=5000)
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="write a JSON for each table, such as loss_cpu.json",
    )
    args = parser.parse_args(argv)
    known = DETECTORS.get(args.what, ())
    for name in args.detectors:
        if name not in known:
            choices = f"choose from {', '.join(known)}" if known else "it takes no detectors"
            parser.error(f"unknown detector {name!r} of `{args.what}`: {choices}")
    if args.device == "cuda" and not has_gpu:
        parser.error("--device cuda: there is no GPU")
    if args.what in ("slopes", "all") and (args.anchors < 8 or args.classes < 4):
        parser.error("slopes need three sizes each: --anchors from 8 and --classes from 4 on")
    if args.record:  # before the minutes of measuring
        try:
            args.record.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            parser.error(f"--record {args.record} is no folder, and cannot be one: {e.strerror}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    settings = ", ".join(f"{k} {v}" for k, v in vars(args).items() if k not in NOT_SETTINGS and v)
    for what in TABLES if args.what == "all" else [args.what]:
        make, columns = TABLES[what]
        with flushed_denormals(args.device):  # as tools/train_net.py does
            rows = make(args)
        print(f"{what}: {timing.hardware(args.device)}, torch {torch.__version__}; {settings}")
        shown = [
            [", ".join(f"{v:.3g}" for v in x) if isinstance(x, list) else x for x in row]
            for row in rows
        ]
        print(tabulate(shown, headers=columns, floatfmt=".3g"), end="\n\n")
        if args.record:
            name = f"{what}_{args.device}"
            made = timing.record(
                name,
                columns,
                rows,
                device=args.device,
                settings=f"tools/benchmark.py {what}: {settings}",
            )
            timing.write(made, args.record / f"{name}.json")


if __name__ == "__main__":
    main()
