"""Table 1 of the first paper is of COCO test-dev: the files for the server that scores them."""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from iou_balanced.engine import load_config
from iou_balanced.reproduction import find_table, run_all, server_lines, write_server_files
from iou_balanced.reproduction import runner as runner_module
from iou_balanced.reproduction.run_files import read_json
from iou_balanced.reproduction.runs import run_of
from iou_balanced.reproduction.server_files import DATA, server_command, server_file

from .stub import SCRIPT, make_root

ROOT = Path(__file__).resolve().parents[2]
# Beside the training: an evaluation that fails at first, or writes what it is told to.
EVALUATION = """
import json, os, pathlib, sys
if "--eval-only" in sys.argv:
    values = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    assert pathlib.Path(values["train.init_checkpoint"]).is_file()
    folder = pathlib.Path(values["train.output_dir"])
    if os.environ.get("STUB_FAILS"):
        sys.exit("error: out of memory")
    (folder / "inference").mkdir(exist_ok=True)
    if not os.environ.get("STUB_MUTE"):
        file = folder / "inference/detections_test-dev2017_stub_results.json"
        file.write_text(json.dumps([{"image_id": 1, "category_id": 1}]))
    sys.exit()
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.05)
    folder = make_root(tmp_path / "root")
    (folder / "tools/train_net.py").write_text(EVALUATION + SCRIPT)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    return folder


@pytest.fixture
def data(tmp_path, root):
    """Test-dev in its place."""
    info, images = (tmp_path / "data" / name for name in DATA)
    info.parent.mkdir(parents=True)
    info.write_text("{}")
    images.mkdir()


@pytest.fixture
def row():
    return find_table("iou/1").row("retinanet_R_50_both")


def write(root, rows, seeds=1):
    lines = []
    out = root / "out"
    outcomes = write_server_files(rows, seeds=seeds, output_dir=out, root=root, say=lines.append)
    return outcomes, lines


def train(root, row, seeds=1):
    for seed in range(seeds):
        run = run_of(row, profile="full", seed=seed)
        run_all([run], output_dir=root / "out", root=root, say=lambda line: None)


def test_only_table_1_has_such_rows():
    assert len([row for row in find_table("iou/1").rows if row.test_dev]) == 6
    assert not list(server_lines(find_table("iou/2").rows, Path("out")))


def test_the_command_is_one_that_is_read(row):
    words = server_command(row, run_of(row, profile="full"), Path("a b/out"), num_gpus=8)
    assert words[3:6] == ["--eval-only", "--num-gpus", "8"]
    cfg = load_config(str(ROOT / words[2]), [word for word in words if "=" in word])
    assert cfg.train.init_checkpoint.startswith("a b/out/full/COCO/retinanet_R_50_FPN_1x_")
    assert cfg.train.output_dir.endswith("/seed_0/test_dev")


def test_the_file_is_written_once(root, row, data):
    train(root, row, seeds=2)
    outcomes, lines = write(root, [row], seeds=2)
    assert [x.status for x in outcomes] == ["finished", "finished"]
    first, second = (run_of(row, profile="full", seed=i).folder(root / "out") for i in (0, 1))
    file = server_file(first)
    assert file == first / "test_dev/inference/detections_test-dev2017_stub_results.json"
    assert f"file for COCO's server: {file}" in lines[1]
    assert read_json(first / "test_dev/record.json")["command"][3] == "--eval-only"
    assert list(server_lines([row], root / "out")) == [
        f"- {row.name}: {file}, {server_file(second)}"
    ]
    # Again: nothing is run, not even without the data.
    before = file.stat().st_mtime_ns
    (root.parent / "data" / DATA[0]).unlink()
    outcomes, _ = write(root, [row])
    assert [x.status for x in outcomes] == ["was finished"]
    assert file.stat().st_mtime_ns == before


def test_without_test_dev_it_says_what_is_missing_and_the_command(root, row):
    assert write(root, [row]) == ([], [])  # nothing is trained
    train(root, row)
    outcomes, (line,) = write(root, [row])
    assert not outcomes and f"{DATA[0]} is missing" in line
    words = shlex.split(line.partition("Later: ")[2])
    assert words[0] == "tools/train_net.py" and "--eval-only" in words
    (line,) = server_lines([row], root / "out")
    assert "none yet" in line and "run iou/1 --rows retinanet_R_50_both" in line


def test_a_failed_evaluation_is_tried_again(root, row, data, monkeypatch):
    train(root, row)
    monkeypatch.setenv("STUB_FAILS", "1")
    (outcome,), _ = write(root, [row])
    assert outcome.status == "failed" and "out of memory" in outcome.message
    monkeypatch.delenv("STUB_FAILS")
    monkeypatch.setenv("STUB_MUTE", "1")
    (outcome,), _ = write(root, [row])
    assert outcome.status == "failed" and "left 0 files" in outcome.message
    assert server_file(run_of(row, profile="full").folder(root / "out")) is None
    monkeypatch.delenv("STUB_MUTE")
    assert [x.status for x in write(root, [row])[0]] == ["finished"]


def test_run_and_report_of_the_tool(root, row, data, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "tools/reproduce.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, "ROOT", root)
    folder = ["--output-dir", str(tmp_path / "out")]
    assert tool.main(["run", "iou/1", "--rows", row.short_id, "retinanet_R_50", *folder]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 runs have finished" in text and "file for COCO's server: /" in text
    assert tool.main(["report", "iou/1", *folder]) == 0
    text = capsys.readouterr().out
    assert text.count("none yet") == 5 and "detections_test-dev2017_stub_results.json" in text
    file = server_file(run_of(row, profile="full").folder(tmp_path / "out"))
    assert json.loads(file.read_text()) == [{"image_id": 1, "category_id": 1}]
    # The quick profile is of digits.
    assert tool.main(["report", "iou/1", "--profile", "quick", *folder]) == 0
    assert "server" not in capsys.readouterr().out
