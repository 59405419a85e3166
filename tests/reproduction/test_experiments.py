"""Experiments of our own: their records, their runs, and what is made of finished runs."""

import dataclasses
import json
import math
import re
import runpy
import sys
from pathlib import Path

import pytest

from iou_balanced.engine import load_config
from iou_balanced.reproduction import RecordError, all_experiments, find_experiment
from iou_balanced.reproduction.claims import all_claims, claims_record, judge
from iou_balanced.reproduction.experiment_report import (
    analyze_experiment,
    experiment_record,
    finished_rows,
)
from iou_balanced.reproduction.experiments import load_experiments, refuse_shared_folders
from iou_balanced.reproduction.numbers import format_difference, rounded
from iou_balanced.reproduction.run_files import read_json
from iou_balanced.reproduction.runs import plan_runs

ROOT = Path(__file__).resolve().parents[2]

EXPERIMENTS = sorted(all_experiments())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_is_a_config_with_overrides(name):
    runs = find_experiment(name).runs(seeds=1)
    assert len({run.name for run in runs}) == len(runs) >= 2
    configs = [load_config(f"configs/{run.config}.py", run.all_overrides) for run in runs]
    first = configs[0]
    for cfg in configs:
        # What is compared differs in losses and class weights only.
        assert cfg.train.max_iter == first.train.max_iter
        assert cfg.optimizer == first.optimizer and cfg.datasets == first.datasets
        assert cfg.model.backbone == first.model.backbone


def test_the_first_row_is_a_plain_baseline():
    for name in EXPERIMENTS:
        row = find_experiment(name).rows[0]
        if row.id == "plain":
            assert not row.overrides
            assert not row.config.endswith(("_iou_balanced", "_bofl"))


def test_rows_that_are_the_same_run_share_its_folder():
    one, other = find_experiment("photos/fod_iou"), find_experiment("photos/bccd_iou")
    first, second = (x.runs(seeds=2, rows=["both"]) for x in (one, other))
    assert [run.seed for run in first] == [0, 1]
    assert first[0].name.startswith("photos_fod/") and second[0].name.startswith("photos_bccd/")
    assert not set(plan_runs([])) and first[0].profile_overrides != second[0].profile_overrides


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: find_experiment("photos/nothing"), "no experiment 'photos/nothing'; there are "),
        (lambda: find_experiment("photos/fod_iou").row("x"), "no row 'x'; it has plain, both"),
        (lambda: find_experiment("photos/fod_iou").runs(seeds=0), "0 seeds"),
    ],
)
def test_what_there_is_not(ask, message):
    with pytest.raises(RecordError, match=message):
        ask()


def add_row(content, **values):
    """Put a row that evaluates behind the first."""
    row = {"id": "adjusted", "name": "a", "config": "Photos/fcos_lite0"}
    content["experiments"][0]["rows"].append(row | values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x["experiments"][0].update(data="sea"), r"experiments\[0\]: data is 'sea'"),
        (lambda x: x["experiments"][0].pop("title"), r"experiments\[0\]: title is missing"),
        (lambda x: x["experiments"][0]["rows"][0].pop("config"), "config is missing"),
        (lambda x: x["experiments"][0]["rows"].append({}), r"rows\[1\]: id is missing"),
        (lambda x: x["experiments"].append(x["experiments"][0]), "stands twice"),
        (
            lambda x: x["experiments"][0]["rows"].append(
                {"id": "other", "name": "p", "config": "Photos/fcos_lite0_bofl"}
            ),
            "rows need an id and a name each",
        ),
        (lambda x: add_row(x, evaluates="y"), r"'adjusted' evaluates 'y', which .* are plain"),
        (lambda x: add_row(x, evaluates="adjusted"), "evaluates 'adjusted', which is no training"),
        (
            lambda x: add_row(x, evaluates="plain", config="Photos/retinanet_lite0"),
            "'adjusted' and 'plain', which it evaluates, need one config",
        ),
        (lambda x: x["data"]["land"].pop("root"), "data 'land': root is missing"),
        (lambda x: x.update(seeds=3), "unknown key 'seeds'"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, change, message):
    content = {
        "data": {"land": {"title": "t", "source": "s", "root": "r", "overrides": [], "own": []}},
        "experiments": [
            {
                "id": "one",
                "data": "land",
                "title": "t",
                "paper": "iou",
                "planned_seeds": 1,
                "rows": [{"id": "plain", "name": "p", "config": "Photos/fcos_lite0"}],
            }
        ],
    }
    file = tmp_path / "file.yaml"
    file.write_text(json.dumps(content))
    assert load_experiments(file)[0].id == "file/one"
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message):
        load_experiments(file)


def test_rows_that_would_share_a_folder(tmp_path):
    """A folder is named by an override's last part, which those of two losses have in common."""
    one = find_experiment("photos/fod_iou")
    rows = [
        dataclasses.replace(one.rows[0], id=part, name=part, overrides=(f"model.{part}.weight=2",))
        for part in ("cls_loss", "box_loss")
    ]
    shared = dataclasses.replace(one, rows=tuple(rows))
    with pytest.raises(
        RecordError, match=r"fod_iou/cls_loss and \S*/box_loss would share .*weight"
    ):
        refuse_shared_folders([shared])
    # Two files whose data have one name, and other overrides.
    longer = dataclasses.replace(one, data_overrides=(*one.data_overrides, "train.max_iter=9"))
    with pytest.raises(RecordError, match="would share"):
        refuse_shared_folders([one, longer])
    refuse_shared_folders(all_experiments().values())


# What is made of finished runs.


BOX = [10.0, 10.0, 40.0, 40.0]


@pytest.fixture
def finished(tmp_path):
    """Runs of two rows on two images of two classes, the second row without the second class."""
    truth = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 100} for i in (1, 2)],
        "categories": [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": i, "bbox": BOX, "area": 1600.0, "iscrowd": 0}
            for i in (1, 2)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    experiment = find_experiment("photos/fod_iou")
    for row, classes in (("plain", (1, 2)), ("both", (1,))):
        for seed, run in enumerate(experiment.runs(seeds=2, rows=[row])):
            found = [
                {"image_id": i, "category_id": i, "bbox": BOX, "score": 0.9 - 0.1 * seed}
                for i in classes
            ]
            inference = run.folder(tmp_path) / "inference"
            inference.mkdir(parents=True)
            (inference / "found.json").write_text(json.dumps(found))
            inputs = {"data_set": "x", "ground_truth": str(tmp_path / "truth.json")}
            (inference / "analysis_inputs.json").write_text(
                json.dumps({**inputs, "detections": "found.json"})
            )
            metrics = dict.fromkeys(("AP", "AP50", "AP75", "AP80", "AP90"), 50.0 * len(classes))
            record = {
                "seed": seed,
                "metrics": metrics,
                "seconds": 1.0,
                "command": ["tools/train_net.py", f"train.output_dir={tmp_path}"],
                "git": {"commit": "0123456789", "modified": False},
                "hardware": {"cpu": "a CPU"},
                "versions": {"torch": "2"},
                "finished": "2026-01-01T00:00:00+00:00",
            }
            (run.folder(tmp_path) / "record.json").write_text(json.dumps(record))
    return experiment, tmp_path


def test_the_report_of_finished_runs(finished):
    experiment, folder = finished
    rows = finished_rows(experiment, folder)
    assert [len(x.folders) for x in rows] == [2, 2, 0, 0, 0, 0]
    analysis = analyze_experiment(experiment, folder, draws=50, permutations=50)
    record = experiment_record(experiment, rows, analysis)
    assert record["columns"] == ["losses", "seeds", "AP", "AP50", "AP75", "AP80", "AP90"]
    assert record["rows"][0] == ["baseline", "0, 1", *["100.0"] * 5]
    both = record["rows"][1]
    assert record["differences"]["both"]["AP"]["value"] == -50 and len(record["differences"]) == 1
    # Each class is on one image: no interval can be said.
    assert both[1:3] == ["0, 1", "-50.0"] and record["differences"]["both"]["AP"]["low"] is None
    assert record["rows"][2][1:] == ["-", *["not run"] * 5]
    assert record["runs"][0]["command"] == ["tools/train_net.py"]
    assert record["verdict"] and [run["seed"] for run in record["runs"]] == [0, 1, 0, 1]


def test_the_cost_of_a_row_is_a_multiple_of_the_baselines(finished):
    """Of the same seeds, and not of runs that were resumed."""
    experiment, folder = finished
    costs = {"plain": [(100.0, 800.0), (200.0, 800.0)], "both": [(110.0, 1000.0), (999.0, 1000.0)]}
    for row, of_seeds in costs.items():
        for run, (seconds, memory) in zip(
            experiment.runs(seeds=2, rows=[row]), of_seeds, strict=True
        ):
            path = run.folder(folder) / "record.json"
            record = json.loads(path.read_text()) | {"resumed": seconds == 999.0}
            record |= {"cpu_seconds": seconds, "peak_memory_mib": memory}
            path.write_text(json.dumps(record))
    rows = finished_rows(experiment, folder)
    analysis = analyze_experiment(experiment, folder, draws=20, permutations=20)
    record = experiment_record(experiment, rows, analysis)
    assert record["columns"][-2:] == ["CPU time", "memory"]
    assert [line[-2:] for line in record["rows"][:3]] == [["1.00"] * 2, ["1.10", "1.25"], ["-"] * 2]
    assert record["runs"][0]["cpu_seconds"] == 100.0


def change_record(experiment, folder, **changes):
    """record.json of the first run of the second row, with other values; None leaves one out."""
    path = experiment.runs(seeds=1, rows=["both"])[0].folder(folder) / "record.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))
    return path


def test_a_damaged_record(finished):
    experiment, folder = finished
    path = change_record(experiment, folder)
    path.write_text(path.read_text()[:40])
    with pytest.raises(RecordError, match=r"seed_0/record\.json is damaged: move it away"):
        finished_rows(experiment, folder)


def test_a_record_of_another_version(finished):
    experiment, folder = finished
    change_record(experiment, folder, metrics=None, versions=None)
    with pytest.raises(
        RecordError, match=r"record\.json lacks metrics, versions: is it of another"
    ):
        finished_rows(experiment, folder)


def test_a_run_of_other_overrides_is_not_reported(finished):
    """Its folder has the name of the row's overrides only, and those of the data set changed."""
    experiment, folder = finished
    run = experiment.runs(seeds=1, rows=["both"])[0]
    change_record(experiment, folder, overrides=run.all_overrides)
    assert len(finished_rows(experiment, folder)[1].folders) == 2
    changed = [x.replace("max_iter=900", "max_iter=90") for x in run.all_overrides]
    change_record(experiment, folder, overrides=changed)
    match = r"seed_0 holds a run of other overrides \(train.max_iter=90, train.max_iter=900\)"
    with pytest.raises(RecordError, match=match):
        finished_rows(experiment, folder)


def test_a_row_that_evaluates_is_reported_without_the_place_of_its_weights(finished):
    experiment, folder = finished
    plain, both, *others = experiment.rows
    # The same config and a row of its own, as an adjustment of the baseline's scores is one.
    both = dataclasses.replace(both, config=plain.config, evaluates="plain")
    experiment = dataclasses.replace(experiment, rows=(plain, both, *others))
    for trained, run in zip(
        find_experiment("photos/fod_iou").runs(seeds=2, rows=["both"]),
        experiment.runs(seeds=2, rows=["both"]),
        strict=True,
    ):
        assert run.start.folder(folder).is_dir() and run.name != trained.name
        run.folder(folder).parent.mkdir(exist_ok=True)
        trained.folder(folder).rename(run.folder(folder))
        path = run.folder(folder) / "record.json"
        words = ["tools/train_net.py", "--eval-only", f"train.init_checkpoint={folder}/x.pth"]
        record = json.loads(path.read_text()) | {"overrides": run.overrides_in(folder)}
        record |= {"command": words, "cpu_seconds": 1.0, "peak_memory_mib": 1.0}
        path.write_text(json.dumps(record))
    rows = finished_rows(experiment, folder)
    analysis = analyze_experiment(experiment, folder, draws=20, permutations=20)
    record = experiment_record(experiment, rows, analysis)
    assert record["rows"][1][:3] == [both.name, "0, 1", "-50.0"]
    commands = [run["command"] for run in record["runs"] if run["row"] == "both"]
    assert commands == [["tools/train_net.py", "--eval-only"]] * 2


def test_a_record_names_all_versions_and_commits(finished):
    experiment, folder = finished
    git = {"commit": "abcdefghij", "modified": True}
    change_record(experiment, folder, git=git, versions={"torch": "3", "timm": "1"})
    rows = finished_rows(experiment, folder)
    analysis = analyze_experiment(experiment, folder, draws=20, permutations=20)
    record = experiment_record(experiment, rows, analysis)
    assert record["reported_in"] == ["0123456", "abcdefg-dirty"]
    assert record["versions"] == {"torch": "2, 3", "timm": "1"}
    change_record(experiment, folder, git=None)
    rows = finished_rows(experiment, folder)
    assert "no clone" in experiment_record(experiment, rows, analysis)["reported_in"]


def test_no_baseline_no_report(tmp_path):
    with pytest.raises(RecordError, match="no run of 'plain' has finished"):
        analyze_experiment(find_experiment("photos/fod_iou"), tmp_path)


def reproduce(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path("tools/reproduce.py", run_name="__main__")
    return end.value.code


def test_the_command_writes_page_and_record(finished, monkeypatch, capsys):
    _, folder = finished
    words = ["report", "photos/fod_iou", "--output-dir", folder, "--draws", 20, "--no-images"]
    words += ["--json", folder / "record.json", "--page", folder / "page"]
    assert reproduce(monkeypatch, *words) == 0
    assert "| baseline" in capsys.readouterr().out
    assert (folder / "page" / "report.html").exists() and (folder / "page/analysis.json").exists()
    assert json.loads((folder / "record.json").read_text())["name"] == "photos_fod_iou"


def test_list_show_and_dry_run_know_them(monkeypatch, capsys, tmp_path):
    assert reproduce(monkeypatch, "list") == 0 and "photos/fod_iou" in capsys.readouterr().out
    assert reproduce(monkeypatch, "show", "photos/bccd_iou") == 0
    out = capsys.readouterr().out
    assert "configs/Photos/retinanet_lite0.py" in out and "github.com/Shenggan/BCCD_Dataset" in out
    words = ["run", "photos/fod_iou", "--rows", "both", "--seeds", "2", "--dry-run"]
    assert reproduce(monkeypatch, *words, "--output-dir", tmp_path) == 0
    assert capsys.readouterr().out.count("train.seed=") == 2
    code = reproduce(monkeypatch, "run", "photos/fod_iou", "iou/2", "--dry-run")
    assert "give tables of the papers or experiments" in code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "photos/fodiou"],
            "no table or experiment 'photos/fodiou'; there are iou/1, .*photos/fod_iou",
        ),
        (["show", "photos/fodiou"], "no table or experiment"),
        (["run", "photos/fod_iou", "--profile", "quick"], "the profile quick is for tables"),
        (["report", "photos/fod_iou", "--profile", "quick"], "the profile quick is for tables"),
        (["report", "photos/fod_iou", "--intervals"], "--intervals is for tables"),
        (["report", "iou/1", "--page", "page"], "--page is for experiments"),
        (["run", "photos/fod_iou", "--seeds", "0"], "0 seeds"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_runs(monkeypatch, words, message):
    assert re.search(message, reproduce(monkeypatch, *words))


# Claims.


@pytest.mark.parametrize(
    ("sign", "low", "high", "word"),
    [
        (1, 0.1, 2.1, "confirmed"),
        (1, -0.1, 2.1, "undecided"),
        (1, -2.1, -0.1, "refuted"),
        (-1, -2.1, -0.1, "confirmed"),
        (-1, 0.1, 2.1, "refuted"),
        (1, 0.0, 0.0, "undecided"),
    ],
)
def test_a_claim_is_decided_by_the_interval(sign, low, high, word):
    claim = next(x for x in all_claims() if x.metric == "AP")
    difference = {"value": (low + high) / 2, "low": low, "high": high}
    assert judge(dataclasses.replace(claim, sign=sign), difference) == word


def test_an_undefined_interval_decides_nothing():
    claim = next(x for x in all_claims() if x.metric == "AP")
    for low in (None, math.nan):
        assert judge(claim, {"value": 1.0, "low": low, "high": low}) == "undecided"
    assert format_difference({"value": 1.0, "low": math.nan, "high": math.nan}) == "+1.0"
    assert format_difference({"value": None, "low": None, "high": None}) == "undefined"
    assert format_difference({"value": 1.04, "low": -0.46, "high": 2}) == "+1.0 [-0.5, +2.0]"
    assert rounded(math.nan, 3) is None and rounded(1.23456, 3) == 1.235


def test_the_table_of_claims():
    difference = {"value": 1.0, "low": 0.5, "high": 1.5}
    runs = [{"row": "both", "seed": 0}, {"row": "both", "seed": 1}, {"row": "plain", "seed": 0}]
    records = {"photos_fod_iou": {"differences": {"both": {"AP": difference}}, "runs": runs}}
    record = claims_record(records.get)
    assert len(record["rows"]) == sum(len(claim.experiments) for claim in all_claims())
    assert record["rows"][0][1:] == ["fod", 2, "+1.0 [+0.5, +1.5]", "confirmed"]
    assert all(row[-1] == "not run" for row in record["rows"][1:])
    records["photos_fod_iou"]["runs"] = runs[:1]
    assert claims_record(records.get)["rows"][0][-1].startswith("confirmed for one seed")


def test_the_records_show_the_claims_as_they_are():
    file = ROOT / "benchmarks/records/photos_claims.json"
    records = ROOT / "benchmarks/records"
    if file.exists():
        made = claims_record(lambda name: read_json(records / f"{name}.json"))
        assert read_json(file) == json.loads(json.dumps(made))
