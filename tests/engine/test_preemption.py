"""A run that is asked to stop: the iteration is finished, and a checkpoint written."""

import os
import signal
import subprocess
import time

import pytest
import torch

from iou_balanced.engine import main, preemption
from iou_balanced.engine.loader import read_train_dataset
from iou_balanced.engine.trainer import Trainer

from .helpers import load_checkpoint, make_args
from .runs import differing, end_of, is_gone, last_iteration, popen, records, start, wait_until

OPTS = ["train.seed=1", "train.max_iter=6", "train.checkpointer.period=100", "train.log_period=1"]
OPTS += ["dataloader.evaluator=null", "train.best_checkpoint.metric=null"]
SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


FLAGS = ["--num-gpus", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    main(make_args(opts=[*OPTS, f"train.output_dir={folder}"]))
    return folder


@pytest.fixture
def slowly(monkeypatch):
    """Iterations of a tenth of a second at least, so that a signal comes in time."""
    run_step = Trainer.run_step

    def step(self):
        time.sleep(0.1)
        run_step(self)

    monkeypatch.setattr(Trainer, "run_step", step)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_run_and_the_resume_loses_nothing(number, whole, tmp_path, slowly):
    """The signal goes to the processes that load images too, as a scheduler's does."""
    args = make_args(opts=[*OPTS, "dataloader.train.num_workers=2", f"train.output_dir={tmp_path}"])
    process = start(args)
    wait_until(lambda: last_iteration(tmp_path) >= 1, process)
    loading = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    for child in map(int, loading.stdout.split()):
        os.kill(child, number)
    os.kill(process, number)
    assert end_of(process) == preemption.EXIT_CODE == 75
    (path,) = tmp_path.glob("model_*.pth")
    assert (tmp_path / "last_checkpoint").read_text() == path.name
    # It was no other iteration than the one that was under way.
    assert load_checkpoint(tmp_path, path.name)["iteration"] - last_iteration(tmp_path) in (0, 1, 2)
    args.resume = True
    main(args)
    assert differing(whole, tmp_path) == []
    assert records(whole) == records(tmp_path)


def test_a_second_signal_ends_the_run_at_once(tmp_path, monkeypatch):
    def hang(self):
        (tmp_path / "step").touch()
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr(Trainer, "run_step", hang)
    process = start(make_args(opts=[*OPTS, f"train.output_dir={tmp_path}"]))
    wait_until((tmp_path / "step").exists, process)
    os.kill(process, signal.SIGTERM)
    os.kill(process, signal.SIGTERM)  # the same signal, to the process and to its group
    time.sleep(1.2)
    assert os.waitpid(process, os.WNOHANG)[0] == 0
    os.kill(process, signal.SIGUSR1)
    assert end_of(process) == -signal.SIGUSR1
    assert not list(tmp_path.glob("model_*.pth"))


def test_a_signal_while_the_data_are_read(tmp_path, monkeypatch):
    """There is nothing to save, and nothing of it is in the way of the next start."""

    def read(cfg):
        os.kill(os.getpid(), signal.SIGTERM)
        return read_train_dataset(cfg)

    monkeypatch.setattr("iou_balanced.engine.train.read_train_dataset", read)
    args = make_args(opts=[*OPTS, "train.max_iter=1", f"train.output_dir={tmp_path}"])
    with pytest.raises(SystemExit) as e:
        main(args)
    assert e.value.code == 75 and not list(tmp_path.glob("model_*.pth"))
    monkeypatch.undo()
    args.resume = True
    main(args)
    assert (tmp_path / "model_final.pth").exists()


def test_a_signal_in_the_last_iteration_lets_the_run_end(tmp_path, monkeypatch):
    run_step = Trainer.run_step

    def step(self):
        run_step(self)
        if self.iter == self.max_iter - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "run_step", step)
    main(make_args(opts=[*OPTS, "train.max_iter=2", f"train.output_dir={tmp_path}"]))
    assert (tmp_path / "model_final.pth").exists()


def test_handlers_are_there_in_the_training_only(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    with preemption.stop_signals():
        assert not preemption.is_asked()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert preemption.is_asked()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not preemption.is_asked()


def test_a_checkpoint_of_the_same_iteration_is_not_written_twice(tmp_path, monkeypatch):
    run_step = Trainer.run_step

    def step(self):
        run_step(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "run_step", step)
    saved, save = [], torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (saved.append(1), save(*args)))
    opts = [*OPTS, "train.checkpointer.period=1", f"train.output_dir={tmp_path}"]
    with pytest.raises(SystemExit) as e:
        main(make_args(opts=opts))
    assert e.value.code == 75 and saved == [1]


def test_a_signal_to_the_parent_of_two_processes_stops_both(tmp_path):
    process = popen(*OPTS, "train.max_iter=100000", f"train.output_dir={tmp_path}", flags=FLAGS)
    wait_until(lambda: last_iteration(tmp_path) >= 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 75, process.stderr.read()[-2000:]
    assert "Traceback" not in process.stderr.read()
    assert is_gone(tmp_path)
    (path,) = tmp_path.glob("model_*.pth")
    assert load_checkpoint(tmp_path, path.name)["iteration"] >= 2
