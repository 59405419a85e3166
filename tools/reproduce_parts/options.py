"""The commands of tools/reproduce.py and what they take."""

import argparse
from pathlib import Path

from iou_balanced.reproduction.runs import PROFILES

DEFAULT_OUTPUT = Path("output/reproduction")


def make_parser(description: str) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        description: of the tool.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the tables and figures")
    sub = commands.add_parser("claims", help="the papers' claims, and what our records say")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write it as a record")
    for name, help_text in (
        ("show", "rows, commands and published numbers of a table"),
        ("run", "train what has not run"),
        ("report", "published numbers and ours"),
        ("figure", "draw a figure"),
    ):
        sub = commands.add_parser(name, help=help_text)
        if name == "figure":
            sub.add_argument("name", metavar="FIGURE", help="for example iou/2")
            sub.add_argument("--output", type=Path, required=True, metavar="PNG")
            sub.add_argument("--ground-truth", type=Path, metavar="JSON", help="in COCO's format")
            sub.add_argument("--results", nargs="+", default=[], metavar="NAME=JSON")
            sub.add_argument("--images", type=Path, metavar="DIR")
            sub.add_argument("--image-ids", type=int, nargs="+", default=[], metavar="ID")
            sub.add_argument("--score", type=float, default=0.2, help="least one that is drawn")
        else:
            number = {"show": "+", "run": "+", "report": "*"}[name]
            sub.add_argument("tables", nargs=number, metavar="TABLE", help="bofl/10, or all")
        if name == "run":
            sub.add_argument("--rows", nargs="+", metavar="ROW", help="of one table; default: all")
            sub.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1")
            sub.add_argument("--num-gpus", type=int, default=1, metavar="N")
            sub.add_argument("--dry-run", action="store_true", help="print the commands only")
        if name == "report":
            help_text = "write it as a record of benchmarks/records"
            sub.add_argument("--json", type=Path, metavar="FILE", help=help_text)
            help_text = "of an experiment: write the page of the analysis there"
            sub.add_argument("--page", type=Path, metavar="DIR", help=help_text)
            sub.add_argument("--no-images", action="store_true", help="a page without photographs")
            help_text = "of a table: analyze the finished rows that have no intervals yet"
            sub.add_argument("--intervals", action="store_true", help=help_text)
            sub.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
        sub.add_argument("--profile", choices=PROFILES, default="full")
        sub.add_argument("--output-dir", type=Path, default=DEFAULT_OUTPUT, metavar="DIR")
    return parser
