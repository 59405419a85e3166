"""Every public name says what it is, what its parameters mean, and what it raises.

Public is what stands in `__all__` of a room of the package or of a module in it, or of the package
alone (PACKAGES_ONLY), with the public methods and the bases of its classes. griffe reads the code
without running it; only what a method overrides is looked up in the classes themselves.
"""

import ast
import importlib
import inspect
import logging
import re
from pathlib import Path

import griffe
import pytest

PROJECTS = Path(__file__).resolve().parents[1] / "projects"
PACKAGE = "iou_balanced"
ROOMS = ("losses", "modeling", "data", "evaluation", "engine", "backbones", "formats", "geometry")
# Of these only what the package itself exports: the names of their modules are their own affair.
PACKAGES_ONLY = ("analysis", "analysis.page", "inference", "reproduction")
# Methods that a subclass has to define; and a function that does not return, for type checkers.
NOT_MEANT_TO_BE_CAUGHT = {"NotImplementedError", "AssertionError"}


def load(package=PACKAGE, folder=PROJECTS):
    logging.getLogger("griffe").setLevel(logging.CRITICAL)
    return griffe.load(
        package, search_paths=[folder], allow_inspection=False, docstring_parser="google"
    )


def modules_below(module):
    """Without those that a module imports: one that imports the package would hold itself."""
    yield module
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from modules_below(inner)


def exports(module):
    """The objects in `__all__`. One that is made of `_MODULES` is loaded when first used."""
    if "_MODULES" in module.members:
        places = ast.literal_eval(str(module["_MODULES"].value))
        package = module.package
        found = []
        for name, place in places.items():
            full = place if place.startswith(f"{PACKAGE}.") else f"{module.path}.{place}"
            found.append(package[full.removeprefix(f"{PACKAGE}.")].members[name])
        return found
    names = [str(name) for name in module.exports or []]
    return [module.members[name] for name in names if name in module.members]


def public_objects(package, rooms=ROOMS, packages_only=PACKAGES_ONLY):
    """{path: object} of all public functions, classes, methods and properties."""
    found = {}

    def add(thing):
        thing = thing.final_target if thing.is_alias else thing
        if thing.path in found or not (thing.is_function or thing.is_class):
            return
        found[thing.path] = thing
        if thing.is_class:
            for base in thing.resolved_bases:
                add(base)
            for name, member in thing.members.items():
                if not name.startswith("_") and (member.is_function or is_property(member)):
                    found[member.path] = member

    modules = [m for room in rooms for m in modules_below(package[room])]
    for module in [package, *modules, *(package[name] for name in packages_only)]:
        for thing in exports(module):
            add(thing)
    return found


def is_property(thing):
    return thing.is_attribute and "property" in thing.labels


# What a docstring says.


def entries(thing, kind):
    """The entries of a section, such as Args."""
    if thing is None or thing.docstring is None:
        return []
    sections = thing.docstring.parse("google")
    return [entry for s in sections if s.kind.value == kind for entry in s.value]


def explained(thing):
    """Names in Args; an entry of a class may be for several."""
    names = [name for entry in entries(thing, "parameters") for name in entry.name.split(",")]
    return {name.strip(" *") for name in names}


def errors(thing):
    return {str(entry.annotation) for entry in entries(thing, "raises")}


def explained_elsewhere(thing, objects):
    """What Args says of the functions that "See `name`" points at."""
    text = "" if thing.docstring is None else thing.docstring.value
    names = re.findall(r"\b[Ss]ee `(?:[a-z]\w*\.)*(\w+(?:\.\w+)?)`", text)
    others = [o for name in names for path, o in objects.items() if path.endswith(f".{name}")]
    return set().union(*(explained(other) for other in others))


# What the code does.


def parameters(function):
    """Names, without `self` or `cls`."""
    names = [p.name.strip("*") for p in function.parameters]
    bound = function.parent.is_class and "staticmethod" not in function.labels
    return names[1:] if bound else names


def is_named_tuple(cls):
    return any(str(base).split(".")[-1] == "NamedTuple" for base in cls.bases)


def fields(named_tuple):
    members = named_tuple.members.items()
    return [name for name, x in members if x.is_attribute and not is_property(x) and x.annotation]


def raised(function):
    """Names of the exceptions in `raise X(...)`, but not what a function called there makes."""
    names = set()
    for node in ast.walk(ast.parse(function.source)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            exc = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            names.add(ast.unparse(exc).split(".")[-1])
    return {name for name in names if name.lstrip("_")[:1].isupper()} - NOT_MEANT_TO_BE_CAUGHT


def overrides(method):
    """Whether it has the parameters of the method of a base class, which explains them."""
    if not method.parent.is_class or method.name == "__init__":
        return False
    cls = getattr(importlib.import_module(method.module.path), method.parent.name)
    bases = [base for base in cls.__mro__[1:] if method.name in vars(base)]
    if not bases or is_property(method):
        return bool(bases)
    own, other = (inspect.signature(getattr(c, method.name)) for c in (cls, bases[0]))
    return list(own.parameters) == list(other.parameters)


def gaps_of(thing, objects):
    """What is missing in the docstring of a function, method, property or class."""
    if thing.is_class:
        init = thing.members.get("__init__")
        if thing.docstring is None:
            yield "no docstring"
        if is_named_tuple(thing):
            init, names, own_errors = None, fields(thing), set()
        elif init is None or not init.is_function:
            return
        else:
            names, own_errors = parameters(init), raised(init)
        # The fields of a dataclass or a named tuple may have docstrings of their own.
        said = {name for name in names if name in thing.members and thing[name].docstring}
        text = explained(thing) | explained(init) | said
        known_errors = errors(thing) | errors(init)
        text_elsewhere = explained_elsewhere(thing, objects)
    else:
        inherits = overrides(thing)
        if thing.docstring is None and not inherits:
            yield "no docstring"
        names = parameters(thing) if thing.is_function else []
        text, own_errors, known_errors = explained(thing), raised(thing), errors(thing)
        text_elsewhere = set(names) if inherits else explained_elsewhere(thing, objects)
    yield from (f"Args lacks {name}" for name in names if name not in text | text_elsewhere)
    yield from (f"Args names {name}, no parameter" for name in sorted(text - set(names)))
    yield from (f"Raises lacks {name}" for name in sorted(own_errors - known_errors))


def gaps(objects):
    return [f"{path}: {gap}" for path, thing in objects.items() for gap in gaps_of(thing, objects)]


@pytest.fixture(scope="module")
def objects():
    return public_objects(load())


def test_every_docstring_is_whole(objects):
    found = gaps(objects)
    assert not found, "\n".join(["", *found])


def test_all_rooms_are_looked_at(objects):
    for name in (
        "losses.focal.sigmoid_focal_loss",
        "losses.localization.LocalizationLoss.terms",
        "losses.schedules._Schedule.epoch",
        "modeling.conversion.balance.balance",
        "data.class_counts.counts.ClassCounts",
        "evaluation.coco.COCOBoxEvaluator.evaluate",
        "engine.trainer.Trainer",
        "backbones.vgg.VGG16.forward",
        "formats.values.parse_number",
        "geometry.canvas.CenterPad",
        "analysis.data.Analysis.write",
        "analysis.page.write.make_page",
        "inference.predictor.Predictor.prepare",
        "reproduction.records.Table.row",
    ):
        assert f"{PACKAGE}.{name}" in objects


SOURCE = '''
from typing import NamedTuple

__all__ = ["Thing", "Pair", "whole", "faulty", "bare"]

class Thing:
    """Something.

    Args:
        size: in pixels.

    Raises:
        ValueError: it is negative.
    """

    def __init__(self, size, color):
        if size < 0:
            raise ValueError(size)
        raise errors.ColorError(color)

    @property
    def area(self):
        return 1

class Pair(NamedTuple):
    """Two numbers."""

    left: float
    """In pixels."""
    right: float

def whole(a, *rest):
    """See `faulty`."""

def faulty(a, rest=(), other=1):
    """Do something.

    Args:
        a: of shape (N, 4).
        rest: whatever.
        another: no such thing.
    """
    raise _made(a)

def bare():
    pass
'''


def test_it_finds_gaps(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "docstrings_example").mkdir()
    (tmp_path / "docstrings_example" / "__init__.py").write_text(SOURCE)
    found = gaps(public_objects(load("docstrings_example", tmp_path), rooms=(), packages_only=()))
    assert [gap.removeprefix("docstrings_example.") for gap in found] == [
        "Thing: Args lacks color",
        "Thing: Raises lacks ColorError",
        "Thing.area: no docstring",
        "Pair: Args lacks right",
        "faulty: Args lacks other",
        "faulty: Args names another, no parameter",
        "bare: no docstring",
    ]


def test_imported_modules_are_not_walked(tmp_path):
    for name, text in {"__init__": "", "inner": "import walked_example\n"}.items():
        (tmp_path / "walked_example").mkdir(exist_ok=True)
        (tmp_path / "walked_example" / f"{name}.py").write_text(text)
    package = load("walked_example", tmp_path)
    assert [m.name for m in modules_below(package)] == ["walked_example", "inner"]
