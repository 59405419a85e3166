"""The page says what the analysis says, and nothing of the files runs in it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iou_balanced.analysis.page import ImageFinder, format_table, make_page

from .data import EVIL, NAMES, NUM_IMAGES, analysis_of, detections, write_truth
from .reading import Page

ROOT = Path(__file__).resolve().parents[3]
RUNS = {"base & <i>co</i>": detections(6), "ours": detections(1, missing=[(0, 0)])}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return write_truth(tmp_path_factory.mktemp("truth"))


@pytest.fixture(scope="module")
def analysis(truth):
    counts = {EVIL: 1000, "dog": 100, "bird": 10}
    path = truth.parent / "counts.json"
    path.write_text(json.dumps(counts))
    return analysis_of(truth, RUNS, train_counts=path)


@pytest.fixture(scope="module")
def made(analysis):
    return make_page(analysis, notes={"seed <1>": "a & b"})


@pytest.fixture(scope="module")
def page(made):
    return Page(made.html)


def test_words_and_numbers_are_those_of_the_analysis(analysis, page):
    words = page.words()
    for sentence in analysis.verdict:
        assert sentence in words
    rows = page.rows()
    for metric in ("AP", "AP50", "AP90", "AP_tail"):
        values = [table[metric]["value"] for table in analysis.runs.values()]
        assert [cell.split()[0] for cell in rows[metric][:2]] == [f"{v:.1f}" for v in values]
        number = analysis.differences["ours"][metric]
        expected = f"{number['value']:+.1f} [{number['low']:+.1f}, {number['high']:+.1f}]"
        assert rows[metric][2].lstrip("▲▼ ") == expected.replace("-", "\u2212")
    assert rows["AP"][2].startswith("▲")  # 6 pixels of noise against 1
    assert "APs" not in rows  # there is no small object


def test_every_class_has_a_row_and_a_place_for_its_images(page):
    (classes,) = (t for t in page.tables if t[0][0] == "class" and "objects" in t[0])
    assert {row[0] for row in classes[1:]} == set(NAMES)
    assert all(row[1:4] == ["8", "8", row[3]] for row in classes[1:])
    links = [link for link in page.links if link.startswith("#class-")]
    assert len(links) == 3 and {link[1:] for link in page.links if link[0] == "#"} <= set(page.ids)


def test_all_text_is_text(made, page):
    assert page.seen.count("script") == 1 and "i>co" not in "".join(
        re.findall(r"<[^>]*>", made.html)
    )
    words = page.words()
    for text in (EVIL, "base & <i>co</i>", "seed <1>", "a & b"):
        assert text in words


def test_the_page_needs_nothing_else(made):
    sources = re.findall(r"""(?:src|url\(|href)=?["'(]?([^"')\s>]+)""", made.html)
    allowed = ("#", "data:image/jpeg;base64,")
    assert all(s.startswith(allowed) for s in sources if s not in (")", "{{"))
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", made.html)


def test_it_can_be_read_without_seeing(page):
    assert all(page.labels) and len(page.labels) > 20
    assert len(page.ids) == len(set(page.ids))
    scopes = [a.get("scope") for t, a in page.elements if t == "th"]
    assert scopes and set(scopes) <= {"col", "row"}


def test_boxes_below_the_least_score_are_hidden_at_first(page):
    boxes = [a for t, a in page.elements if t == "b" and "data-s" in a]
    (least,) = (float(a["value"]) for t, a in page.elements if a.get("type") == "range")
    assert boxes and all(("hidden" in a) == (float(a["data-s"]) < least) for a in boxes)


def test_charts_follow_the_colors_of_the_page(made):
    svg = made.html[made.html.index("<figure") :]
    assert "var(--run0)" in svg and "var(--ink)" in svg and "#0072b2" not in svg


def test_three_runs_of_one_without_detections(truth):
    runs = {**RUNS, "none": []}
    page = Page(make_page(analysis_of(truth, runs), num_images=2).html)
    assert page.rows()["AP"][2].startswith("0.0")
    assert len(page.of_class("div", "panel")) == 2 * 3


def test_a_single_run(truth):
    analysis = analysis_of(truth, {"ours": RUNS["ours"]})
    page = Page(make_page(analysis).html)
    assert "Images that lower the AP most" in page.words()
    assert page.tables[0][0] == ["metric", "ours"] and "p" not in page.rows()["AP"]
    first = analysis.changes["runs"]["ours"]["images"][0]
    assert first["image_id"] == 10 and first["contribution"] < 0  # where an object is missed


def test_table_for_the_terminal(analysis):
    lines = format_table(analysis).splitlines()
    assert re.search(r"metric +base & <i>co</i> +ours +difference +p", lines[0])
    ap = analysis.differences["ours"]["AP"]["value"]
    assert lines[2].startswith("AP ") and f"+{ap:.1f} [" in lines[2] and " *" in lines[2]
    assert lines[-1] == "* more than noise"


def test_interrupted_it_writes_nothing(made, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    figures = {"ap_by_iou.png": made.figures["ap_by_iou.png"]}
    with pytest.raises(KeyboardInterrupt):
        replace(made, figures={**figures, "b.png": interrupt}).write(tmp_path / "report")
    assert not (tmp_path / "report").exists()
    page, png = replace(made, figures=figures).write(tmp_path / "report")
    assert page.read_text(encoding="utf-8") == made.html
    assert png.read_bytes().startswith(b"\x89PNG") and png.name == "ap_by_iou.png"
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.html", "figures"}


def test_what_is_missing_is_named(analysis, monkeypatch):
    for name, module in (("matplotlib", "matplotlib.figure"), ("jinja2", "jinja2")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=rf"needs {name}.*iou_balanced\[analysis\]"):
                make_page(analysis)
    with pytest.raises(ValueError, match="nowhere is no folder of images"):
        ImageFinder("", "nowhere")


def test_the_tool_needs_neither_torch_nor_detectron2(truth, tmp_path):
    for name, found in RUNS.items():
        (tmp_path / f"{name[:4]}.json").write_text(json.dumps(found))
    arguments = [str(truth), "plain=base.json", "ours=ours.json", "--draws", "10"]
    code = (
        "import runpy, sys\n"
        "for name in ('torch', 'detectron2', 'torchvision'): sys.modules[name] = None\n"
        f"sys.argv = ['analyze.py', *{arguments!r}, '--processes', '1']\n"
        f"runpy.run_path({str(ROOT / 'tools/analyze.py')!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    report = tmp_path / "report"
    assert {p.name for p in report.iterdir()} == {
        *("report.html", "figures", "analysis.json", "analysis.csv")
    }
    assert (
        len(Page((report / "report.html").read_text()).of_class("div", "panel")) == 2 * NUM_IMAGES
    )
    assert (report / "figures/most_changed.png").stat().st_size > 1000
