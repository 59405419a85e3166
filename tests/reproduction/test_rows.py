"""Each row against the config files: it loads with its overrides, and its losses are those that
the record names.
"""

import ast

import pytest
from detectron2.config import instantiate

from iou_balanced.reproduction import all_rows, all_tables
from iou_balanced.reproduction.markdown import tables_of_config
from iou_balanced.reproduction.parse import PARTS

from ..test_configs import FILES, ROOT, loss_node
from .loading import load_once

ROWS = [row for row in all_rows() if row.config]


def check(node, expected):
    """Compare a node of a config with a record: the class, and each attribute that it names."""
    if expected is None:
        assert node is None
        return
    module = instantiate({**node, "num_classes": 80} if "num_classes" in node else node)
    assert type(module).__name__ == expected["type"]
    for key, value in expected.items():
        if isinstance(value, dict):
            check(node[key], value)
        elif key != "type":
            found = node[key] if key in node else getattr(module, key)
            assert found == value and isinstance(found, bool) == isinstance(value, bool), key


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_the_losses_are_those_that_the_row_names(row):
    assert f"{row.config}.py" in FILES
    node = loss_node(load_once(row.config, row.overrides).model)
    for part in PARTS:
        check(node.get(part), row.losses.get(part))


def test_a_row_of_other_losses_would_be_seen():
    plain, balanced = (all_tables()[1].row(name).losses for name in ("baseline", "both"))
    node = loss_node(load_once("COCO/retinanet_R_50_FPN_1x_600_iou_balanced").model)
    check(node.cls_loss, balanced["cls_loss"])
    for wrong in (plain["cls_loss"], {**balanced["cls_loss"], "eta": 1.4}):
        with pytest.raises(AssertionError):
            check(node.cls_loss, wrong)


def test_files_that_rows_name_beside_their_config():
    for row in ROWS:
        for name in (row.starts_from, row.test_dev):
            assert name is None or f"{name}.py" in FILES
        if row.test_dev:
            assert row.id.startswith("iou/1/") and row.test_dev == f"{row.config}_test_dev"
        if row.starts_from:
            cfg = load_once(row.config)
            start = load_once(row.starts_from).train.output_dir
            assert cfg.train.init_checkpoint == f"{start}/model_final.pth"
    # Each test-dev config, and each Cityscapes config, belongs to a row.
    assert {f"{r.test_dev}.py" for r in ROWS if r.test_dev} == {f for f in FILES if "_dev" in f}
    assert {f"{r.config}.py" for r in ROWS if r.starts_from} == {
        f for f in FILES if f.startswith("Cityscapes")
    }


def test_files_of_no_row():
    """Ablations at the other scale, FCOS on COCO-LT, the digits, and one's own photographs."""
    named = {x for row in ROWS for x in (row.config, row.test_dev)}
    own = ("Digits/", "Photos/")
    others = {f.removesuffix(".py") for f in FILES if not f.startswith(own)} - named
    backbones = ("R_18", "R_50", "R_101", "X_101_32x4d")
    assert others == {
        *(f"COCO/retinanet_{b}_FPN_1x_iou_balanced_{x}" for b in backbones for x in ("cls", "loc")),
        "COCO_LT/fcos_R_50_FPN_1x",
        "COCO_LT/fcos_R_50_FPN_1x_bofl",
    }


def test_the_docstrings_of_configs_name_the_tables_of_the_records():
    for file in FILES:
        docstring = ast.get_docstring(ast.parse((ROOT / "configs" / file).read_text())) or ""
        tables = tables_of_config(file.removesuffix(".py"))
        if tables is None:
            assert "Table" not in docstring, file
        else:
            assert tables.removesuffix(" (BOFL)") in docstring, file
            assert ("Balance-Oriented" in docstring) == tables.endswith("(BOFL)"), file


def test_the_same_training_has_the_same_numbers_in_every_table():
    found = {}
    for table in all_tables():
        for row in table.rows:
            if row.config:
                for metric, value in row.published.items():
                    key = (row.config, row.overrides, table.data, metric)
                    found.setdefault(key, set()).add(value)
    assert [key for key, values in found.items() if len(values) > 1] == []
