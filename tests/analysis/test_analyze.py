"""The whole: values are pycocotools', files can be read, and words say what the numbers say."""

import csv
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iou_balanced.analysis import Detections, analyze, read_ground_truth
from iou_balanced.analysis.estimates import metric_samples
from iou_balanced.analysis.groups import group_of_classes, read_train_counts, tail_of
from iou_balanced.analysis.matching import match
from iou_balanced.analysis.metric_names import MAIN_METRICS
from iou_balanced.analysis.resampling import bootstrap, multiplicities
from iou_balanced.analysis.verdict import _of_difference
from iou_balanced.losses.reweighting import tail_classes

from .reference import coco_json, coco_results, pycocotools_ap, random_data

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Ground truth, a run, and the same with worse boxes."""
    folder = tmp_path_factory.mktemp("files")
    truth, found = random_data(3, num_images=NUM_IMAGES)
    (folder / "truth.json").write_text(json.dumps(coco_json(truth)))
    rng = np.random.default_rng(0)
    for name, noise in (("plain", 0), ("worse", 0.2), ("seed", 0.02)):
        shake = noise * rng.normal(size=found[2].shape) * np.tile(found[2][:, 2:], 2)
        boxes = found[2] + shake
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0.5)
        results = coco_results((*found[:2], boxes, found[3]), np.ones(NUM_IMAGES, int))
        (folder / f"{name}.json").write_text(json.dumps(results))
    (folder / "nothing.json").write_text("[]")
    return folder, truth, found


@pytest.fixture(scope="module")
def analysis(files):
    folder = files[0]
    runs = {name: folder / f"{name}.json" for name in ("plain", "worse", "nothing")}
    return analyze(folder / "truth.json", runs, draws=60, permutations=60, seed=1)


def test_values_are_pycocotools(files, analysis):
    _, truth, found = files
    ap = 100 * pycocotools_ap(truth, found)
    run = analysis.runs["plain"]
    expected = {
        "AP": np.nanmean(ap[0]),
        **{f"AP{50 + 5 * t}": np.nanmean(ap[0, t]) for t in range(10)},
        **{name: np.nanmean(ap[1 + i]) for i, name in enumerate(("APs", "APm", "APl"))},
        **{f"AP-class {k}": ap[0, :, k].mean() for k in range(4)},
    }
    for name, value in expected.items():
        assert run[name]["value"] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    assert math.isnan(run["AP-class 3"]["value"])  # no object


def test_a_run_without_detections_has_ap_0(analysis):
    assert analysis.runs["nothing"]["AP"]["value"] == 0
    assert analysis.runs["nothing"]["LRP"]["value"] == 100
    number = analysis.differences["nothing"]["AP"]
    assert number["value"] == pytest.approx(-analysis.runs["plain"]["AP"]["value"])
    assert number["high"] < 0


def test_differences(analysis):
    worse, plain = analysis.runs["worse"], analysis.runs["plain"]
    for name, number in analysis.differences["worse"].items():
        if math.isfinite(number["value"]):
            expected = worse[name]["value"] - plain[name]["value"]
            assert number["value"] == pytest.approx(expected)
            assert number["low"] <= number["value"] <= number["high"]
            assert 0 < number["p"] <= 1, name
    assert analysis.differences["worse"]["AP"]["p_method"].startswith("permutation")
    numbers = [analysis.differences["worse"][f"AP-class {k}"] for k in range(3)]
    assert all(x["p_holm"] >= x["p"] for x in numbers)
    assert "plain" not in analysis.differences


def test_verdict(analysis):
    assert analysis.verdict[0].startswith("worse has the lower AP: -")
    assert any("nothing has the lower AP" in text for text in analysis.verdict)
    assert any("say nothing of another seed" in text for text in analysis.verdict)


def test_an_interval_and_a_test_that_disagree_are_said():
    difference = {"value": -0.1, "low": -0.4, "high": 0.3, "p": 0.001}
    ap = {**difference, "p_method": "permutation"}
    numbers = {name: ap for name in ("AP", *MAIN_METRICS)}
    for p, said in ((0.001, True), (0.2, False)):
        text = _of_difference("b", "a", {**numbers, "AP": {**ap, "p": p}}, [], 0.95)[0]
        assert "b and a cannot be told apart by AP" in text
        assert ("The permutation test alone would tell them apart" in text) is said


def test_same_run_twice_cannot_be_told_apart(files):
    path = files[0] / "plain.json"
    found = analyze(files[0] / "truth.json", {"a": path, "b": path}, draws=20, permutations=20)
    number = found.differences["b"]["AP"]
    assert (number["value"], number["low"], number["high"], number["p"]) == (0, 0, 0, 1)
    assert "b and a have the same AP." in found.verdict


def test_draws_are_those_of_repeated_images(files):
    """The interval's draws, by repeating images and evaluating with pycocotools."""
    _, truth, found = files
    matches = match(truth, Detections.from_columns(*found, truth.num_classes))
    (draws,) = bootstrap(truth, [matches], draws=2, seed=4)
    samples = metric_samples(truth, [draws])
    for i, times in enumerate(multiplicities(truth.num_images, 2, seed=4).T.astype(int)):
        ap = 100 * pycocotools_ap(truth, found, times)
        assert samples["AP"].draws[0, i] == pytest.approx(np.nanmean(ap[0]), abs=1e-9)
        assert samples["APm"].draws[0, i] == pytest.approx(np.nanmean(ap[2]), abs=1e-9)


def test_seeds(files):
    folder = files[0]
    seeds = [folder / "plain.json", folder / "seed.json"]
    found = analyze(folder / "truth.json", {"a": seeds, "b": folder / "worse.json"}, draws=20)
    values = [
        analyze(folder / "truth.json", {"x": path}, draws=2).runs["x"]["AP"]["value"]
        for path in seeds
    ]
    number = found.runs["a"]["AP"]
    assert number["value"] == pytest.approx(np.mean(values))
    assert number["se_seeds"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(2))
    assert found.differences["b"]["AP"]["p_method"] == "t"
    assert any("One seed only: b" in text for text in found.verdict)
    assert any("both are in the interval" in text for text in found.verdict)
    with pytest.raises(ValueError, match="more than once: seeds are different trainings"):
        analyze(folder / "truth.json", {"a": [seeds[0], seeds[0]]})


def test_runs_that_are_the_first_ones_weights(files):
    """All differences are taken seed by seed: of AP, of scores and IoUs, and of errors."""
    folder = files[0]
    runs = {
        "a": [folder / "plain.json", folder / "seed.json"],
        "b": [folder / "worse.json", folder / "plain.json"],
    }
    one = [
        analyze(folder / "truth.json", {name: paths[i] for name, paths in runs.items()}, draws=2)
        for i in range(2)
    ]
    found = analyze(folder / "truth.json", runs, draws=20, same_weights=["b"])
    assert found.settings["same_weights"] == ("b",)

    def numbers(x):
        yield x.differences["b"]["AP"]
        yield x.localization["differences"]["b"]["matched"]["rank_correlation"]
        yield x.errors["differences"]["b"]["missed"]

    for number, *of_seeds in zip(numbers(found), *map(numbers, one), strict=True):
        spread = np.std([x["value"] for x in of_seeds], ddof=1) / np.sqrt(2)
        assert spread > 0 and number["se_seeds"] == pytest.approx(spread)
    for names, message in (
        (["a"], r"runs after the first, \['b'\], but got 'a'"),
        (["c"], "but got 'c'"),
    ):
        with pytest.raises(ValueError, match=message):
            analyze(folder / "truth.json", runs, draws=2, same_weights=names)
    runs["b"] = runs["b"][:1]
    with pytest.raises(ValueError, match=r"'b' has 1 files, and 'a', .* has 2"):
        analyze(folder / "truth.json", runs, draws=2, same_weights=["b"])


def test_files(analysis, tmp_path):
    json_file, csv_file = analysis.write(tmp_path)
    data = json.loads(json_file.read_text())
    assert data["runs"]["plain"]["AP"]["value"] == analysis.runs["plain"]["AP"]["value"]
    assert data["runs"]["plain"]["AP-class 3"]["value"] is None  # JSON has no NaN
    assert data["differences"]["worse"]["AP"].keys() >= {"value", "low", "high", "p"}
    assert data["first"] == "plain" and data["settings"]["num_images"] == NUM_IMAGES
    rows = list(csv.DictReader(csv_file.open()))
    (row,) = [
        r for r in rows if r["kind"] == "difference" and r["run"] == "worse" and r["metric"] == "AP"
    ]
    assert float(row["low"]) == analysis.differences["worse"]["AP"]["low"]
    assert any(r["metric"] == "localization/matched/rank_correlation" for r in rows)
    assert any(r["metric"] == "errors/missed" for r in rows)


def test_changes_name_images_and_boxes(files, analysis):
    found = analysis.changes["differences"]["worse"]
    sizes = [abs(x["contribution"]) for x in found["images"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0
    shown = {x["image_id"]: x for x in analysis.changes["images"]}
    assert {x["image_id"] for x in found["images"]} <= set(shown)
    image = shown[found["images"][0]["image_id"]]
    truth = files[1]
    assert len(image["objects"]) == (truth.image == image["image_id"] - 1).sum()
    for box in image["runs"]["plain"]:
        if box["status"] == "true":
            assert image["objects"][box["object"]]["class"] == box["class"] and box["iou"] >= 0.5
    assert image["runs"]["nothing"] == []


def test_more_processes_give_the_same(files):
    folder = files[0]
    runs = {"plain": folder / "plain.json", "worse": folder / "worse.json"}
    one, two = (
        analyze(folder / "truth.json", runs, draws=20, permutations=20, processes=n).to_dict()
        for n in (1, 2)
    )
    assert one == two


def test_groups(files, tmp_path):
    folder = files[0]
    path = tmp_path / "counts.json"
    names = [f"class {k}" for k in range(4)]
    path.write_text(json.dumps(dict(zip(names, (1000, 500, 60, 900), strict=True))))
    runs = {"plain": folder / "plain.json"}
    found = analyze(folder / "truth.json", runs, draws=20, train_counts=path)
    assert found.groups["tail"] == ["class 2"]
    run = found.runs["plain"]
    assert run["AP_tail"]["value"] == pytest.approx(run["AP-class 2"]["value"])
    mean = (run["AP-class 0"]["value"] + run["AP-class 1"]["value"]) / 2
    assert run["AP_head"]["value"] == pytest.approx(mean)
    # Balanced classes have no tail.
    path.write_text(json.dumps(dict.fromkeys(names, 100)))
    found = analyze(folder / "truth.json", runs, draws=20, train_counts=path)
    assert found.groups["tail"] is None and "no groups" in found.groups["reason"]
    assert "AP_tail" not in found.runs["plain"]


def test_training_counts(files, tmp_path):
    truth = read_ground_truth(files[0] / "truth.json")
    counts = read_train_counts(files[0] / "truth.json", truth.class_names)
    expected = np.bincount(truth.category[~truth.crowd], minlength=4)
    assert [counts[n]["instances"] for n in truth.class_names] == expected.tolist()
    path = tmp_path / "counts.json"
    rows = [{"name": n, "instances": 5, "images": 3} for n in truth.class_names]
    path.write_text(json.dumps({"data_set": "x", "num_images": 9, "classes": rows}))
    assert read_train_counts(path, truth.class_names)["class 1"] == {"instances": 5, "images": 3}
    said = []
    few = read_train_counts(path, truth.class_names[:2], warn=said.append)
    assert list(few) == list(truth.class_names[:2])
    assert "counts.json has also counts of 'class 2', 'class 3', which the gro" in said[0]
    read_train_counts(path, truth.class_names, warn=said.append)
    assert len(said) == 1
    with pytest.raises(ValueError, match="no counts of 'bird'"):
        read_train_counts(path, ["bird"])
    path.write_text('["cat"]')
    with pytest.raises(ValueError, match="has no training counts"):
        read_train_counts(path, ["cat"])


def test_the_tail_is_that_of_the_losses():
    rng = np.random.default_rng(0)
    for _ in range(30):
        counts = rng.integers(0, 50, 12)
        ratio = float(rng.random())
        assert tail_of(counts, ratio).tolist() == tail_classes(counts.tolist(), ratio).tolist()
    assert group_of_classes({"a": {"instances": 0, "images": 0}}, ["a"])["tail"] is None


def test_arguments():
    with pytest.raises(ValueError, match="`draws` to be a whole number from 2 on, but got 1"):
        analyze("x.json", {"a": []}, draws=1)
    with pytest.raises(ValueError, match=r"`confidence` to be in \[0.5, 1\)"):
        analyze("x.json", {"a": []}, confidence=95)
    with pytest.raises(ValueError, match="`runs` to have at least one run"):
        analyze("x.json", {})


def test_needs_neither_torch_nor_detectron2(files, tmp_path):
    code = f"""
import sys
for name in ("torch", "detectron2", "torchvision", "scipy", "fvcore"):
    sys.modules[name] = None
sys.argv = ["analyze", {str(files[0] / "truth.json")!r}, "a={files[0]}/plain.json",
            "b={files[0]}/worse.json", "--draws", "20", "--processes", "1",
            "--output-dir", {str(tmp_path)!r}]
sys.path.insert(0, {str(ROOT / "tools")!r})
import analyze
analyze.main()
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "b has the lower AP" in done.stdout
    assert (tmp_path / "analysis.json").is_file() and (tmp_path / "analysis.csv").is_file()


def test_the_tool_refuses_in_one_line(files, tmp_path):
    tool = [sys.executable, str(ROOT / "tools/analyze.py"), str(files[0] / "truth.json")]
    for arguments, message in (
        (["a=nowhere.json"], "nowhere.json"),
        ([f"a={files[0]}/truth.json"], "is not a COCO result file"),
        (["plain.json"], "expected NAME=FILE.json"),
        (["a=x.json", "a=y.json"], "two runs have the same name"),
    ):
        done = subprocess.run(
            [*tool, *arguments, "--output-dir", str(tmp_path / "out"), "--processes", "1"],
            capture_output=True,
            text=True,
        )
        assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_the_former_files(files, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("analyze")
    (tmp_path / "analysis.json").write_text("former")
    arguments = ["analyze", str(files[0] / "truth.json"), f"a={files[0]}/plain.json"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--output-dir", str(tmp_path), "--draws", "20"])
    with pytest.raises(SystemExit, match=r"analyze|has analysis\.json already: give another fold"):
        tool.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--overwrite"])

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.Analysis, "to_dict", interrupted)
    with pytest.raises(SystemExit, match="interrupted; nothing was written"):
        tool.main()
    assert [p.name for p in tmp_path.iterdir()] == ["analysis.json"]
    assert (tmp_path / "analysis.json").read_text() == "former"


def test_intervals_of_few_detections_stay_in_what_is_possible(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 99, "height": 99} for i in range(1, 4)]
    box = {"category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    truth = {
        "images": images,
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{**box, "id": i, "image_id": i} for i in range(1, 4)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    shifts = ((1, 0.9, 2), (2, 0.5, 9), (3, 0.7, 5))
    found = [
        {"image_id": i, "category_id": 1, "score": score, "bbox": [10 + shift, 10, 40, 40]}
        for i, score, shift in shifts
    ]
    numbers = analyze(tmp_path / "truth.json", {"a": found}, draws=50).localization["runs"]["a"]
    for population in numbers.values():
        correlation = population["rank_correlation"]
        assert correlation["value"] == pytest.approx(1)
        assert -1 <= correlation["low"] <= correlation["high"] <= 1
        for name in ("mean_iou", "mean_score", "calibration_error"):
            assert 0 <= population[name]["low"] <= population[name]["high"] <= 1
