"""The tables and figures of both papers as data: one record for each row, in records/*.yaml.

Tests, tables of the docs and commands are made of these records; nothing else holds the papers'
numbers. A row is named "paper/table/row", for example "bofl/10/eql".

A file has these keys:

    paper, short, title, source    how it is named: in commands, in tables, in full, and where from
    losses     name -> {cls_loss, box_loss[, class_balance]}, each {type, and attributes}
    tables     number, page, caption, data, columns {as printed: name of our metric}, rows;
               lines: how many the paper prints, where they are not as many as the rows
    figures    number, page, caption, drawn_from (losses, runs or results)[, table]
    variants   name, base (baseline, bofl or centernet), overrides: of no table

and a row of a table:

    id, name       in commands, and as the paper prints it
    config         a file of configs/, without .py; or
    cited          where the paper has the numbers from: such a row is not trained here
    overrides      of the config, ["key=value", ...]
    losses         the name of what the config's losses have to be, with these overrides
    but            {"cls_loss.eta": 1.0}: what this row has otherwise
    starts_from    the config whose trained weights this one starts from
    test_dev       the config that writes the file for COCO's server
    published      numbers in the order of the table's columns, in percent
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .parse import RecordError, check_keys, parse_losses, parse_rows, read_yaml

FOLDER = Path(__file__).parent / "records"
DRAWN_FROM = ("losses", "runs", "results")
BASES = ("baseline", "bofl", "centernet")


@dataclass(frozen=True)
class Row:
    """One line of a table: what to train, and what the paper reports."""

    id: str
    """ "paper/table/row"."""
    name: str
    """As the paper prints it."""
    config: str | None
    """A file of configs/, without .py; None where it is cited."""
    cited: str | None
    """Where the paper has the numbers from; None where it trains."""
    overrides: tuple[str, ...]
    """Of the config, "key=value"."""
    losses: Mapping | None
    """{"cls_loss": {"type": class name, attribute: value}, ...}; None where it is cited."""
    starts_from: str | None
    """The config whose trained weights it starts from."""
    test_dev: str | None
    """The config that writes the file for COCO's server."""
    published: Mapping[str, float]
    """{name of our metric: value in percent}, in the order of the table's columns."""

    @property
    def short_id(self) -> str:
        """The last part of its id, such as "eql"."""
        return self.id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Table:
    """One table of a paper."""

    id: str
    """ "paper/number"."""
    number: int
    """As the paper counts its tables, from 1."""
    page: int
    """Of the paper's PDF, from 1."""
    caption: str
    """What it shows, in short."""
    data: str
    """What the paper evaluates on."""
    columns: Mapping[str, str]
    """{column as printed: name of our metric}."""
    lines: int
    """As many as the paper prints."""
    rows: tuple[Row, ...]
    """In the paper's order."""

    def row(self, short_id: str) -> Row:
        """The row "eql" of this table; also by its full id.

        Args:
            short_id: "eql", or "bofl/10/eql".

        Raises:
            RecordError: there is none; names those that there are.
        """
        for row in self.rows:
            if short_id in (row.short_id, row.id):
                return row
        names = ", ".join(row.short_id for row in self.rows)
        raise RecordError(f"{self.id} has no row {short_id!r}; it has {names}")


@dataclass(frozen=True)
class Figure:
    """One figure of a paper."""

    id: str
    """ "paper/number"."""
    number: int
    """As the paper counts its figures, from 1."""
    page: int
    """Of the paper's PDF, from 1."""
    caption: str
    """What it shows, in short."""
    drawn_from: str
    """ "losses": without any training; "runs": of this tool; "results": COCO result files."""
    table: str | None
    """The id of the table whose rows it shows."""


@dataclass(frozen=True)
class Variant:
    """A combination that no table has."""

    name: str
    """Says what is combined."""
    base: str
    """Whose config: "baseline", "bofl", or "centernet" for CenterNet's of both kinds."""
    overrides: tuple[str, ...]
    """Of the config, "key=value"."""


@dataclass(frozen=True)
class Paper:
    """All records of a paper."""

    key: str
    """In commands: "iou" or "bofl"."""
    short: str
    """Its name in tables."""
    title: str
    """In full."""
    source: str
    """Which text of it was read, such as "arXiv:1908.05641v2"."""
    tables: tuple[Table, ...]
    """In the paper's order."""
    figures: tuple[Figure, ...]
    """In the paper's order."""
    variants: tuple[Variant, ...]
    """What no table has."""

    @property
    def rows(self) -> list[Row]:
        """Of all tables, in their order."""
        return [row for table in self.tables for row in table.rows]


@functools.cache
def papers() -> dict[str, Paper]:
    """{"iou": ..., "bofl": ...}, the records that come with the package."""
    loaded = [load_paper(FOLDER / f"{name}.yaml") for name in FILES]
    return {paper.key: paper for paper in loaded}


FILES = ("iou_balanced_losses", "balance_oriented_focal_loss")


def all_tables() -> list[Table]:
    """Of both papers, in their order."""
    return [table for paper in papers().values() for table in paper.tables]


def all_rows() -> list[Row]:
    """Of both papers, in their order."""
    return [row for paper in papers().values() for row in paper.rows]


def find_table(name: str) -> Table:
    """The table "bofl/10".

    Args:
        name: its id, "paper/number".

    Raises:
        RecordError: there is none; names those that there are.
    """
    return _find(name, all_tables(), "table")


def find_figure(name: str) -> Figure:
    """The figure "iou/3".

    Args:
        name: its id, "paper/number".

    Raises:
        RecordError: there is none; names those that there are.
    """
    return _find(name, [f for paper in papers().values() for f in paper.figures], "figure")


def _find(name: str, items: Iterable, kind: str):
    found = {item.id: item for item in items}
    if name not in found:
        raise RecordError(f"there is no {kind} {name!r}; there are {', '.join(found)}")
    return found[name]


def load_paper(file: Path) -> Paper:
    """Read and check a file of records.

    Args:
        file: YAML, with the keys that this module lists.

    Raises:
        RecordError: it is not as this module says; names the file, the record and the key.
        OSError: it cannot be read.
    """
    content = read_yaml(file)
    keys = {"paper": str, "short": str, "title": str, "source": str, "losses": dict, "tables": list}
    check_keys(content, f"{file.name}", keys, {"figures": list, "variants": list})
    losses = parse_losses(content["losses"], file.name)
    key = content["paper"]
    tables = _numbered(content["tables"], f"{file.name}, table {key}/", _table, key, losses)
    figures = _numbered(content.get("figures", []), f"{file.name}, figure {key}/", _figure, key)
    wheres = [f"{file.name}, variants[{i}]" for i in range(len(content.get("variants", [])))]
    return Paper(
        key=key,
        short=content["short"],
        title=content["title"],
        source=content["source"],
        tables=tables,
        figures=figures,
        variants=tuple(map(_variant, content.get("variants", []), wheres)),
    )


def _numbered(items: list, where: str, parse, *args) -> tuple:
    """Parse each with its number in the message, and see that they count up from 1.

    Raises:
        RecordError: they do not.
    """
    parsed = []
    for number, item in enumerate(items, start=1):
        check_keys(item, f"{where}{number}", {"number": int}, None)
        if item["number"] != number:
            raise RecordError(f"{where}{number}: number is {item['number']}: they count up from 1")
        parsed.append(parse(item, f"{where}{number}", *args))
    return tuple(parsed)


def _table(item: dict, where: str, paper: str, losses: dict) -> Table:
    keys = {"number": int, "page": int, "caption": str, "data": str, "columns": dict, "rows": list}
    check_keys(item, where, keys, {"lines": int})
    table_id = f"{paper}/{item['number']}"
    rows = tuple(
        Row(**values)
        for values in parse_rows(item["rows"], where, table_id, item["columns"], losses)
    )
    values = {key: item[key] for key in ("number", "page", "caption", "data", "columns")}
    return Table(id=table_id, **values, lines=item.get("lines", len(rows)), rows=rows)


def _figure(item: dict, where: str, paper: str) -> Figure:
    keys = {"number": int, "page": int, "caption": str, "drawn_from": str}
    check_keys(item, where, keys, {"table": int})
    if item["drawn_from"] not in DRAWN_FROM:
        raise RecordError(
            f"{where}: drawn_from is {item['drawn_from']!r}; it is one of {', '.join(DRAWN_FROM)}"
        )
    table = f"{paper}/{item['table']}" if "table" in item else None
    return Figure(**{**item, "table": table}, id=f"{paper}/{item['number']}")


def _variant(item: dict, where: str) -> Variant:
    check_keys(item, where, {"name": str, "base": str, "overrides": list}, {})
    if item["base"] not in BASES:
        raise RecordError(f"{where}: base is {item['base']!r}; it is one of {', '.join(BASES)}")
    return Variant(item["name"], item["base"], tuple(item["overrides"]))
