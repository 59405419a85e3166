"""Try each architecture of the installed timm as a `TimmBackbone`, and list what came of it.

    python tools/list_timm.py              # try what docs/timm_models.csv lacks; then the Markdown
    python tools/list_timm.py --check 20   # try 20 of the list again, and exit 1 where they differ
    python tools/list_timm.py --markdown   # docs/timm_models.md again, from the list as it is

All of timm takes more than an hour on one core. A run that is stopped goes on where it was. Each
model has a process of its own, with limits, so that none can take the others with it. Models of
more than 60 million parameters are tried on the meta device: shapes, without numbers.
"""

import argparse
import ast
import csv
import json
import os
import random
import re
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import timm
import torch

import timm_markdown
from iou_balanced.backbones import TimmBackbone
from iou_balanced.backbones.timm_trial import map_names
from iou_balanced.files import write_atomically

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA, MARKDOWN = DOCS / "timm_models.csv", DOCS / "timm_models.md"
CPU_SECONDS, MEMORY_GIB = 180, 6
LARGE = 60e6  # parameters
# Indices beyond the ends of tables are an error with numbers only.
WITH_NUMBERS = ("mvitv2",)  # families
# (H, W) in pixels, rounded up to what the model's sides have to be multiples of.
SIZES = [(160, 224), (96, 320)]
LARGE_SIZE = (800, 1312)  # of shapes only: as a detector's images


@dataclass(frozen=True)
class Record:
    """What came of one model; text, as the file has it.

    Args:
        name: of the architecture.
        family: timm's module.
        outcome: "works", "needs argument", "refused", "not run" or "fails"; the last is a fault of
            this package, and the list has none.
        argument: of `TimmBackbone`, that it works with.
        strides: of its maps, in pixels.
        size_divisibility: in pixels.
        frozen: parameters that are frozen where the last map is left out, because the others do not
            depend on them; empty where this was not found.
        parameters: in millions, without those of the classifier.
        tried: "run" or "shapes", of what works.
        reason: of what does not work.
        timm: its version.
    """

    name: str
    family: str
    outcome: str
    argument: str = ""
    strides: str = ""
    size_divisibility: str = ""
    frozen: str = ""
    parameters: str = ""
    tried: str = ""
    reason: str = ""
    timm: str = timm.__version__


def try_model(name: str) -> Record:
    """Build and run one model in this process."""
    known = {"name": name, "family": timm.models.model_entrypoint(name).__module__.split(".")[-1]}
    count, strides = _look(name)
    known["parameters"] = "" if count is None else f"{count / 1e6:.1f}"
    try:
        map_names(name, strides)
    except ValueError:  # refused whatever the numbers are
        large = True
    else:
        large = known["family"] not in WITH_NUMBERS and (count is None or count > LARGE)
    tried = {"tried": "shapes" if large else "run"}
    with torch.device("meta" if large else "cpu"):
        try:
            return Record(**known, **tried, outcome="works", **_works(name))
        except ValueError as e:
            message = " ".join(str(e).split())
        except Exception as e:
            return _failed(known, e)
        remedy = re.search(r"(model_args=\{.+?\}|out_features=\[.+?\])", message)
        if not remedy:
            reason = re.sub(rf"^Expected .*? but (got '?{re.escape(name)}'?, )?", "", message)
            return Record(**known, outcome="refused", reason=reason)
        known["argument"] = remedy[1]
        try:  # what the message says
            found = _with_argument(name, remedy[1], message)
        except Exception as e:
            return _failed(known, e)
    return Record(**known, **tried, outcome="needs argument", **found)


def _look(name: str) -> tuple[int | None, list[int]]:
    """The number of parameters and the strides, without weights; None and no strides if unknown."""
    strides = []
    with torch.device("meta"):
        try:
            model = timm.create_model(name, features_only=True)
            strides = model.feature_info.reduction()
        except Exception:  # no maps, or none that can be had without weights
            try:
                model = timm.create_model(name, num_classes=0)
            except Exception:
                return None, strides
    return sum(p.numel() for p in model.parameters()), strides


def _failed(known: dict, error: Exception) -> Record:
    if "DefaultCPUAllocator" in repr(error):
        known = {**known, "argument": ""}
        return Record(**known, outcome="not run", reason=f"needs more than {MEMORY_GIB} GiB")
    return Record(**known, outcome="fails", reason=repr(error)[:200])


def _with_argument(name: str, argument: str, message: str) -> dict[str, str]:
    key, _, value = argument.partition("=")
    if "'img_size'" not in value:
        return _works(name, **{key: ast.literal_eval(value)})
    divisor = int(re.search(r"multiples of (\d+)", message)[1])
    sizes = [tuple(-(-side // divisor) * divisor for side in size) for size in SIZES]
    if "(H, H)" in value:
        sizes = [(max(size),) * 2 for size in sizes]
    args = [{"model_args": {"img_size": size}, "sizes": [size]} for size in sizes]
    _works(name, **args[0], frozen=False)
    return {**_works(name, **args[1]), "size_divisibility": str(divisor)}


def _works(name: str, *, sizes=SIZES, frozen: bool = True, **args) -> dict[str, str]:
    """The columns of a model that works.

    Raises:
        RuntimeError: its maps are not those that it declares.
    """
    model = TimmBackbone(name=name, **args).eval()
    divisor = model.size_divisibility
    with torch.no_grad():
        for size in sizes:
            _run(model, [-(-side // divisor) * divisor for side in size])
        if sizes is SIZES:
            _run(model.to("meta"), [-(-side // divisor) * divisor for side in LARGE_SIZE])
    shapes = model.output_shape()
    return {
        "strides": " ".join(str(x.stride) for x in shapes.values()),
        "size_divisibility": str(divisor),
        "frozen": _frozen(name, {**args, "out_features": list(shapes)[:-1]}) if frozen else "",
    }


def _run(model: TimmBackbone, size: list[int]) -> None:
    maps = model(torch.zeros(1, 3, *size, device=next(model.parameters()).device))
    for key, shape in model.output_shape().items():
        expected = (1, shape.channels, *(side // shape.stride for side in size))
        if maps[key].shape != expected:
            raise RuntimeError(f"{key} is {tuple(maps[key].shape)} and not {expected} for {size}")


def _frozen(name: str, args: dict) -> str:
    if not args["out_features"]:
        return ""
    try:
        model = TimmBackbone(name=name, **args)
    except Exception:  # shapes alone do not do for it, as where its own are made of numbers
        return ""
    return str(len(model.unused_parameters))


def try_apart(name: str) -> Record:
    """`try_model` in a process that is ended where it needs too much."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_GIB << 30, MEMORY_GIB << 30))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        try:
            result = asdict(try_model(name))
        except BaseException as e:
            result = {"error": repr(e)[:200]}
        with os.fdopen(writer, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    result = json.loads(text) if text else {"error": _end(status)}
    if "error" not in result:
        return Record(**result)
    family = timm.models.model_entrypoint(name).__module__.split(".")[-1]
    return Record(name=name, family=family, outcome="not run", reason=result["error"])


def _end(status: int) -> str:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number in (signal.SIGXCPU, signal.SIGKILL):
        return f"took more than {CPU_SECONDS} s"
    return f"its process ended with signal {number}"


def read(file: Path = DATA) -> list[Record]:
    """The records of a file, none where there is no file."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as f:
        return [Record(**row) for row in csv.DictReader(f)]


def write(records: list[Record], file: Path = DATA) -> None:
    """All of them, sorted by name."""

    def content(f):
        rows = csv.writer(f, lineterminator="\n")
        rows.writerow([x.name for x in fields(Record)])
        rows.writerows(asdict(r).values() for r in sorted(records, key=lambda r: r.name))

    write_atomically(file, content)


def run(file: Path = DATA, names: list[str] | None = None) -> list[Record]:
    """Try what the file lacks, and drop from it what timm lacks."""
    names = timm.list_models() if names is None else names
    records = {r.name: r for r in read(file) if r.name in set(names)}
    for name in names:
        if name in records:
            continue
        start = time.time()
        records[name] = record = try_apart(name)
        write(list(records.values()), file)
        print(
            f"{len(records)}/{len(names)} {name}: {record.outcome} {record.argument} "
            f"{record.reason} ({time.time() - start:.1f} s)",
            flush=True,
        )
    return list(records.values())


def check(records: list[Record], number: int, seed: int | None = None) -> list[str]:
    """Try some again; returns a line for each that differs."""
    chosen = random.Random(seed).sample(records, min(number, len(records)))
    again = [(record, try_apart(record.name)) for record in chosen]
    return [f"{a.name}: the list has {a}, but now {b}" for a, b in again if a != b]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", type=int, metavar="N")
    group.add_argument("--markdown", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.check is not None:
        differing = check(read(), args.check)
        if differing:
            sys.exit("\n".join(differing))
        print(f"{args.check} models as in {DATA.name}")
        return
    records = read() if args.markdown else run()
    MARKDOWN.write_text(timm_markdown.page(records, large=LARGE), encoding="utf-8")


if __name__ == "__main__":
    main()
