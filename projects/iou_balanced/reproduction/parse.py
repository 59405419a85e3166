"""Reading and checking of the records' YAML; every error names the file, the record and the key."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

PARTS = ("cls_loss", "box_loss", "class_balance")


class RecordError(ValueError):
    """A record, or what was asked of the records, is not right; the message is one line."""


class _Loader(yaml.SafeLoader):
    """YAML, but for a key that stands twice in a mapping: the second would win in silence."""

    def compose_mapping_node(self, anchor):
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return node


def read_yaml(file: Path) -> dict:
    """The mapping in the file.

    Raises:
        RecordError: it is no YAML, or no mapping, or a key stands twice.
        OSError: it cannot be read.
    """
    try:
        content = yaml.load(file.read_text("utf-8"), Loader=_Loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise RecordError(f"{file.name}{where}: {getattr(e, 'problem', e)}") from e
    if not isinstance(content, dict):
        raise RecordError(f"{file.name} holds no keys")
    return content


def check_keys(item, where: str, required: Mapping, optional: Mapping | None) -> None:
    """See that a record is a mapping of these keys, and that each value is of its kind.

    Args:
        item: the record.
        where: its place, for messages.
        required: {key: type}.
        optional: {key: type} of keys that may be missing; None where others may be there too.

    Raises:
        RecordError: a key is missing, unknown, or of another kind.
    """
    if not isinstance(item, dict):
        raise RecordError(f"{where}: expected keys and values, but got {item!r}")
    kinds = {**required, **(optional or {})}
    for key in required:
        if key not in item:
            raise RecordError(f"{where}: {key} is missing")
    for key, value in item.items():
        if key not in kinds:
            if optional is None:
                continue
            near = difflib.get_close_matches(str(key), kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(kinds)}"
            raise RecordError(f"{where}: unknown key {key!r}; {hint}")
        if not isinstance(value, kinds[key]) or isinstance(value, bool):
            name = getattr(kinds[key], "__name__", kinds[key])
            raise RecordError(f"{where}: {key} is {value!r}; it has to be a {name}")


def parse_losses(losses: dict, where: str) -> dict:
    """{name: {part: {"type": class name, attribute: value}}}.

    Raises:
        RecordError: a part is unknown, or has no type.
    """
    for name, parts in losses.items():
        place = f"{where}, losses.{name}"
        check_keys(parts, place, {"cls_loss": dict, "box_loss": dict}, {"class_balance": dict})
        for part, values in parts.items():
            check_keys(values, f"{place}.{part}", {"type": str}, None)
    return losses


def parse_rows(rows: list, where: str, table: str, columns: Mapping, losses: Mapping) -> list[dict]:
    """The arguments of `records.Row` for each row of a table.

    Raises:
        RecordError: a key or a value is not as `records` says.
    """
    parsed, seen = [], set()
    for index, item in enumerate(rows):
        check_keys(item, f"{where}, rows[{index}]", {"id": str}, None)
        row = _row(item, f"{where}, row {item['id']!r}", columns, losses)
        if row["id"] in seen:
            raise RecordError(f"{where}, rows[{index}]: the id {row['id']!r} stands twice")
        seen.add(row["id"])
        parsed.append({**row, "id": f"{table}/{row['id']}"})
    return parsed


def _row(item: dict, where: str, columns: Mapping, losses: Mapping) -> dict:
    trained = {"config": str, "overrides": list, "losses": str, "but": dict}
    trained |= {"starts_from": str, "test_dev": str}
    required = {"id": str, "name": str, "published": list}
    if not re.fullmatch(r"[\w.]+", item["id"]):
        raise RecordError(f"{where}: id may have letters, digits, _ and . only")
    check_keys(item, where, required, {**trained, "cited": str})
    if "cited" in item:
        for key in trained:
            if key in item:
                raise RecordError(f"{where}: {key} is given, but a cited row is not trained here")
    else:
        for key in ("config", "losses"):
            if key not in item:
                raise RecordError(f"{where}: {key} is missing (or cited, where it is not trained)")
    for override in item.get("overrides", []):
        if not isinstance(override, str) or "=" not in override:
            raise RecordError(f"{where}: overrides has {override!r}; it has to be key=value")
    return {
        "id": item["id"],
        "name": item["name"],
        "config": item.get("config"),
        "cited": item.get("cited"),
        "overrides": tuple(item.get("overrides", [])),
        "losses": _losses_of(item, where, losses),
        "starts_from": item.get("starts_from"),
        "test_dev": item.get("test_dev"),
        "published": _published(item["published"], where, columns),
    }


def _published(values: list, where: str, columns: Mapping) -> dict[str, float]:
    if len(values) != len(columns):
        raise RecordError(
            f"{where}: published has {len(values)} numbers, but the table {len(columns)} columns: "
            f"{', '.join(columns)}"
        )
    for column, value in zip(columns, values, strict=True):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 100:
            raise RecordError(f"{where}: published {column} is {value!r}; it is a number, 0 to 100")
    return dict(zip(columns.values(), map(float, values), strict=True))


def _losses_of(item: dict, where: str, losses: Mapping) -> dict | None:
    if "losses" not in item:
        return None
    name = item["losses"]
    if name not in losses:
        near = difflib.get_close_matches(name, losses, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(losses)}"
        raise RecordError(f"{where}: losses is {name!r}, which the file does not have; {hint}")
    result = _copy(losses[name])
    for path, value in item.get("but", {}).items():
        *parents, key = path.split(".")
        node = result
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or key not in node:
            raise RecordError(f"{where}: but has {path!r}, which the losses {name!r} do not have")
        node[key] = value
    return result


def _copy(value):
    """Of mappings only: YAML's anchors make several records share one."""
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value
