"""docs/choosing.md names every member that can be chosen."""

import json
import re

from iou_balanced import losses
from iou_balanced.modeling.cls_members import MEMBERS, SOFTMAX_MEMBERS

from .docs_blocks import ROOT, read


def test_one_table_has_all_members():
    text = read("docs/choosing.md").partition("## All members")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    table = [row for row in rows if len(row) == 5]
    first = [row[0].strip("| `") for row in table]
    assert {f'"{name}"' for name in (*MEMBERS, *SOFTMAX_MEMBERS)} <= set(first)
    weights = {
        name
        for name, value in vars(losses).items()
        if isinstance(value, type)
        and issubclass(value, losses.ClassBalance)
        and value is not losses.ClassBalance
    }
    assert len(weights) == 3
    assert weights <= {re.split(r"[`(]", name)[0] for name in first}
    assert all(cell.strip(" |") for row in table for cell in (row[0], row[1], row[-1]))


def test_intervals_are_those_of_the_records():
    """A difference with its interval is a cell of a record of ours."""
    cells = set()
    for file in (ROOT / "benchmarks/records").glob("*.json"):
        for row in json.loads(file.read_text("utf-8"))["rows"]:
            cells.update(cell for cell in row if isinstance(cell, str))
    text = read("docs/choosing.md").replace("\N{MINUS SIGN}", "-").replace("\n", " ")
    shown = re.findall(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", text)
    assert len(shown) > 30
    assert [number for number in shown if number not in cells] == []
