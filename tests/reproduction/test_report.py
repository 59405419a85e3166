"""Published numbers and ours, side by side."""

import json
import runpy
from pathlib import Path

import pytest

from iou_balanced.reproduction import (
    Measured,
    as_record,
    find_table,
    format_report,
    read_intervals,
    report_rows,
)
from iou_balanced.reproduction.run_files import error_of, read_metrics

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "full/COCO/centernet_MNV2_140e_bofl"


def finish(folder, seed=0, **metrics):
    """Make the folder that of a finished run."""
    folder.mkdir(parents=True)
    record = {
        "seed": seed,
        "metrics": metrics,
        "finished": f"2026-01-0{seed + 1}T00:00:00+00:00",
        "git": {"commit": "c0ffee", "modified": False},
        "hardware": {"cpu": "a processor", "gpus": ["a GPU", "a GPU"]},
        "versions": {"torch": "2.11.0"},
        "inference_seconds_per_image": 0.01 * (seed + 1),
    }
    (folder / "record.json").write_text(json.dumps(record))


@pytest.fixture
def runs(tmp_path):
    """Table 7 of BOFL: "Epoch" has two seeds, "Step" has failed."""
    finish(tmp_path / CONFIG / "as_written/seed_0", 0, AP=27.0, AP50=45.0, AP75=None)
    finish(tmp_path / CONFIG / "as_written/seed_1", 1, AP=28.0, AP50=46.0, AP75=None)
    failed = tmp_path / CONFIG / "update-iteration/seed_0"
    failed.mkdir(parents=True)
    (failed / "failure.json").write_text('{"error": "out of memory"}')
    return tmp_path


def test_side_by_side(runs):
    table = find_table("bofl/7")
    step, epoch = report_rows(table, output_dir=runs)
    assert (step.state, step.ours) == ("failed: out of memory", {})
    assert epoch.state == "finished"
    # An undefined metric is missing; the others are means over the seeds.
    assert epoch.ours == {"AP": Measured(27.5), "AP50": Measured(45.5)}
    text = format_report(table, [step, epoch])
    lines = [[cell.strip() for cell in x.strip("|").split("|")] for x in text.splitlines()[4:]]
    assert lines[0] == ["row", "AP", "AP50", "AP75", "seeds", "state"]
    assert lines[2][:4] == ["Step", "27.3 / -", "45.2 / -", "28.4 / -"]
    assert lines[3] == ["Epoch", "27.6 / 27.5", "45.6 / 45.5", "28.7 / -", "0, 1", "finished"]
    assert "page 5" in text and "no reproduction" not in text
    assert "no reproduction" in format_report(table, [step, epoch], profile="quick")


def test_intervals_where_there_are(runs):
    interval = {"value": 27.4, "low": 26.1, "high": 28.9}
    analysis = {"runs": {"ours": {"AP": interval, "AP50": {"value": 45.5, "low": None}}}}
    one = runs / CONFIG / "as_written/seed_0/analysis.json"
    one.write_text(json.dumps(analysis))  # of one seed: not of the mean
    table = find_table("bofl/7")
    assert report_rows(table, output_dir=runs)[1].ours["AP"] == Measured(27.5)
    (runs / CONFIG / "as_written/analysis.json").write_text(json.dumps(analysis))
    epoch = report_rows(table, output_dir=runs)[1]
    assert epoch.ours["AP"] == Measured(27.5, 26.1, 28.9)
    assert "27.6 / 27.5 [26.1, 28.9]" in format_report(table, [epoch])
    # Of one seed it lies in the seed's folder.
    (runs / CONFIG / "as_written/seed_1/record.json").unlink()
    one.write_text(json.dumps({"runs": {"a": {"AP": {"low": 26.5, "high": 27.5}}}}))
    assert report_rows(table, output_dir=runs)[1].ours["AP"] == Measured(27.0, 26.5, 27.5)


@pytest.mark.parametrize("content", ["", "[]", '{"runs": {}}', '{"runs": {"a": {}, "b": {}}}'])
def test_no_intervals(tmp_path, content):
    (tmp_path / "analysis.json").write_text(content)
    assert read_intervals(tmp_path) == {}


def test_missing_rows_are_marked(tmp_path):
    states = [x.state for x in report_rows(find_table("iou/1"), output_dir=tmp_path)]
    assert states == ["cited"] * 7 + ["not run"] * 14
    (tmp_path / CONFIG / "as_written/seed_0").mkdir(parents=True)
    (tmp_path / CONFIG / "as_written/seed_0/started.json").write_text("{}")
    states = [x.state for x in report_rows(find_table("bofl/7"), output_dir=tmp_path)]
    assert states == ["not run", "under way, or broken off"]


def test_a_record_for_the_tables_of_the_docs(runs):
    table = find_table("bofl/7")
    record = as_record(table, report_rows(table, output_dir=runs), profile="full")
    columns = "row, AP (paper), AP, AP50 (paper), AP50, AP75 (paper), AP75"
    assert record["columns"] == columns.split(", ")
    assert record["rows"] == [["Epoch", 27.6, 27.5, 45.6, 45.5, 28.7, "-"]]
    assert (record["reported_in"], record["date"][:10]) == ("c0ffee", "2026-01-02")
    assert record["hardware"] == "a processor" and record["gpus"] == "a GPU, a GPU"
    tool = runpy.run_path(str(ROOT / "tools/list_results.py"), run_name="list_results")
    assert tool["table"](record).endswith("| Epoch | 27.6 | 27.5 | 45.6 | 45.5 | 28.7 | - |")


def test_metrics_of_the_last_evaluation(tmp_path):
    assert read_metrics(tmp_path) is None
    file = tmp_path / "metrics.json"
    file.write_text('{"iteration": 1, "total_loss": 2.0}\n')
    assert read_metrics(tmp_path) is None
    with file.open("a") as f:
        f.write('{"iteration": 2, "bbox/AP": 5.0}\n{"iteration": 3, "bbox/AP": 6.0, "bbox/AP-x"')
        f.write(': 7.0, "lr": 1}\n{"iteration": 4, "total_loss": 1.0}\n{"iteration": 5, "bbox/A')
    assert read_metrics(tmp_path) == (3, {"AP": 6.0, "AP-x": 7.0})


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("", "it printed nothing"),
        ("a\nerror: no such key\n[warning] later\n", "no such key"),
        ("Traceback\n  File x\nRuntimeError: out of memory\n\n", "RuntimeError: out of memory"),
    ],
)
def test_what_a_failed_training_said(output, error):
    assert error_of(output) == error
