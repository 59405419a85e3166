"""tools/list_configs.py: the table that docs/configs.md shows is the one that the files give."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("configs", "reproduction")
BEGIN, END = "<!-- configs: begin -->", "<!-- configs: end -->"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("list_configs", ROOT / "tools/list_configs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.table()
    module.table = lambda: text  # which takes seconds
    return module


def rows(tool):
    lines = [line.strip("| ").split(" | ") for line in tool.table().splitlines()]
    assert tuple(lines[0]) == tool.HEADER and {len(x) for x in lines} == {len(tool.HEADER)}
    return {cells[0].split("]")[0][1:]: cells[1:] for cells in lines[2:]}


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        (
            "COCO/retinanet_R_18_FPN_1x",
            "RetinaNet R-18|COCO 2017 train / val|[800, 1333]|-|-|-|-|12 epochs|Table 4",
        ),
        (
            "COCO/retinanet_R_50_FPN_1x_600_iou_balanced_loc",
            "RetinaNet R-50|COCO 2017 train / val|[600, 1000]|-|1.5|3.049|-|12 epochs"
            "|Tables 2 and 3",
        ),
        (
            "COCO/retinanet_X_101_32x4d_FPN_1x_iou_balanced_test_dev",
            "RetinaNet X-101-32x4d|COCO 2017 train / test-dev|[800, 1333]|1.5|1.5|auto|-|12 epochs"
            "|Table 1",
        ),
        (
            "COCO/centernet_R_18_140e_bofl",
            "CenterNet resnet18|COCO 2017 train / val|512 / original|-|-|-|BOFL, eta 0.8"
            "|140 epochs|Table 3 (BOFL)",
        ),
        (
            "Digits/retinanet_small_iou_balanced",
            "RetinaNet ResNet 24-32-64-128|digits train / val|128|1.5|1.5|3.049|-|5 epochs|-",
        ),
        (
            "VOC/ssd300_iou_balanced",
            "SSD VGG16|VOC 07+12 trainval / 07 test|300|1.5|1.5|auto|-|120 epochs|Table 5",
        ),
        (
            "VOC/retinanet_R_101_FPN_1x_iou_balanced",
            "RetinaNet R-101|VOC 07+12 trainval / 07 test|[600, 1000]|1.5|1.5|2.369|-|12 epochs"
            "|Table 5",
        ),
        (
            "Cityscapes/retinanet_R_50_FPN",
            "RetinaNet R-50|Cityscapes train / val|[800-1024, 2048]|-|-|-|-|64 epochs|Table 6",
        ),
        (
            "COCO/foveabox_R_50_FPN_1x_iou_balanced",
            "FoveaBox R-50|COCO 2017 train / val|[800, 1333]|1.5|1.5|auto|-|12 epochs|Table 1",
        ),
        (
            "COCO/faster_rcnn_R_50_FPN_1x_600_iou_balanced",
            "Faster R-CNN R-50|COCO 2017 train / val|[600, 1000]|1.3|1.5|2.4|-|12 epochs|Table 7",
        ),
        (
            "COCO/fcos_MNV2_FPN_1x_bofl",
            "FCOS mobilenetv2_100|COCO 2017 train / val|[800, 1333]|-|-|-|BOFL, eta 0.999|12 epochs"
            "|Table 9 (BOFL)",
        ),
        (
            "COCO/centernet_MNV2_140e",
            "CenterNet mobilenetv2_100|COCO 2017 train / val|512|-|-|-|-|140 epochs"
            "|Tables 1, 6, 8, 10 and 11 (BOFL)",
        ),
        (
            "COCO/centernet_DLA_34_140e_bofl",
            "CenterNet dla34|COCO 2017 train / val|512 / original|-|-|-|BOFL, eta 0.8|140 epochs"
            "|Table 3 (BOFL)",
        ),
        (
            "COCO_LT/centernet_MNV2_140e_bofl",
            "CenterNet mobilenetv2_100|COCO-LT train / val|512|-|-|-|BOFL, eta 0.8, 5%|140 epochs"
            "|Table 12 (BOFL)",
        ),
        (
            "COCO_LT/fcos_R_50_FPN_1x_bofl",
            "FCOS R-50|COCO-LT train / val|[800, 1333]|-|-|-|BOFL, eta 0.999, 5%|12 epochs|-",
        ),
        (
            "Digits/retinanet_small_long_tail_bofl",
            "RetinaNet ResNet 24-32-64-128|digits long-tailed train / val|128|-|-|-|BOFL, eta 0.8"
            "|5 epochs|-",
        ),
    ],
)
def test_cells_of_a_config(tool, name, cells):
    assert rows(tool)[name] == cells.split("|")


def test_each_file_has_a_row_whose_link_leads_to_it(tool):
    files = {f for f in (ROOT / "configs").glob("*/*.py") if f.parent.name != "common"}
    links = {line.split("](")[1].split(")")[0] for line in tool.table().splitlines()[2:]}
    assert {(ROOT / "docs" / link).resolve() for link in links} == files


def test_a_person_would_sort_them_so(tool):
    names = [name for name in rows(tool) if name.startswith("COCO/retinanet_R_")]
    assert [name for name in names if "iou_balanced" not in name] == [
        "COCO/retinanet_R_18_FPN_1x",
        "COCO/retinanet_R_50_FPN_1x",
        "COCO/retinanet_R_50_FPN_1x_600",
        "COCO/retinanet_R_101_FPN_1x",
    ]


def test_write_and_check(tool, tmp_path, capsys):
    file = tmp_path / "page.md"
    file.write_text(f"# Title\n{BEGIN}\nold\n{END}\n\nThe end, with ä.\n", "utf-8")
    with pytest.raises(SystemExit) as stale:
        tool.main(["--check", str(file)])
    # A message as the code of sys.exit is printed as one line, with exit status 1.
    assert "stale" in stale.value.code and "\n" not in stale.value.code
    assert "old" in file.read_text("utf-8")

    tool.main(["--write", str(file)])
    assert file.read_text("utf-8") == (
        f"# Title\n{BEGIN}\n\n{tool.table()}\n\n{END}\n\nThe end, with ä.\n"
    )
    tool.main(["--check", str(file)])
    before = file.stat().st_mtime_ns
    tool.main(["--write", str(file)])
    assert file.stat().st_mtime_ns == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["nothing", "{begin}\n", "{end}\n{begin}\n", "{begin}\n" * 2])
def test_a_file_without_the_markers_is_refused(tool, tmp_path, text):
    file = tmp_path / "page.md"
    file.write_text(text.format(begin=BEGIN, end=END))
    for flag in ("--check", "--write"):
        with pytest.raises(SystemExit, match="Expected one line <!-- configs: begin -->"):
            tool.main([flag, str(file)])


def test_a_missing_file_is_one_line(tool, tmp_path):
    with pytest.raises(SystemExit, match="No such file"):
        tool.main(["--check", str(tmp_path / "none.md")])


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_up_to_date(tool, page):
    tool.main(["--check", str(ROOT / f"docs/{page}.md")])


def test_every_table_is_on_a_page(tool):
    text = "".join((ROOT / f"docs/{page}.md").read_text("utf-8") for page in PAGES)
    assert [text.count(tool.BEGIN.format(name)) for name in tool.BLOCKS] == [1] * len(tool.BLOCKS)
