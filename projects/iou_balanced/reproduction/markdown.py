"""The records as Markdown: the tables of docs/reproduction.md and a column of docs/configs.md."""

from collections.abc import Sequence

from .records import Row, papers

SHORT = ("model.class_balance.", "CB.")
"""What the pages abbreviate."""
_BASES = {"baseline": "baseline", "bofl": "`_bofl`", "centernet": "CenterNet's"}


def tables_of_config(config: str) -> str | None:
    """ "Tables 2 and 3" of the rows that train it, or test it on test-dev; None without one."""
    found = []
    for paper in papers().values():
        numbers = [
            str(table.number)
            for table in paper.tables
            if any(config in (row.config, row.test_dev) for row in table.rows)
        ]
        if numbers:
            whose = "" if paper.key == "iou" else f" ({paper.short})"
            found.append(f"{'Tables' if numbers[1:] else 'Table'} {_enumerate(numbers)}{whose}")
    return ", ".join(found) or None


def paper_tables(key: str) -> str:
    """All tables of a paper, one below the other, with the published numbers."""
    parts = []
    for table in papers()[key].tables:
        parts.append(
            f"**Table {table.number}** (`{table.id}`, page {table.page}): {table.caption}. "
            f"On {table.data}."
        )
        header = ["row", "config", "overrides", *table.columns]
        lines = [
            [f"{row.name} (`{row.short_id}`)", *_what(row), *map("{:.1f}".format, values)]
            for row in table.rows
            for values in [row.published.values()]
        ]
        parts.append(_table(header, lines))
    return "\n\n".join(parts)


def figures() -> str:
    """The figures of both papers, and what each is drawn from."""
    kinds = {"losses": "the losses, without training", "results": "COCO result files"}
    lines = [
        [f"`{x.id}`", str(x.page), x.caption, kinds.get(x.drawn_from, f"runs of `{x.table}`")]
        for paper in papers().values()
        for x in paper.figures
    ]
    return _table(["figure", "page", "shows", "drawn from"], lines)


def variants() -> str:
    """What no table has."""
    lines = [
        [x.name, _BASES[x.base], _code(x.overrides)]
        for paper in papers().values()
        for x in paper.variants
    ]
    return _table(["what", "on", "overrides"], lines)


def _what(row: Row) -> tuple[str, str]:
    if row.config is None:
        return f"cited: {row.cited}", "-"
    config = f"[{row.config}](../configs/{row.config}.py)"
    if row.test_dev:
        config += f", [test-dev](../configs/{row.test_dev}.py)"
    return config, _code(row.overrides)


def _code(overrides: Sequence[str]) -> str:
    return f"`{' '.join(overrides).replace(*SHORT)}`" if overrides else "-"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _enumerate(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
