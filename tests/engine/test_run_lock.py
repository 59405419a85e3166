"""One run a folder."""

import json
import os
import signal
import socket
import time

import pytest

from iou_balanced.engine import UserError, main
from iou_balanced.engine.run_lock import LOCK, lock_folder
from iou_balanced.engine.trainer import Trainer

from .helpers import make_args
from .runs import end_of, last_iteration, start, wait_until
from .yaml_photos import train

OPTS = ["train.seed=1", "train.max_iter=2", "dataloader.evaluator=null", "train.log_period=1"]
OPTS += ["train.best_checkpoint.metric=null"]


def hold(folder) -> int:
    """A process that has the lock until it is killed."""
    process = os.fork()
    if process == 0:
        with lock_folder(str(folder)):
            (folder / "held").touch()
            time.sleep(600)
    wait_until((folder / "held").exists, process)
    return process


def kill(process):
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_a_second_run_is_refused_in_one_line_and_a_killed_one_is_not_in_the_way(tmp_path):
    process = hold(tmp_path)
    args = make_args(opts=[*OPTS, f"train.output_dir={tmp_path}"])
    with pytest.raises(UserError) as error:
        main(args)
    message = str(error.value)
    who = rf"another run is training in {tmp_path} (process {process} on {socket.gethostname()}, s"
    assert message.startswith(who) and "give another train.output_dir" in message
    assert "\n" not in message
    # Nothing but the log was written.
    assert not [p for p in tmp_path.iterdir() if p.name not in ("held", LOCK, "log.txt")]
    kill(process)
    assert json.loads((tmp_path / LOCK).read_text())["process"] == process  # stale
    main(args)
    assert (tmp_path / LOCK).read_text() == ""


def test_the_processes_that_load_do_not_hold_it(tmp_path, monkeypatch):
    """They outlive a killed run by seconds."""
    run_step = Trainer.run_step
    monkeypatch.setattr(Trainer, "run_step", lambda self: (run_step(self), time.sleep(0.1)))
    opts = [*OPTS, "train.max_iter=1000", f"train.output_dir={tmp_path}"]
    process = start(make_args(opts=[*opts, "dataloader.train.num_workers=2"]))
    wait_until(lambda: last_iteration(tmp_path) >= 0, process)
    kill(process)
    with lock_folder(str(tmp_path)):
        pass


def test_the_same_process_does_not_get_it_twice(tmp_path):
    with lock_folder(str(tmp_path), "OUTPUT_DIR"):
        message = rf"process {os.getpid()} on .*give another OUTPUT_DIR"
        with pytest.raises(UserError, match=message), lock_folder(str(tmp_path), "OUTPUT_DIR"):
            pass
        # And still has it.
        child = os.fork()
        if child == 0:
            try:
                with lock_folder(str(tmp_path)):
                    os._exit(0)
            except UserError:
                os._exit(7)
        assert end_of(child) == 7
    with lock_folder(str(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("owner", "refused"),
    [
        ({"host": socket.gethostname(), "process": os.getppid()}, True),
        ({"host": socket.gethostname(), "process": 2**22 + 5}, False),
        ({"host": "elsewhere", "process": 1}, True),
        ({"host": socket.gethostname()}, False),
        (None, False),
    ],
)
def test_on_a_file_system_without_locks_the_process_in_the_file_decides(
    tmp_path, monkeypatch, owner, refused
):
    def unsupported(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", unsupported)
    (tmp_path / LOCK).write_text("" if owner is None else json.dumps(owner))
    if refused:
        message = rf"process {owner['process']} on {owner['host']}.*remove {tmp_path}/{LOCK}"
        with pytest.raises(UserError, match=message), lock_folder(str(tmp_path)):
            pass
        assert json.loads((tmp_path / LOCK).read_text()) == owner
    else:
        with lock_folder(str(tmp_path)):
            pass


def test_the_yaml_trainer_has_it_too(yaml_config, tmp_path):
    yaml_config.DATASETS.TEST = ()
    process = hold(tmp_path)
    try:
        with pytest.raises(UserError, match="give another OUTPUT_DIR"):
            train(yaml_config)
    finally:
        kill(process)


def test_a_folder_is_free_after_a_run_that_failed(tmp_path):
    opts = [*OPTS, "optimizer.lr=1e30", "train.max_iter=9", "lr_multiplier.warmup_factor=1.0"]
    with pytest.raises(FloatingPointError):
        main(make_args(opts=[*opts, f"train.output_dir={tmp_path}"]))
    with lock_folder(str(tmp_path)):
        pass
