"""The main numbers of an analysis as a table for the terminal."""

from tabulate import tabulate

from iou_balanced.analysis.data import Analysis

from .tables import main_rows

__all__ = ["format_table"]


def format_table(analysis: Analysis) -> str:
    """Metrics, each run's value, and its difference to the first run, with intervals and p.

    Args:
        analysis: of one run or more.
    """
    headers = ["metric", analysis.first]
    for run in analysis.differences:
        headers += [run, "difference", "p"]
    rows = []
    for row in main_rows(analysis):
        first, *others = map(_cell, row["values"])
        cells = [row["name"], first]
        for value, difference in zip(others, row["differences"], strict=True):
            mark = {"better": " *", "worse": " *"}.get(difference["direction"], "")
            cells += [value, f"{_cell(difference)}{mark}", difference["p"]]
        rows.append(cells)
    # The cells are finished text: tabulate must not parse them as numbers and drop the plus signs.
    align = ("left", *["right"] * (len(headers) - 1))
    text = tabulate(rows, headers=headers, disable_numparse=True, colalign=align)
    return f"{text}\n* more than noise" if "*" in text else text


def _cell(cell: dict) -> str:
    return f"{cell['text']} {cell['interval']}".strip()
