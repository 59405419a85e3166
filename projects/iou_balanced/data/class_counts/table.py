"""Tables with a row for each class that stay readable with many classes."""

import itertools
import math
from collections.abc import Sequence

from tabulate import tabulate

_MAX_ROWS = 20  # up to here one row under the other; then two blocks side by side


def format_class_table(
    headers: Sequence[str], rows: Sequence[Sequence], *, floatfmt: str = "#.4g"
) -> str:
    """A table of text, flush left, and numbers, flush right.

    More than 20 rows go into two blocks side by side; the order runs down the first block, then
    down the second.

    Args:
        headers: of the columns.
        rows: cells, one row for each class.
        floatfmt: of the numbers that are not whole; NaN is shown as "-".
    """
    cells = [[_text(cell, floatfmt) for cell in row] for row in rows]
    blocks = 2 if len(cells) > _MAX_ROWS else 1
    height = -(-len(cells) // blocks)
    cells += [[""] * len(headers)] * (height * blocks - len(cells))
    lines = [list(itertools.chain.from_iterable(cells[top::height])) for top in range(height)]
    align = ["left" if _is_text(rows, c) else "right" for c in range(len(headers))]
    # The cells are finished text: tabulate must not read numbers into names or align them itself.
    return tabulate(
        lines,
        headers=[*headers] * blocks,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=align * blocks if lines else None,
    )


def _is_text(rows: Sequence[Sequence], column: int) -> bool:
    return all(isinstance(row[column], str) for row in rows)


def _text(cell, floatfmt: str) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return "-" if math.isnan(cell) else format(cell, floatfmt).rstrip(".")
