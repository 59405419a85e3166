"""docs/timm_models.md, made of the records of tools/list_timm.py."""

from collections import Counter
from collections.abc import Iterable, Sequence

OUTCOMES = ["works", "needs argument", "refused", "not run"]

INTRODUCTION = """\
# timm's models as backbones

What `TimmBackbone` makes of each of the {number} architectures of timm {version}. This page is
made by `tools/list_timm.py` from [timm_models.csv](timm_models.csv), which has one line a model;
for another timm, the tool tries them again. A name may end in a tag of weights, as
`resnet50.a1_in1k`, which changes the layers of a few models only.

{usable} of {number} work, alone or with the argument that is named. Each of these gave maps of
exactly the declared strides and channels for images of 160 x 224 and 96 x 320, rounded up to what
its sides have to be multiples of; and those that take any size, by shapes alone, for 800 x 1312.
Models of more than {large:.0f} million parameters were tried by shapes alone, without numbers
({shapes} of those that work). What is refused is refused when the model is built, in one line.
"""

COLUMNS = """\
**strides** are those of the maps: 4 8 16 32 are "c2" to "c5". **multiple** is the
`size_divisibility` with all maps in use: images are padded to it, in the backbone itself where a
neck asks for less. **M** is millions of parameters, without the classifier. **frozen** counts the
parameters that are frozen where the last map is left out, because the other maps do not depend on
them; distributed training would stop at them.
"""

ARGUMENTS = """\
- `model_args={'strict_img_size': False}`: images of any size then.
- `model_args={'img_size': (H, W)}`: images of this size, multiples of the column **multiple**.
  Smaller images are padded to it, which costs time; a larger one is an error, so let the
  augmentations bound both sides. `(H, H)` has to be a square. Tables of positions follow the size:
  where a checkpoint has others, these start at random, which `train.allow_random_backbone=True`
  allows and a warning lists.
- `out_features=[...]`: the maps left out have other cells than their strides say.
"""


def page(records: Sequence, *, large: float) -> str:
    """The page in Markdown.

    Args:
        records: `list_timm.Record`, all models.
        large: from how many parameters on models are tried by shapes alone.
    """
    by_outcome = {o: [r for r in records if r.outcome == o] for o in OUTCOMES}
    usable = by_outcome["works"] + by_outcome["needs argument"]
    parts = [
        INTRODUCTION.format(
            number=len(records),
            version=", ".join(sorted({r.timm for r in records})),
            usable=len(usable),
            large=large / 1e6,
            shapes=sum(r.tried == "shapes" for r in usable),
        ),
        _table(
            ["outcome", "models"],
            [(o, len(by_outcome[o])) for o in OUTCOMES] + [("all", len(records))],
        ),
        "## Families\n\nA family is a module of timm.\n",
        _table(["family", *OUTCOMES], _families(records)),
        f"## Works\n\n{COLUMNS}",
        _models(by_outcome["works"], ["strides", "multiple", "M", "frozen"]),
        f"## Needs an argument\n\n{ARGUMENTS}",
        _models(by_outcome["needs argument"], ["argument", "strides", "multiple", "M", "frozen"]),
        "## Refused\n",
        _refused(by_outcome["refused"]),
    ]
    if by_outcome["not run"]:
        parts += ["## Not run\n", _models(by_outcome["not run"], ["M", "reason"])]
    return "\n".join(parts)


def _families(records: Sequence) -> Iterable[tuple]:
    counts = Counter((r.family, r.outcome) for r in records)
    families = Counter(r.family for r in records)
    for family, _ in sorted(families.items(), key=lambda x: (-x[1], x[0])):
        yield family, *(counts[family, outcome] or "" for outcome in OUTCOMES)


def _models(records: Sequence, columns: list[str]) -> str:
    cells = {
        "argument": lambda r: f"`{r.argument}`",
        "multiple": lambda r: r.size_divisibility,
        "M": lambda r: r.parameters,
        # Most models have none.
        "frozen": lambda r: r.frozen if r.frozen != "0" else "",
        "reason": lambda r: r.reason,
        "strides": lambda r: r.strides,
    }
    rows = [(r.name, *(cells[c](r) for c in columns)) for r in records]
    return _table(["model", *columns], rows)


def _refused(records: Sequence) -> str:
    """One line a reason, with its models: most have one in common."""
    models: dict[str, list[str]] = {}
    for r in records:
        reason = r.reason.replace(f"{r.name} ", "").replace("|", "\\|")
        models.setdefault(reason, []).append(r.name)
    ordered = sorted(models.items(), key=lambda x: (-len(x[1]), x[0]))
    return _table(["reason", "number", "models"], [(k, len(v), ", ".join(v)) for k, v in ordered])


def _table(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
