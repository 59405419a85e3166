import base64
import math
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from iou_balanced.evaluation import MAIN_METRICS, Run, format_comparison, write_comparison_report

from .helpers import SIZE, coco_dict

VOID = {"meta", "img"}
EVIL = "<b>cat & 'dog' $x$"


class Page(HTMLParser):
    """Checks that every element is closed, and collects text and pictures."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.seen, self.text, self.pictures, self.rows = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("th", "td", "span"):
            self.rows[-1][-1] += data


def metrics(**changes):
    values = dict.fromkeys(MAIN_METRICS, 50.0) | {"APl": math.nan}
    return {"bbox": values | {f"AP-{EVIL}": 12.34, "AP-two": math.nan} | changes}


def found(score, *bbox, category_id=3, image_id=100):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


@pytest.fixture
def runs():
    return [
        Run("base & co", metrics(), [found(0.9, 10, 10, 50, 50), found(0.1, 90, 90, 30, 30)]),
        Run("ours", metrics(AP=51.26, AP50=48.0, AP60=49.98), [found(0.8, 10, 12, 50, 50)]),
    ]


@pytest.fixture
def coco_gt():
    coco = COCO()
    coco.dataset = coco_dict([[(0, 10, 10, 50, 50)], []], names=[EVIL, "two"])
    coco.createIndex()
    return coco


def test_report(tmp_path, runs, coco_gt):
    image = tmp_path / "a <1>.png"
    Image.fromarray(np.zeros((SIZE, SIZE, 3), dtype=np.uint8)).save(image)
    path = write_comparison_report(
        tmp_path / "new" / "report.html",
        runs,
        coco_gt=coco_gt,
        images={100: image},
        title="A < B",
        notes={"seed": 1, "hardware <cpu>": "two & a half"},
    )
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    text = " ".join(page.text)
    for part in ("A < B", "hardware <cpu>", "two & a half", "a <1>.png", "base & co", EVIL):
        assert part in text
    assert "b" not in page.seen and "script" not in page.seen
    rows = {row[0]: row[1:] for row in page.rows if row[0]}
    assert rows["AP"] == ["50.0", "51.3 (+1.3)"]
    assert rows["AP50"] == ["50.0", "48.0 (\u22122.0)"]
    assert rows["AP60"] == ["50.0", "50.0 (0.0)"]  # -0.02 is not shown as -0.0
    assert rows["APl"] == ["\u2013", "\u2013"]
    assert rows[EVIL] == ["12.3", "12.3 (0.0)"]
    assert rows["detections"] == ["2", "1"]
    # 50 x 48 of the box are met: 2400 / 2600.
    assert rows["mean IoU [%]"] == ["50.0", "92.3"]

    assert len(page.pictures) == 3
    for picture in page.pictures:
        data = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"))
        assert data.startswith(b"\x89PNG") and picture["alt"]
    # The box with score 0.1 is below the floor for drawing.
    assert page.pictures[2]["alt"] == "a <1>.png. base & co: 1 boxes, ours: 1 boxes"
    # Nothing is loaded from anywhere.
    assert not re.search(r'(src|href)="(?!data:)', source) and "http" not in source


def test_report_of_runs_without_detections(tmp_path, coco_gt):
    runs = [Run("a", metrics()), Run("b", {})]
    path = write_comparison_report(tmp_path / "r.html", runs, coco_gt=coco_gt)
    rows = {row[0]: row[1:] for row in Page(path.read_text(encoding="utf-8")).rows if row[0]}
    assert rows["AP"] == ["50.0", "\u2013"] and rows["detections"] == ["0", "0"]
    assert rows["rank correlation of score and IoU"] == ["\u2013", "\u2013"]


def test_table_for_the_terminal(runs):
    runs.append(Run("flat", {"bbox/AP": 40.0}))
    lines = [line.split() for line in format_comparison(runs).splitlines()]
    assert lines[0] == ["metric", "base", "&", "co", "ours", "diff", "flat", "diff"]
    assert lines[2] == ["AP", "50.0", "51.3", "+1.3", "40.0", "-10.0"]
    assert lines[3] == ["AP50", "50.0", "48.0", "-2.0", "-", "-"]
    assert lines[-1] == ["APl", "-", "-", "-", "-", "-"]
    assert len(lines) == 2 + len(MAIN_METRICS)


def test_metrics_of_tail_and_head_where_there_are_any(runs):
    assert "AP_tail" not in format_comparison(runs)
    weighted = Run("weighted", {"AP": 50.0, "AP_tail": 27.9, "AP_head": 25.8}, [])
    lines = {line.split()[0]: line for line in format_comparison([*runs, weighted]).splitlines()}
    assert "27.9" in lines["AP_tail"] and "25.8" in lines["AP_head"]


def test_inner_metrics_are_taken_too():
    nested = {"bbox": {"AP": 1.0}}
    for given in (nested, nested["bbox"], {"bbox/AP": 1.0}):
        assert Run("a", given).box_metrics() == {"AP": 1.0}


def test_refuses(tmp_path, coco_gt, runs, monkeypatch):
    with pytest.raises(ValueError, match=r"distinct names, but got \['a', 'a'\]"):
        format_comparison([Run("a", {}), Run("a", {})])
    with pytest.raises(ValueError, match=r"distinct names, but got \[\]"):
        write_comparison_report(tmp_path / "r.html", [], coco_gt=coco_gt)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"iou_balanced\[demo\]"):
        write_comparison_report(tmp_path / "r.html", runs, coco_gt=coco_gt)
    assert not (tmp_path / "r.html").exists()
