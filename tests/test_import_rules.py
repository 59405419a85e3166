"""Which part of the package may import which; no part imports one that stands above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "projects" / "iou_balanced"
OWN = "iou_balanced"
# Part -> what it may import besides itself: our other parts, and libraries.
RULES = {
    "losses": {"torch"},
    "formats": {"numpy", "PIL"},
    "files": set(),
    "config_files": set(),
    "geometry": {"detectron2", "numpy", "torch"},
    "backbones": {"detectron2", "files", "timm"},
    "data": {"detectron2", "formats", "files", "geometry"},
    "analysis": {
        *("numpy", "pycocotools", "matplotlib", "jinja2", "PIL", "tabulate", "tqdm"),
        *("files", "formats"),
    },
    "evaluation": {"detectron2", "analysis", "data", "formats", "files"},
    "modeling": {"detectron2", "backbones", "geometry", "losses"},
    "engine": {
        *(
            "detectron2",
            "analysis",
            "backbones",
            "config_files",
            "data",
            "evaluation",
            "files",
            "formats",
            "geometry",
            "losses",
        ),
        "modeling",
    },
    "train_net": {"detectron2", "engine"},
    # Its trainings are processes of their own: it needs no engine.
    "reproduction": {"detectron2", "analysis", "backbones", "evaluation", "files", "losses"},
    "inference": {
        *(
            "detectron2",
            "backbones",
            "data",
            "engine",
            "files",
            "formats",
            "modeling",
        ),
    },
}
# Libraries that rooms which may import Detectron2 may import too; it requires them itself.
WITH_DETECTRON2 = {
    *("PIL", "fvcore", "iopath", "matplotlib", "numpy", "omegaconf", "pycocotools", "tabulate"),
    *("tensorboard", "termcolor", "torch", "torchvision", "tqdm", "yacs", "yaml"),
}
# Only where they are asked for: extras.
OPTIONAL = {
    "losses": {"triton"},
    "data": {"cityscapesscripts", "scipy", "sklearn"},
    "evaluation": {"faster_coco_eval"},
    "engine": {"hydra"},
    "inference": {"av", "cv2", "onnx", "onnxruntime"},
}
# The command that checks the data sets of a config reads the config, and nothing else does.
EXCEPTIONS = {("data/check.py", "engine")}
# Within modeling and data: a room may import those that stand before it.
ORDERS = {
    "modeling": [
        "",
        "yaml",
        "retinanet",
        "fcos",
        "centernet",
        "ssd",
        "foveabox",
        "rcnn",
        "conversion",
    ],
    "data": [
        "loading_processes",
        "stream",
        "class_counts",
        "transforms",
        "image_reading",
        "datasets",
        "mapper",
        "check",
    ],
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """(full name of each imported module, whether it is at the top of the file)."""
    module = path.relative_to(PACKAGE.parent).with_suffix("").parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.module
                continue
            package = module[: -node.level]
            if node.module:
                yield ".".join([*package, node.module])
            else:
                yield from (".".join([*package, alias.name]) for alias in node.names)


def room_of(parts):
    return Path(parts[0]).stem if parts else ""


def test_every_part_has_a_rule():
    found = {room_of(p.relative_to(PACKAGE).parts) for p in modules()}
    assert found - {"__init__", "doctor"} == set(RULES)


@pytest.mark.parametrize("room", RULES)
def test_what_a_part_imports(room):
    import sys

    allowed = RULES[room] | OPTIONAL.get(room, set())
    if "detectron2" in allowed:
        allowed |= WITH_DETECTRON2
    wrong = []
    for path in modules():
        parts = path.relative_to(PACKAGE).parts
        if room_of(parts) != room:
            continue
        for name in imports(path):
            first, *rest = name.split(".")
            if first in sys.stdlib_module_names or first == "__future__":
                continue
            other = room_of(rest) if first == OWN else first
            place = "/".join(parts)
            if other in (room, "") or other in allowed or (place, other) in EXCEPTIONS:
                continue
            wrong.append(f"{place} imports {name}")
    assert not wrong


@pytest.mark.parametrize("room", ORDERS)
def test_no_arrow_runs_back_up(room):
    order = ORDERS[room]

    def rank(parts):
        """The place of the sub-room of a module in `room`; files of no sub-room are the first."""
        name = Path(parts[0]).stem if parts else ""
        name = {"data_report": "check", "cityscapes_export": "check"}.get(name, name)
        if name in order:
            return order.index(name)
        return 0 if "" in order else None

    wrong = []
    for path in modules():
        parts = path.relative_to(PACKAGE).parts
        if parts[0] != room or parts[1:] == ("__init__.py",):
            continue
        own = rank(parts[1:])
        assert own is not None, f"{'/'.join(parts)} has no place in the order of {room}"
        for name in imports(path):
            first, *rest = name.split(".")
            if first == OWN and rest[:1] == [room] and rest[1:]:
                other = rank(rest[1:])
                if other is not None and other > own:
                    wrong.append(f"{'/'.join(parts)} imports {name}")
    assert not wrong


def test_the_rules_see_an_arrow(tmp_path):
    """That the tests above can fail."""
    path = PACKAGE / "losses" / "checks.py"
    assert "torch" in set(imports(path))
    relative = set(imports(PACKAGE / "modeling" / "centernet" / "centernet.py"))
    assert "iou_balanced.modeling.dense" in relative
