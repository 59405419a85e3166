"""Runs that finish, break off, fail, wait for each other, or are another process's."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iou_balanced.files import exclusive_lock
from iou_balanced.reproduction import run_all
from iou_balanced.reproduction import runner as runner_module
from iou_balanced.reproduction.run_files import read_json, state

from .stub import calls, execute, make_root, stub_run

TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.05)
    return make_root(tmp_path)


def test_a_finished_run_has_a_record(root):
    run = stub_run("a", "model.cls_loss.eta=1.0", seed=3)
    (outcome,), lines = execute(root, run, num_gpus=2)
    folder = root / "out/full/Stub/a/eta-1.0/seed_3"
    assert (outcome.status, state(folder)) == ("finished", "finished")
    record = read_json(folder / "record.json")
    assert record["metrics"] == {"AP": 20.5, "APl": None} and record["iteration"] == 9
    assert (record["config"], record["overrides"]) == ("Stub/a", ["model.cls_loss.eta=1.0"])
    assert (record["seed"], record["profile"], record["resumed"]) == (3, "full", False)
    assert record["inference_seconds_per_image"] == 0.025 and record["seconds"] >= 0
    assert record["cpu_seconds"] > 0 and 1 < record["peak_memory_mib"] < 4096
    assert {"python", "torch", "detectron2", "iou_balanced"} <= set(record["versions"])
    assert record["hardware"]["num_gpus"] == 2 and record["hardware"]["cores"] >= 1
    assert record["git"] is None  # the stand-in's folder is no clone
    words = ["--config-file", "configs/Stub/a.py", "--num-gpus", "2", "model.cls_loss.eta=1.0"]
    words += ["train.seed=3", f"train.output_dir={folder}"]
    assert [json.loads(call) for call in calls(root, run)] == [words]
    assert record["command"] == ["tools/train_net.py", *words]
    assert any("iter: 19" in line for line in lines)
    assert not [f for f in folder.iterdir() if f.name.startswith(".")]  # nothing half-written


def test_a_finished_run_is_not_run_again(root):
    run = stub_run("a")
    execute(root, run)
    before = (run.folder(root / "out") / "record.json").stat().st_mtime_ns
    (outcome,), _ = execute(root, run)
    assert outcome.status == "was finished" and len(calls(root, run)) == 1
    assert (run.folder(root / "out") / "record.json").stat().st_mtime_ns == before


def test_what_broke_off_goes_on(root):
    run = stub_run("a", "break=1")
    (first,), _ = execute(root, run)
    folder = run.folder(root / "out")
    assert first.status == "failed" and "out of memory" in first.message
    assert state(folder) == "failed: RuntimeError: out of memory"
    (second,), _ = execute(root, run)
    assert second.status == "finished" and not (folder / "failure.json").exists()
    assert ["--resume" in call for call in calls(root, run)] == [False, True]
    record = read_json(folder / "record.json")
    assert record["resumed"] is True and len(record["attempts"]) == 2


def test_a_run_that_fails_does_not_end_the_others(root):
    runs = [stub_run("a", "fail=1"), stub_run("b", "mute=1"), stub_run("c")]
    outcomes, _ = execute(root, *runs)
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "finished"]
    assert "the data set is missing" in outcomes[0].message
    assert "ended without an evaluation" in outcomes[1].message
    # Without a checkpoint it starts anew.
    execute(root, runs[0])
    assert ["--resume" in call for call in calls(root, runs[0])] == [False, False]


def test_a_folder_that_cannot_be_written_is_a_failure(root):
    (root / "out").write_text("a file")
    outcomes, _ = execute(root, stub_run("a"), stub_run("b"))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]


def test_a_run_of_other_overrides_is_left_alone(root):
    run = stub_run("a", "break=1")
    execute(root, run)
    started = run.folder(root / "out") / "started.json"
    content = {**read_json(started), "overrides": ["break=1", "of=another_version"]}
    started.write_text(json.dumps(content))
    (outcome,), _ = execute(root, run)
    assert outcome.status == "failed" and "other overrides" in outcome.message
    assert len(calls(root, run)) == 1 and read_json(started) == content


def test_a_run_starts_from_the_weights_of_another(root):
    run = stub_run("city", starts_from="Stub/coco")
    assert run.start.config == "Stub/coco" and run.start.seed == run.seed
    (alone,), _ = execute(root, run)
    assert alone.status == "failed" and "starts from full/Stub/coco" in alone.message
    outcomes, _ = execute(root, run.start, run)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    weights = run.start.folder(root / "out") / "model_final.pth"
    assert f"train.init_checkpoint={weights}" in json.loads(calls(root, run)[0])


def test_a_run_evaluates_the_weights_of_another_and_trains_nothing(root):
    trained = stub_run("coco", "model.x=1", seed=2)
    run = dataclasses.replace(trained, overrides=("train.y=2",), evaluates=trained.overrides)
    assert run.start.name == trained.name != run.name
    (alone,), _ = execute(root, run)
    assert alone.status == "failed" and f"it evaluates {trained.name}, which has" in alone.message
    outcomes, _ = execute(root, trained, run)
    assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
    (words,) = map(json.loads, calls(root, run))
    weights = trained.folder(root / "out") / "model_final.pth"
    assert "--eval-only" in words and "train.y=2" in words and "model.x=1" not in words
    assert f"train.init_checkpoint={weights}" in words
    assert "--eval-only" not in json.loads(calls(root, trained)[0])
    assert [outcome.status for outcome in execute(root, run)[0]] == ["was finished"]


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path):
    path = tmp_path / "folder" / "lock"
    with exclusive_lock(path) as first:
        assert first is not None
        with exclusive_lock(path) as second:  # flock is of open files, not of processes
            assert second is None
    with exclusive_lock(path) as third:
        assert third is not None


def start_process(root, name):
    """Another process that runs the run `name`, which waits until the file "go" is there."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from tests.reproduction.stub import execute, stub_run\n"
        "root = Path(sys.argv[2])\n"
        "execute(root, stub_run(sys.argv[3], f'wait={root}/go'))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(TESTS), str(root), name])


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_processes_do_not_run_the_same_also_when_one_is_killed(root):
    run = stub_run("a", f"wait={root}/go")
    folder = run.folder(root / "out")
    process = start_process(root, "a")
    wait_for(lambda: (folder / "calls.txt").exists())
    (outcome,), _ = execute(root, run)
    assert outcome.status == "left" and "another process" in outcome.message
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # The training that it started goes on, and holds the lock.
    (outcome,), _ = execute(root, run)
    assert outcome.status == "left" and len(calls(root, run)) == 1
    (root / "go").touch()
    wait_for(lambda: (folder / "metrics.json").exists())

    def finished():
        (outcome,), _ = execute(root, run)
        return outcome.status == "finished"

    wait_for(finished)
    assert "--resume" in calls(root, run)[1] and len(calls(root, run)) == 2


def test_the_training_ends_where_the_runner_is_interrupted(root, monkeypatch):
    run = stub_run("a", f"wait={root}/go")

    def interrupt(line):
        if "iter: 19" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([run], output_dir=root / "out", root=root, say=interrupt)
    with exclusive_lock(run.folder(root / "out") / "run.lock") as lock:
        assert lock is not None  # the training has ended too
    assert state(run.folder(root / "out")) == "under way, or broken off"
