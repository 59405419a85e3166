"""A kill and a resume: the run goes on as if nothing had happened, and fine-tuning does not."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from iou_balanced.engine import UserError, main
from iou_balanced.engine.trainer import Trainer

from .helpers import ROOT, TINY, load_checkpoint, make_args, read_metrics, train_net

# No random augmentation: the losses depend on the order of the images and the weights only.
DETERMINISTIC = [
    *TINY,
    "train.max_iter=8",
    "train.checkpointer.period=2",
    "train.seed=3",
    "dataloader.train.mapper.augmentations=[]",
    "model.box_loss.weight=auto",
    # The kill comes while it is measured.
    "model.box_loss.measure_iterations=6",
    # Adam would blow rounding errors up to the size of a step where a gradient is close to 0.
    "optimizer._target_=torch.optim.SGD",
    "optimizer.lr=0.01",
]


def resume_state(folder, name="model_final.pth"):
    return load_checkpoint(folder, name)["trainer"]["hooks"]["ResumeStateHook"]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    result = train_net(*DETERMINISTIC, f"train.output_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def resumed_run(tmp_path_factory):
    """The same run, killed without warning after its first checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(ROOT / "tools/train_net.py"), "--config-file"]
    command += [str(ROOT / "configs/Digits/retinanet_small_iou_balanced.py")]
    command += [*DETERMINISTIC, f"train.output_dir={folder}"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "last_checkpoint").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "model_final.pth").exists(), "the kill came too late for this test"
    result = train_net("--resume", *DETERMINISTIC, f"train.output_dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


def test_the_schedule_is_that_of_the_uninterrupted_run(whole_run, resumed_run):
    whole, resumed = read_metrics(whole_run), read_metrics(resumed_run)
    last = 7
    assert max(whole) == max(resumed) == last + 1  # the evaluation after training
    for key in ("lr", "w_loc"):
        assert resumed[last][key] == pytest.approx(whole[last][key], rel=1e-5), key


def test_the_weights_are_those_of_the_uninterrupted_run(whole_run, resumed_run):
    """So the losses were, image by image; metrics.json has running medians only."""
    whole, resumed = load_checkpoint(whole_run), load_checkpoint(resumed_run)
    for name, value in whole["model"].items():
        torch.testing.assert_close(resumed["model"][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_normaliser_and_w_loc_are_those_of_the_uninterrupted_run(whole_run, resumed_run):
    whole, resumed = resume_state(whole_run), resume_state(resumed_run)
    assert set(whole) == set(resumed) == {"box_loss", "loss_normalizer"}
    assert whole["box_loss"].pop("measurement") is resumed["box_loss"].pop("measurement") is None
    for module, state in whole.items():
        assert resumed[module] == pytest.approx(state, rel=1e-5)
    assert whole["box_loss"]["measured_weight"] > 1
    assert whole["loss_normalizer"]["average"] != 100


def test_a_run_broken_off_while_w_loc_is_measured(tmp_path, monkeypatch):
    """It goes on measuring, and finds the value of the unbroken run to the last bit."""
    opts = [*DETERMINISTIC, "model.box_loss.measure_iterations=5", "train.max_iter=6"]
    opts += ["train.best_checkpoint.metric=null", "train.log_period=20"]
    main(make_args(opts=[*opts, f"train.output_dir={tmp_path}/whole"]))
    run_step, stop = Trainer.run_step, [3]

    def stop_at(self):
        if self.iter in stop:
            raise KeyboardInterrupt
        return run_step(self)

    monkeypatch.setattr(Trainer, "run_step", stop_at)
    opts += [f"train.output_dir={tmp_path}/broken"]
    with pytest.raises(KeyboardInterrupt):
        main(make_args(opts=opts))
    half = resume_state(tmp_path / "broken", "model_0000001.pth")["box_loss"]
    assert half["measured_weight"] is None and len(half["measurement"]["ratios"]) == 2
    stop.clear()
    main(make_args(opts=opts, resume=True))
    whole, resumed = (resume_state(tmp_path / run)["box_loss"] for run in ("whole", "broken"))
    assert resumed == whole and whole["measured_weight"] > 1


def test_the_state_is_no_part_of_the_model(whole_run):
    assert not [k for k in load_checkpoint(whole_run)["model"] if "loss" in k]


def test_fine_tuning_takes_the_weights_only(whole_run, tmp_path):
    before = resume_state(whole_run)
    opts = [
        *DETERMINISTIC,
        f"train.init_checkpoint={whole_run}/model_final.pth",
        f"train.output_dir={tmp_path}",
        "train.max_iter=1",
        "model.box_loss.measure_iterations=1",
        "optimizer.lr=0",
    ]
    main(make_args(opts=opts))
    after = resume_state(tmp_path)
    # Measured anew on weights that have learned: another ratio than that of random weights.
    assert after["box_loss"]["measured_weight"] != before["box_loss"]["measured_weight"]
    # The normaliser starts at 100 again: 0.9 * 100 + 0.1 * positives.
    positives = read_metrics(tmp_path)[0]["num_pos_anchors"] * 4
    assert after["loss_normalizer"]["average"] == pytest.approx(90 + 0.1 * positives)
    final = load_checkpoint(whole_run)["model"]["head.cls_score.weight"]
    assert torch.equal(load_checkpoint(tmp_path)["model"]["head.cls_score.weight"], final)


def test_a_new_run_does_not_overwrite_an_old_one(whole_run):
    before = sorted((p.name, p.stat().st_mtime_ns) for p in whole_run.glob("*.pth"))
    with pytest.raises(UserError, match=r"holds a run .*--resume goes on with it"):
        main(make_args(opts=[*DETERMINISTIC, f"train.output_dir={whole_run}"]))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in whole_run.glob("*.pth")) == before


def test_a_resume_with_the_same_config_keeps_no_copy_of_it(resumed_run):
    """tests/engine/test_kept_config.py has those that differ."""
    assert sorted(path.name for path in resumed_run.glob("config.yaml*")) == ["config.yaml"]


def test_the_best_value_survives_a_resume(tmp_path):
    opts = [f"train.output_dir={tmp_path}", "train.eval_period=2", "train.checkpointer.period=2"]
    main(make_args(opts=[*opts, "train.max_iter=3"]))
    path = tmp_path / "model_best.json"
    best = json.loads(path.read_text())
    assert best["metric"] == "bbox/AP"
    # An unreachable best: a resumed run must not replace it.
    path.write_text(json.dumps({**best, "value": 100.0, "iteration": 1}))
    stamp = os.stat(tmp_path / "model_best.pth").st_mtime_ns
    main(make_args(opts=[*opts, "train.max_iter=5"], resume=True))
    assert os.stat(tmp_path / "model_best.pth").st_mtime_ns == stamp
    assert json.loads(path.read_text())["value"] == 100.0


def test_a_finished_run_goes_on_with_more_iterations(tmp_path):
    opts = [f"train.output_dir={tmp_path / 'run'}", "train.eval_period=2", "train.seed=0"]
    main(make_args(opts=[*opts, "train.max_iter=2"]))
    assert (tmp_path / "run/model_best.pth").exists()
    main(make_args(opts=[*opts, "train.max_iter=4"], resume=True))
    # Iterations count from 0; none is left out and none is done twice.
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    trained = [r["iteration"] for r in map(json.loads, lines) if "total_loss" in r]
    assert trained == [0, 1, 2, 3]


def test_a_prolonged_run_that_fails_keeps_its_newest_checkpoint(tmp_path, monkeypatch):
    opts = [f"train.output_dir={tmp_path / 'run'}", "train.eval_period=2", "train.seed=0"]
    opts += ["train.checkpointer.period=2"]
    main(make_args(opts=[*opts, "train.max_iter=2"]))

    def fail_at_5(self):
        if self.iter == 5:
            raise KeyboardInterrupt
        return run_step(self)

    run_step = Trainer.run_step
    monkeypatch.setattr(Trainer, "run_step", fail_at_5)
    with pytest.raises(KeyboardInterrupt):
        main(make_args(opts=[*opts, "train.max_iter=8"], resume=True))
    # Not model_final.pth, which is of the first two iterations.
    last = load_checkpoint(tmp_path / "run", (tmp_path / "run/last_checkpoint").read_text())
    assert last["iteration"] == 3
