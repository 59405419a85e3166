"""report.html of a training, and tools/compare.py on what trainings leave."""

import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from iou_balanced.analysis.run_folder import read_run_folder
from iou_balanced.engine import main, report
from tests.analysis.page.reading import Page

from .colors import ORDER, OTHER, args_for, coco_set, knows, voc_set
from .helpers import ROOT, make_args, read_metrics

BOFL = str(ROOT / "configs/Digits/retinanet_small_long_tail_bofl.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training with class weights, whose folder holds a page."""
    folder = tmp_path_factory.mktemp("run") / "bofl"
    opts = [f"train.output_dir={folder}", "train.report=True"]
    main(make_args(BOFL, opts=opts))
    return folder


def checkpoint(folder, classes=ORDER):
    torch.save({"model": knows(classes).state_dict(), "class_names": classes}, folder / "m.pth")
    return f"train.init_checkpoint={folder}/m.pth"


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_training_leaves_a_page(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    records = read_metrics(run)
    last = records[max(records)]
    number = page.rows()["AP"][0].split()[0]
    assert number == f"{last['bbox/AP']:.1f}"
    assert "Loss by iteration: total_loss from" in " ".join(filter(None, page.labels))
    assert "Class weights in force: iteration 4" in page.words()
    (weights,) = (t for t in page.tables if t[0] == ["class", "weight"])
    assert [row[0] for row in weights[1:]] == [str(i) for i in range(10)]
    for name, weight in weights[1:]:
        assert float(weight) == pytest.approx(records[3][f"class_weight/{name}"], abs=6e-4)
    assert len(page.of_class("figure", "images")) > 0  # they are found
    assert not list(run.glob("analysis.*")) and not (run / "figures").exists()


def test_an_evaluation_writes_it_too_and_the_numbers_are_the_evaluators(run, tmp_path):
    opts = [f"train.init_checkpoint={run}/model_final.pth", f"train.output_dir={tmp_path}"]
    results = main(make_args(BOFL, opts=[*opts, "train.report=True"], eval_only=True))["bbox"]
    assert (tmp_path / "report.html").exists()
    folder = read_run_folder(tmp_path)
    analysis = report._analyze(folder, "x")
    for name, value in analysis.runs["x"].items():
        if name in results:
            assert value["value"] == pytest.approx(results[name], abs=1e-9, nan_ok=True), name


def test_switched_off_there_is_none(run, tmp_path):
    opts = [f"train.init_checkpoint={run}/model_final.pth", f"train.output_dir={tmp_path}"]
    main(make_args(BOFL, opts=opts, eval_only=True))
    assert not (tmp_path / "report.html").exists()


@pytest.fixture
def colors_eval(tmp_path):
    """Evaluates the detector of colors; gives (output folder, results)."""

    def evaluate(data, *opts):
        out = tmp_path / "out"
        options = [*data, checkpoint(tmp_path), f"train.output_dir={out}", "train.report=True"]
        return out, main(args_for(*options, *opts, eval_only=True))

    return evaluate


def test_data_sets_without_a_json_file(tmp_path, colors_eval):
    data = voc_set(tmp_path / "voc", ORDER, "test")
    # An object of the class blue that is not there: difficult, so that it is not missed.
    xml = tmp_path / "voc/Annotations/red.xml"
    text = xml.read_text()
    extra = text[text.index("\t<object>") : text.index("</annotation>")]
    extra = extra.replace("red", "blue").replace(">0</difficult>", ">1</difficult>")
    xml.write_text(text.replace("</annotation>", extra + "</annotation>"))
    out, results = colors_eval(data, "dataloader.evaluator.metric=area")
    assert results["bbox"]["AP"] == pytest.approx(100)
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.rows()["AP"][0].split()[0] == "100.0"
    assert "1 difficult objects are left aside." in page.words()
    assert len(json.loads((out / "inference/coco_instances_results.json").read_text())) == 3


def test_classes_of_another_order(tmp_path, colors_eval):
    out, _ = colors_eval(coco_set(tmp_path, OTHER, "test"))
    rows = Page((out / "report.html").read_text(encoding="utf-8")).tables
    (classes,) = (t for t in rows if t[0][0] == "class" and "objects" in t[0])
    assert {row[0]: row[-1].split()[0] for row in classes[1:]} == dict.fromkeys(ORDER, "100.0")


def test_a_failure_is_a_warning(tmp_path, colors_eval, monkeypatch, log):
    def fail(*args, **kwargs):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr(report, "make_page", fail)
    out, results = colors_eval(coco_set(tmp_path, ORDER, "test"))
    assert results["bbox"]["AP"] == pytest.approx(100) and not (out / "report.html").exists()
    assert "No report.html: RuntimeError: no luck" in log()


def test_large_results_and_other_processes(tmp_path, colors_eval, monkeypatch, log):
    monkeypatch.setattr(report, "LARGEST", 10)
    out, _ = colors_eval(coco_set(tmp_path, ORDER, "test"))
    assert "too large to be analysed within a training; tools/compare.py" in log()
    monkeypatch.setattr(report.comm, "is_main_process", lambda: False)
    colors_eval(coco_set(tmp_path, ORDER, "test"))
    assert not (out / "report.html").exists()


def test_several_evaluators_and_what_an_earlier_run_left(tmp_path):
    from omegaconf import OmegaConf

    cfg = OmegaConf.create(
        {
            "dataloader": {"evaluator": [{"output_dir": None}, {"output_dir": f"{tmp_path}/b"}]},
            "train": {"output_dir": str(tmp_path), "report": True},
        }
    )
    assert report._evaluated_folders(cfg) == [f"{tmp_path}/inference", f"{tmp_path}/b"]
    for name in ("inference", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "analysis_inputs.json").write_text("{}")
    assert report._write_pages_since(cfg, np.inf) == []


def compare(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments), "--processes", "1"])
    load_tool("compare").main()


def test_compare_two_folders(run, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    shutil.copytree(run / "inference", other / "inference")
    shutil.copy(run / "metrics.json", other)
    shutil.copy(run / "config.yaml", other)
    # As a training of before left it.
    (other / "inference/analysis_inputs.json").unlink()
    options = ["--output-dir", tmp_path / "report", "--draws", 10]
    compare(monkeypatch, f"plain={run}", other, *options)
    assert "other and plain have the same AP" in capsys.readouterr().out
    before = (tmp_path / "report/report.html").read_bytes()
    with pytest.raises(
        SystemExit, match=r"^compare: --output-dir .*report has report\.html already"
    ):
        compare(monkeypatch, other, f"plain={run}", *options)
    assert (tmp_path / "report/report.html").read_bytes() == before
    page = Page((tmp_path / "report/report.html").read_text(encoding="utf-8"))
    assert page.tables[0][0][:3] == ["metric", "plain", "other"]
    assert "Loss by iteration: plain from" in " ".join(filter(None, page.labels))


def test_compare_refuses_what_does_not_belong_together(run, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"compare: .*nothing has no analysis_inputs\.json"):
        compare(monkeypatch, run, tmp_path / "nothing")
    other = tmp_path / "other"
    shutil.copytree(run / "inference", other)
    inputs = json.loads((other / "analysis_inputs.json").read_text())
    (other / "analysis_inputs.json").write_text(json.dumps({**inputs, "data_set": "birds"}))
    with pytest.raises(SystemExit, match=r"one on 'birds': evaluate both on one data set"):
        compare(monkeypatch, run, f"x={other}")
    moved = {**inputs, "ground_truth": "/nowhere/truth.json"}
    (other / "analysis_inputs.json").write_text(json.dumps(moved))
    with pytest.raises(SystemExit, match=r"compare: /nowhere/truth\.json, .* does not exist"):
        compare(monkeypatch, other)
    (other / "analysis_inputs.json").write_text("{}")
    with pytest.raises(SystemExit, match="lacks data_set, ground_truth, detections"):
        compare(monkeypatch, other)
