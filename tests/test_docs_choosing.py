"""docs/choosing.md names every member that can be chosen."""

import re

import pytest

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


@pytest.mark.parametrize(("page", "least"), [("choosing", 30), ("results", 200)])
def test_intervals_are_those_of_the_records(page, least):
    """A difference with its interval is a cell of a record of ours, or said of one."""
    interval = r"[+-]\d+\.\d+ \[[+-]\d+\.\d+, [+-]\d+\.\d+\]"
    known = set()
    for file in (ROOT / "benchmarks/records").glob("*.json"):
        known.update(re.findall(interval, file.read_text("utf-8")))
    text = read(f"docs/{page}.md").replace("\N{MINUS SIGN}", "-").replace("\n", " ")
    shown = re.findall(interval, text)
    assert len(shown) > least
    assert [number for number in shown if number not in known] == []
