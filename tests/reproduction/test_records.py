"""The records are the papers' tables, all of them, and a wrong record is named."""

import shutil
import subprocess
import sys

import pytest

from iou_balanced.evaluation import MAIN_METRICS
from iou_balanced.evaluation.voc_metrics import _METRICS as VOC_METRICS
from iou_balanced.reproduction import (
    RecordError,
    all_rows,
    all_tables,
    find_figure,
    find_table,
    load_paper,
    papers,
)
from iou_balanced.reproduction.records import FOLDER

# Lines of each table as printed, and the sum of their AP numbers, counted and added from the
# papers' text by a script that knew nothing of the records.
PRINTED = {
    "iou": ([21, 4, 5, 8, 10, 4, 4], [4674.6, 1469.0, 348.9, 3040.7, 3407.0, 1049.4, 1509.5]),
    "bofl": (
        [6, 4, 8, 4, 4, 4, 2, 4, 4, 7, 2, 5],
        [1066.8, 404.5, 936.2, 405.0, 394.5, 395.4, 202.8, 394.9, 485.3, 683.4, 104.9, 253.8],
    ),
}


@pytest.mark.parametrize("key", PRINTED)
def test_all_rows_of_the_papers_are_there(key):
    lines, sums = PRINTED[key]
    tables = papers()[key].tables
    assert [table.number for table in tables] == list(range(1, len(lines) + 1))
    assert [table.lines for table in tables] == lines
    # A line of Table 3 of IoU-balanced losses is two trainings, and two records.
    twice = {"iou/3"}
    assert [len(t.rows) for t in tables] == [t.lines * (1 + (t.id in twice)) for t in tables]
    found = [sum(sum(row.published.values()) for row in table.rows) for table in tables]
    assert found == pytest.approx(sums)


def test_how_many_there_are():
    assert [len(paper.rows) for paper in papers().values()] == [61, 54]
    assert [len([r for r in p.rows if r.config]) for p in papers().values()] == [54, 54]
    assert [len(paper.figures) for paper in papers().values()] == [4, 2]
    assert len({row.id for row in all_rows()}) == 115


@pytest.mark.parametrize(
    ("row", "metric", "value"),
    [  # single cells, read from the papers by eye
        ("iou/1/retinanet_X_101_both", "APl", 51.0),
        ("iou/1/ssd300", "APs", 7.0),
        ("iou/2/both", "AP90", 13.5),
        ("iou/3/lambda_0.5", "AP", 35.0),
        ("iou/4/R_101_both", "AP75", 41.6),
        ("iou/5/ssd512_both", "AP80", 47.0),
        ("iou/6/R_50_both", "AP75", 41.3),
        ("iou/7/loc", "AP60", 52.3),
        ("bofl/1/bb_ls", "APs", 10.5),
        ("bofl/3/DLA_34_bofl", "AP75", 40.6),
        ("bofl/9/MNV2", "AP50", 47.5),
        ("bofl/11/eql", "AP_tail", 25.4),
        ("bofl/12/bofl_5", "AP50", 27.0),
    ],
)
def test_a_cell(row, metric, value):
    assert find_table(row.rpartition("/")[0]).row(row).published[metric] == value


def test_columns_are_metrics_of_ours():
    for table in all_tables():
        known = VOC_METRICS if table.id == "iou/5" else {*MAIN_METRICS, "AP_tail", "AP_head"}
        assert set(table.columns.values()) <= set(known), table.id
        for column, metric in table.columns.items():  # APS is APs
            assert column.lower() == metric.lower()


def test_pages_rise():
    for paper in papers().values():
        for items in (paper.tables, paper.figures):
            pages = [item.page for item in items]
            assert pages == sorted(pages) and pages[-1] <= {"iou": 22, "bofl": 9}[paper.key]


def test_the_records_need_no_torch():
    code = "import sys, iou_balanced.reproduction as r; r.papers(); r.plan_runs(r.all_rows())"
    code += "; sys.exit(bool({'torch', 'detectron2', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_is_asked_for_and_is_not_there():
    with pytest.raises(RecordError, match=r"no table 'bofl/13'; there are iou/1, .*bofl/12$"):
        find_table("bofl/13")
    with pytest.raises(RecordError, match="no figure 'bofl/3'; there are iou/1"):
        find_figure("bofl/3")
    with pytest.raises(RecordError, match="bofl/7 has no row 'x'; it has step, epoch"):
        find_table("bofl/7").row("x")


@pytest.fixture
def changed(tmp_path):
    """Loads a paper's records after a change of their text."""

    def load(old, new):
        file = tmp_path / "records.yaml"
        shutil.copy(FOLDER / "balance_oriented_focal_loss.yaml", file)
        text = file.read_text("utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), "utf-8")
        return load_paper(file)

    return load


TABLE = "{id: eta_0.6, name: "
SECOND = "records.yaml, table bofl/2, row 'eta_0.6': "


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (TABLE, "{id: eta_0.6, nam: ", "unknown key 'nam'; did you mean name?|name is missing"),
        (TABLE, "{id: eta_0.7, name: ", r"table bofl/2, rows\[1\]: the id 'eta_0.7' stands twice"),
        (TABLE, "{id: a/b, name: ", "row 'a/b': id may have letters"),
        (TABLE, "{id: eta_0.6, cited: x, name: ", SECOND + "config is given, but a cited row"),
        ("[27.5, 45.3, 28.6]", "[27.5, 45.3]", SECOND + "published has 2 numbers, but .* 3 col"),
        ("[27.5, 45.3, 28.6]", "[27.5, x, 28.6]", SECOND + "published AP50 is 'x'"),
        ("[27.5, 45.3, 28.6]", "[275, 45.3, 28.6]", SECOND + "published AP is 275"),
        ("eta: 0.6}", "etta: 0.6}", SECOND + "but has 'class_balance.etta'"),
        ("losses: bofl, but: {class_balance.eta: 0.6}", "losses: bof", SECOND + ".*mean bofl?"),
        ("[model.class_balance.eta=0.6,", "[eta,", SECOND + "overrides has 'eta'; .* key=value"),
        ("    page: 5\n", "", "table bofl/4: page is missing"),
        ("    page: 5\n", "    page: five\n", "table bofl/4: page is 'five'; it has to be a int"),
        ("  - number: 5\n", "  - number: 6\n", "table bofl/5: number is 6"),
        ("number: 2, page: 5", "number: 3, page: 5", "figure bofl/2: number is 3"),
        ("drawn_from: losses", "drawn_from: air", "figure bofl/1: drawn_from is 'air'; .* runs"),
        ("base: centernet", "base: any", r"variants\[0\]: base is 'any'"),
        ("paper: bofl", "papr: bofl", "records.yaml: (unknown key 'papr'|paper is missing)"),
        ("    page: 5\n", "    page: 5\n    page: 6\n", "records.yaml, line .*'page' stands twice"),
        ("paper: bofl", "paper: [", "records.yaml, line"),
        ("{type: GIoULoss}", "{kind: GIoULoss}", "losses.fcos.box_loss: type is missing"),
    ],
)
def test_a_wrong_record_is_named(changed, old, new, message):
    with pytest.raises(RecordError, match=message) as error:
        changed(old, new)
    assert "\n" not in str(error.value) and str(error.value).startswith("records.yaml")
