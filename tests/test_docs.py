"""README.md and docs/: every code block runs or parses, and every link leads somewhere."""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser
from PIL import Image

from iou_balanced.engine import load_config
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

from .docs_blocks import PAGES, ROOT, blocks, commands, prose, read
from .docs_files import make_detector, make_photos

LANGUAGES = {"python", "yaml", "sh", "text", "bibtex", "{eval-rst}", "{include}", "{toctree}"}
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
SETUP = (ROOT / "setup.py").read_text("utf-8")
COMMANDS = [(b.where, c) for page in PAGES for b in blocks(page, "sh") for c in commands(b)]
by_page = pytest.mark.parametrize("page", PAGES)


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= 200
    for name in ("make test", "make demo"):
        assert name in read("README.md")


def test_pictures_are_small():
    for file in (ROOT / "docs/images").iterdir():
        assert file.suffix == ".png" and file.stat().st_size < 150_000
        assert any(f"images/{file.name})" in read(page) for page in PAGES), f"{file.name} is unused"


@by_page
def test_every_block_has_a_language(page):
    assert read(page).count("```") % 2 == 0
    assert {block.language for block in blocks(page)} <= LANGUAGES


@by_page
def test_rows_of_tables_are_as_long_as_their_head(page):
    table = 0
    for line in prose(page).splitlines():
        if not line.startswith("|"):
            table = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
        table = table or cells
        assert cells == table, line


# Links.


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    words = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", word).strip().replace(" ", "-") for word in words}


@by_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.is_file(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(str(file.resolve().relative_to(ROOT))), f"{page}: {target}"


def test_every_page_is_in_the_site():
    listed = {"docs/index.md"}
    for index in ("docs/index.md", "docs/api/index.md"):
        (toctree,) = blocks(index, "{toctree}")
        names = [x for x in toctree.code.splitlines() if x and not x.startswith(":")]
        listed |= {f"{Path(index).parent}/{name}.md" for name in names}
    assert listed == {page for page in PAGES if page.startswith("docs/")}


@by_page
def test_paths_in_the_text_exist(page):
    for path in re.findall(r"`((?:configs|docs|findings|tests|tools)/[\w./]+)`", prose(page)):
        made_later = "_build" in path or path == "findings/NAME.sh"
        assert made_later or (ROOT / path).exists(), f"{page}: {path}"


# Python.


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_runs(page, tmp_path, monkeypatch):
    """The blocks of a page one after the other, as a reader would type them."""
    if page == "docs/tutorial.md":
        make_photos(tmp_path)
    if page == "docs/predict.md":
        make_detector(tmp_path)
    for file in blocks(page, "yaml")[:1]:
        (tmp_path / "my_detector.yaml").write_text(file.code)
    names = {"__name__": "page"}
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        for block in blocks(page, "python"):
            # The line numbers of a traceback are those of the page.
            exec(compile("\n" * block.line + block.code, block.page, "exec"), names)
    if page == "docs/tutorial.md":
        assert "<html" in (tmp_path / "output/photos/report/report.html").read_text("utf-8")


# yaml.


@pytest.mark.parametrize("block", [b for p in PAGES for b in blocks(p, "yaml")], ids=lambda b: b[0])
def test_yaml_has_keys_that_exist(block):
    cfg = get_cfg()
    for add in (add_iou_balanced_config, add_class_balance_config, add_centernet_config):
        add(cfg)
    loaded = yaml.safe_load(block.code)
    cfg.merge_from_other_cfg(type(cfg)(loaded))


# Shell.


class Parsed(Exception):
    """In the place of what a command would do after its arguments are read."""


def parse(script, arguments, monkeypatch, module=False):
    """Let a script or module read its arguments, and stop it there."""
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        raise Parsed(real(self, *args, **kwargs))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    run = runpy.run_module if module else runpy.run_path
    with pytest.raises(Parsed):
        run(str(script), run_name="__main__")


def check_training(words):
    args = default_argument_parser().parse_args(words)
    load_config(str(ROOT / args.config_file), args.opts)


def check_pip(words):
    assert words[:2] == ["install", "-e"]
    extras = re.search(r"\[(.*)\]", words[2])
    for extra in extras[1].split(",") if extras else []:
        assert f'    "{extra}": [' in SETUP, f"setup.py has no extra {extra}"


@pytest.mark.parametrize(("where", "command"), COMMANDS)
def test_a_command(where, command, monkeypatch):
    program, *words = shlex.split(command)
    if program == "torchrun":
        place = next(i for i, word in enumerate(words) if word.endswith(".py"))
        program, words = words[place], words[place + 1 :]
    if program == "tools/train_net.py":
        check_training(words)
    elif program in ("tools/predict.py", "tools/export.py"):
        parse(ROOT / program, words, monkeypatch)
    elif program == "make":
        for word in words:
            variable, is_variable, _ = word.partition("=")
            wanted = rf"\$\({variable}\)" if is_variable else rf"^{word}:"
            assert re.search(wanted, MAKEFILE, flags=re.MULTILINE), f"the Makefile has no {word}"
    elif program == "pip":
        check_pip(words)
    elif program == "bash":
        assert (ROOT / words[0]).is_file()
    elif program == "source":
        assert words == [".venv/bin/activate"]
    elif program == "mypy" and not words:
        assert f"$(BIN)/{program}\n" in MAKEFILE
    elif program == "ruff":
        assert words in (["check", "."], ["format", "--check", "."])
    elif program == "python" and words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:])
    elif program == "python" and words == ["-m", "iou_balanced.doctor"]:
        pass  # takes no arguments
    elif program == "python" and words[0] == "-m":
        parse(words[1], words[2:], monkeypatch, module=True)
    elif program == "python":
        parse(ROOT / words[0], words[1:], monkeypatch)
    else:
        pytest.fail(f"{where}: nobody checks {command}")


def test_make_targets_in_the_text():
    for page in PAGES:
        for target in re.findall(r"`make ([\w-]+)`", read(page)):
            assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), f"{page}: make {target}"


def overrides_of_the_page():
    """The rows of the table in docs/training.md."""
    table = read("docs/training.md").split("| override | what it does |\n|---|---|\n")[1]
    rows = table.split("\n\n")[0].splitlines()
    return [re.match(r"\| `([^`]+)` \|", row)[1].split() for row in rows]


@pytest.mark.parametrize("overrides", overrides_of_the_page(), ids=" ".join)
def test_an_override_of_the_table(overrides):
    config = "retinanet_R_50_FPN_1x_iou_balanced"
    if "roi_heads" in overrides[0]:
        config = "faster_rcnn_R_50_FPN_1x_600_iou_balanced"
    if "class_balance" in overrides[0]:
        config = "fcos_R_50_FPN_1x_bofl"
    load_config(str(ROOT / f"configs/COCO/{config}.py"), overrides)


# Tables from records.


@pytest.fixture(scope="module")
def list_results():
    return runpy.run_path(str(ROOT / "tools/list_results.py"), run_name="list_results")


def test_tables_are_those_of_the_records(list_results):
    list_results["main"](["--check"])
    pages = read("docs/results.md") + read("docs/speed.md")
    shown = set(re.findall(r"<!-- table: (\w+)", pages))
    assert shown - {"end"} == {file.stem for file in (ROOT / "benchmarks/records").glob("*.json")}


def test_a_stale_table_is_one_line(list_results, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("<!-- table: bccd -->\nold\n<!-- table: end -->\n")
    monkeypatch.setitem(list_results["main"].__globals__, "PAGES", (page,))
    with pytest.raises(SystemExit, match="stale"):
        list_results["main"](["--check"])
    list_results["main"](["--write"])
    assert "old" not in page.read_text() and "| plain | 50.3 |" in page.read_text()
    list_results["main"](["--check"])


def test_cells_of_a_record(list_results):
    record = {
        "columns": ["seed", "losses", "AP", "times"],
        "rows": [[0, "plain", 1.25, [1.0, 2.0]], [0, "ours", 2.0, [1.5]], [1, "ours", 4.0, []]],
        "formats": {"times": "{:.2f}"},
        "summary": [["mean", "difference", "+1.8", ""]],
    }
    assert list_results["table"](record).splitlines()[2:] == [
        "| 0 | plain | 1.2 | 1.00, 2.00 |",
        "| 0 | ours | 2.0 | 1.50 |",
        "| 1 | ours | 4.0 |  |",
        "| mean | difference | +1.8 |  |",
    ]


def test_the_summary_of_the_digits_is_that_of_the_rows(list_results):
    record = list_results["load"]("digits")
    (summary,) = record["summary"]
    for i, name in enumerate(record["columns"][2:], start=2):
        ours, plain = (
            [row[i] for row in record["rows"] if row[1] == losses]
            for losses in ("IoU-balanced", "plain")
        )
        # Its numbers are of unrounded ones.
        assert float(summary[i]) == pytest.approx((sum(ours) - sum(plain)) / 3, abs=0.15), name


def test_the_figure(list_results, tmp_path):
    list_results["main"](["--figure", str(tmp_path / "ap.png")])
    assert Image.open(tmp_path / "ap.png").width > 300
