"""tools/reproduce.py: what it prints, its exit status, and a real training."""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from iou_balanced.engine import load_config
from iou_balanced.engine import main as train_main
from iou_balanced.reproduction import Run, run_all
from iou_balanced.reproduction.run_files import read_json

from ..engine.helpers import TINY, make_args
from .stub import make_root

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("reproduce", ROOT / "tools/reproduce.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stubbed(tool, tmp_path, monkeypatch):
    """The tool with a stand-in for the training; a folder for its output."""
    monkeypatch.setattr(tool, "ROOT", make_root(tmp_path / "root"))
    return tool, ["--output-dir", str(tmp_path / "out")]


def test_list_has_every_table_and_figure(tool, capsys):
    assert tool.main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (*(f"iou/{i}" for i in range(1, 8)), *(f"bofl/{i}" for i in range(1, 13))):
        assert f"  {name} " in text
    assert text.count("  figure ") == 6 and "14 rows and 7 cited" in text


@pytest.mark.parametrize("profile", ["full", "quick"])
def test_show_prints_commands_that_are_read(tool, capsys, profile):
    assert tool.main(["show", "iou/1", "bofl/8", "--profile", profile]) == 0
    text = capsys.readouterr().out
    assert "published: AP 26.0, AP50 44.1, AP75 26.8" in text
    assert "cited: SSD (ECCV 2016); not trained here" in text
    found = [shlex.split(x) for x in text.splitlines() if x.startswith("  tools/train_net.py")]
    evaluations = [words for words in found if "--eval-only" in words]
    assert len(evaluations) == (6 if profile == "full" else 0) and len(found) >= 18
    for words in found[-2:] + evaluations[:1]:
        load_config(str(ROOT / words[2]), [x for x in words[3:] if "=" in x])


def test_run_and_report(stubbed, capsys):
    tool, folder = stubbed
    assert tool.main(["run", "bofl/7", "--seeds", "2", *folder]) == 0
    text = capsys.readouterr().out
    assert "4 of 4 runs have finished, 0 failed." in text
    assert tool.main(["report", "bofl/7", "--json", f"{folder[1]}/x.json", *folder]) == 0
    assert "| 27.6 / 20.5 | 45.6 / -" in capsys.readouterr().out
    assert len(json.loads(Path(f"{folder[1]}/x.json").read_text())["rows"]) == 2
    # The stand-in leaves no detections.
    assert tool.main(["report", "bofl/7", "--intervals", *folder]) == 0
    text = capsys.readouterr().out
    assert "bofl/7/step: intervals of seeds 0, 1\nbofl/7/step: no intervals: " in text
    assert "| 27.6 / 20.5 |" in text
    # All of it has run.
    assert tool.main(["run", "bofl/7", "--rows", "epoch", *folder]) == 0
    assert "was finished" in capsys.readouterr().out


def test_a_failed_row_is_said_at_the_end(stubbed, capsys):
    tool, folder = stubbed
    script = tool.ROOT / "tools/train_net.py"
    script.write_text(script.read_text().replace('"fail" in values', '"step" in words[1]'))
    assert tool.main(["run", "bofl/6", *folder]) == 1
    *_, summary, first, second = capsys.readouterr().out.splitlines()
    assert summary == "2 of 4 runs have finished, 2 failed."
    assert "failed: full/COCO/centernet_MNV2_140e_step/as_written/seed_0 (bofl/6/step)" in first
    assert "bofl/6/step_bofl" in second and "the data set is missing" in second


def test_cited_rows_and_the_overrides_of_the_profile_are_printed(stubbed, capsys):
    tool, folder = stubbed
    arguments = ["run", "iou/1", "--rows", "yolov2", "retinanet_R_50", "--profile", "quick"]
    assert tool.main([*arguments, *folder]) == 0
    text = capsys.readouterr().out
    assert "iou/1/yolov2: cited (YOLO9000 (CVPR 2017)); not trained here" in text
    assert "  datasets.train._target_=iou_balanced.data.register_digits\n" in text
    assert "  model.num_classes=10\n" in text and "1 of 1 runs have finished" in text


def test_dry_run_starts_nothing(stubbed, capsys):
    tool, folder = stubbed
    assert tool.main(["run", "all", "--dry-run", "--num-gpus", "8", *folder]) == 0
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if line.startswith("tools/train_net.py")]
    assert len(commands) > 60 and all("--num-gpus 8" in line for line in commands)
    assert not Path(folder[1]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "bofl/13"], "error: there is no table or experiment 'bofl/13'; there are iou/1"),
        (["run", "bofl/7", "--rows", "x"], "error: bofl/7 has no row 'x'; it has step, epoch"),
        (["run", "bofl/7", "bofl/8", "--rows", "x"], "error: --rows are those of one table"),
        (["run", "bofl/7", "--seeds", "0"], "error: 0 seeds: give a number from 1 on"),
        (["report", "--json", "x.json"], "error: --json holds the report of one table"),
        (["figure", "iou/9", "--output", "x.png"], "error: there is no figure 'iou/9'"),
        (
            ["figure", "iou/3", "--output", "x.png", "--results", "a.json"],
            "error: --results a.json: give name=file.json",
        ),
    ],
)
def test_mistakes_are_one_line(tool, arguments, message):
    with pytest.raises(SystemExit) as error:
        tool.main(arguments)
    assert error.value.code.startswith(message) and "\n" not in error.value.code


def test_a_training_that_broke_off_goes_on(tmp_path, datasets_root):
    """With tools/train_net.py itself: half of a training, then the rest of it."""
    overrides = (*TINY, "train.checkpointer.period=2", "train.best_checkpoint.metric=null")
    run = Run("Digits/retinanet_small", (), "quick", overrides, 5, ("test/1/row",))
    folder = run.folder(tmp_path)
    train_main(
        make_args(
            str(ROOT / "configs/Digits/retinanet_small.py"),
            opts=[*overrides, "train.seed=5", f"train.output_dir={folder}"],
        )
    )
    for file in folder.glob("model_*.pth"):
        if file.name != "model_0000001.pth":
            file.unlink()
    (folder / "metrics.json").unlink()
    (outcome,) = run_all([run], output_dir=tmp_path, root=ROOT, say=lambda line: None)
    assert outcome.status == "finished", outcome.message
    record = read_json(folder / "record.json")
    assert record["resumed"] and record["seed"] == 5 and 0 <= record["metrics"]["AP"] <= 100
    iterations = [json.loads(x)["iteration"] for x in (folder / "metrics.json").open()]
    # The evaluation after iteration 1 is made up for.
    assert min(iterations) == 1 and max(iterations) in (3, 4)
    assert record["inference_seconds_per_image"] > 0
    assert record["git"] is None or len(record["git"]["commit"]) == 40
