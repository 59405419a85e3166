#!/usr/bin/env python
"""Write the tables of docs/results.md and docs/speed.md from the records in benchmarks/records.

tools/list_results.py            prints all tables
tools/list_results.py --write    puts each between its marker lines on the pages that have them
tools/list_results.py --check    exits 1 where a page shows another table
tools/list_results.py --figure docs/images/ap_by_iou.png    draws AP by IoU threshold of the digits

A record is a JSON file: columns, rows, and how they were measured (hardware, versions, settings,
and the commit that reported them). A cell is a text, a number, or a list of numbers.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "benchmarks" / "records"
PAGES = (ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- table: end -->)", re.DOTALL)


def load(name: str) -> dict:
    """The record of that name.

    Raises:
        ValueError: there is none, or a row has another number of cells than there are columns.
    """
    file = RECORDS / f"{name}.json"
    if not file.exists():
        raise ValueError(f"No record {file.relative_to(ROOT)}")
    record = json.loads(file.read_text("utf-8"))
    for row in record["rows"]:
        if len(row) != len(record["columns"]):
            raise ValueError(f"{file.name}: {len(record['columns'])} columns, but a row {row}")
    return record


def table(record: dict) -> str:
    """The record in Markdown, without a line break at its end."""
    columns, formats = record["columns"], record.get("formats", {})
    rows = [
        [
            _cell(cell, formats.get(column, "{:.1f}"))
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in record["rows"]
    ]
    if "blank_repeats" in record:
        _blank_repeats(rows, columns.index(record["blank_repeats"]))
    rows += record.get("summary", [])  # of unrounded numbers, which the rows no longer have
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value, form: str) -> str:
    if isinstance(value, list):
        return ", ".join(form.format(x) for x in value)
    return form.format(value) if isinstance(value, float) else str(value)


def _blank_repeats(rows: list[list[str]], column: int) -> None:
    last = None
    for row in rows:
        row[column], last = ("" if row[column] == last else row[column]), row[column]


def fill(text: str) -> str:
    """`text` with the tables of today's records between its marker lines."""
    # A blank line on either side, or Markdown takes the comment and the table for one block.
    return BLOCK.sub(lambda m: f"{m[1]}\n{table(load(m[2]))}\n\n{m[3]}", text)


def draw(record: dict, file: Path) -> None:
    """AP by IoU threshold: the mean over the seeds, and each seed as a thin line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    thresholds = [c for c in record["columns"] if re.fullmatch(r"AP\d\d", c)]
    places = [record["columns"].index(c) for c in thresholds]
    iou = [int(c[2:]) / 100 for c in thresholds]
    figure, axes = plt.subplots(figsize=(5, 3.2))
    kind = record["columns"].index("losses")
    for losses, color in (("plain", "tab:gray"), ("IoU-balanced", "tab:blue")):
        seeds = [[row[i] for i in places] for row in record["rows"] if row[kind] == losses]
        for ap in seeds:
            axes.plot(iou, ap, color=color, linewidth=0.6, alpha=0.6)
        mean = [sum(x) / len(x) for x in zip(*seeds, strict=True)]
        axes.plot(iou, mean, color=color, marker="o", label=f"{losses}, mean of {len(seeds)} seeds")
    axes.set(xlabel="IoU threshold", ylabel="AP", title="RetinaNet on digits", ylim=(0, 100))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", action="store_true")
    group.add_argument("--check", action="store_true")
    group.add_argument("--figure", type=Path, metavar="PNG")
    args = parser.parse_args(argv)
    try:
        if args.figure:
            draw(load("digits"), args.figure)
        elif args.write or args.check:
            for page in PAGES:
                text = page.read_text("utf-8")
                if (new := fill(text)) == text:
                    continue
                if args.check:
                    sys.exit(f"{page}: a table is stale; tools/list_results.py --write")
                page.write_text(new, "utf-8")
        else:
            for file in sorted(RECORDS.glob("*.json")):
                print(f"{file.stem}\n\n{table(load(file.stem))}\n")
    except (OSError, ValueError) as e:
        sys.exit(str(e))


if __name__ == "__main__":
    main()
