"""SIGKILL at random times, as often as it comes: the run ends as one that was left alone."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from iou_balanced.engine import main
from iou_balanced.engine.checkpoint_files import problem_of
from iou_balanced.engine.launch import _free_port

from .helpers import CONFIG, TINY, load_checkpoint, make_args, train_net
from .runs import (
    differing,
    end_of,
    is_gone,
    last_iteration,
    popen,
    records,
    scalars,
    start,
    wait_until,
)

OPTS = ["train.seed=5", "train.checkpointer.period=2", "train.eval_period=8", "train.log_period=3"]
OPTS += ["train.checkpointer.max_to_keep=2", "train.progress_bar=False"]


def newest(folder):
    file = folder / "last_checkpoint"
    return file.read_text() if file.exists() else ""


def kill_at_random(args, folder, rng):
    """After a new checkpoint, lest it take forever; returns whether the run had ended before."""
    before = newest(folder)
    process = start(args)
    while newest(folder) == before:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.3))
    os.kill(process, signal.SIGKILL)
    return end_of(process) != -signal.SIGKILL


def check_kills(tmp_path, opts, number, workers, seed):
    whole, killed, rng = tmp_path / "whole", tmp_path / "killed", random.Random(seed)
    main(make_args(opts=[*opts, f"train.output_dir={whole}"]))
    kills = 0
    for i in range(10 * number):
        own = [*opts, f"dataloader.train.num_workers={workers[i % len(workers)]}"]
        args = make_args(opts=[*own, f"train.output_dir={killed}"], resume=i > 0)
        if kills == number:
            main(args)
            break
        ended = kill_at_random(args, killed, rng)
        kills += not ended
        assert not ended, f"the run has ended after {kills} kills only"
        for path in killed.glob("model_*.pth"):
            assert problem_of(path) is None, path
        assert len(list(killed.glob("model_0*.pth"))) <= 3  # the kill may come before the removal
    assert differing(whole, killed) == []
    assert records(whole) == records(killed)
    assert sorted(scalars(whole, "total_loss")) == sorted(scalars(killed, "total_loss"))
    assert (whole / "model_best.json").read_text() == (killed / "model_best.json").read_text()
    assert not list(killed.glob(".model_*"))


def test_three_kills(tmp_path):
    check_kills(tmp_path, [*OPTS, "train.max_iter=24"], 3, [0, 2, 1], seed=0)


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    check_kills(tmp_path, [*OPTS, "train.max_iter=160"], 20, [0, 1, 2, 4], seed=1)


DISTRIBUTED = ["train.seed=5", "train.checkpointer.period=2", "train.log_period=1"]
DISTRIBUTED += ["dataloader.train.num_workers=2", "dataloader.evaluator=null"]
DISTRIBUTED += ["train.best_checkpoint.metric=null", "train.progress_bar=False"]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    opts = [*TINY, *DISTRIBUTED, "train.max_iter=30", f"train.output_dir={folder}"]
    result = train_net("--num-gpus", "2", *opts)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_two_processes_killed_and_resumed(two_processes, tmp_path):
    opts = [*DISTRIBUTED, "train.max_iter=30", f"train.output_dir={tmp_path}"]
    process = popen(*opts, flags=["--num-gpus", "2"])
    wait_until(lambda: last_iteration(tmp_path) >= 7)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = train_net("--resume", "--num-gpus", "2", *TINY, *opts)
    assert result.returncode == 0, result.stderr[-2000:]
    assert differing(two_processes, tmp_path) == []
    assert records(two_processes) == records(tmp_path)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def ranks_of(process):
    """Ids of the processes that torchrun has started, each in a session of its own."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.slow
def test_torchrun_starts_a_killed_rank_again_from_the_newest_checkpoint(two_processes, tmp_path):
    """Without a hand: --resume is there from the first start on."""
    opts = [*DISTRIBUTED, "train.max_iter=30", f"train.output_dir={tmp_path}"]
    launcher = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]
    process = popen(*opts, flags=["--resume"], launcher=launcher)
    for reached in (5, 15):
        wait_until(lambda reached=reached: last_iteration(tmp_path) >= reached)
        killed = set(ranks_of(process))
        os.kill(max(killed), signal.SIGKILL)
        wait_until(lambda killed=killed: set(ranks_of(process)) - killed)
    assert process.wait(300) == 0, process.stderr.read()[-3000:]
    starts = re.findall(
        r"Starting training from iteration (\d+)", (tmp_path / "log.txt").read_text()
    )
    first, second, third = map(int, starts)
    assert first == 0 and second >= 4 and third >= 14
    assert differing(two_processes, tmp_path) == []
    assert records(two_processes) == records(tmp_path)


def node(rank, port, *opts, flags=()):
    launcher = [*TORCHRUN, "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
    launcher += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return popen(*opts, flags=flags, launcher=launcher)


@pytest.mark.slow
def test_two_nodes_train_and_one_goes_on(two_processes, tmp_path):
    """With the same global batches: the numbers are those of any two processes."""
    opts = [*DISTRIBUTED, "train.max_iter=30", f"train.output_dir={tmp_path}"]
    port = _free_port()
    nodes = [node(rank, port, *opts) for rank in range(2)]
    wait_until(lambda: last_iteration(tmp_path) >= 7)
    for process in [pid for x in nodes for pid in (x.pid, *ranks_of(x))]:
        os.kill(process, signal.SIGKILL)
    for process in nodes:
        process.wait()
    wait_until(lambda: is_gone(tmp_path), seconds=20)
    done = load_checkpoint(tmp_path, newest(tmp_path))["iteration"]
    result = train_net("--resume", "--num-gpus", "2", *TINY, *opts)
    assert result.returncode == 0, result.stderr[-2000:]
    assert done >= 5 and differing(two_processes, tmp_path) == []
    assert records(two_processes) == records(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torchrun", "all", "one rank"])
def test_a_signal_under_torchrun_writes_a_checkpoint(tmp_path, to):
    opts = [*DISTRIBUTED, "train.checkpointer.period=100000", "train.max_iter=100000"]
    opts.append(f"train.output_dir={tmp_path}")
    process = popen(*opts, launcher=[*TORCHRUN, "--standalone", "--nproc-per-node", "2"])
    wait_until(lambda: last_iteration(tmp_path) >= 3)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    targets = {"torchrun": [process.pid], "all": [process.pid, *ranks], "one rank": ranks[1:]}
    for target in targets[to]:
        os.kill(target, signal.SIGTERM)
    process.wait(120)
    stderr = process.stderr.read()
    (path,) = tmp_path.glob("model_*.pth")
    assert problem_of(path) is None and load_checkpoint(tmp_path, path.name)["iteration"] >= 3
    assert process.returncode == 1  # torchrun's own
    if to == "one rank":  # torchrun tells how its processes ended
        assert "exitcode  : 75" in stderr
    wait_until(lambda: is_gone(tmp_path))


# Half of the layers: 5,000 iterations take some minutes.
SHALLOW = ["model.head.conv_dims=[64]"]
for stage in range(4):
    SHALLOW.append(f"model.backbone.bottom_up.stages.{stage}.num_blocks=1")
    SHALLOW.append(
        f"model.backbone.bottom_up.stages.{stage}.stride_per_block=[{min(stage, 1) + 1}]"
    )


@pytest.mark.slow
def test_soak(tmp_path):
    """5,000 iterations with evaluations, checkpoints and two kills: memory is flat, files whole."""
    opts = [
        *OPTS,
        *SHALLOW,
        "train.max_iter=5000",
        "train.checkpointer.period=250",
        "train.log_period=20",
    ]
    opts += ["train.eval_period=500", "dataloader.train.num_workers=2"]
    opts += ["dataloader.train.total_batch_size=2", f"train.output_dir={tmp_path}"]
    measured = []
    for stop in (1500, 3300, None):
        process = popen(*opts, flags=["--resume"], config=CONFIG)
        seen, first = [], last_iteration(tmp_path)
        while process.poll() is None:
            iteration = last_iteration(tmp_path)
            if stop is not None and iteration >= stop:
                process.kill()
                process.wait()
                break
            # Evaluations and the first checkpoint have taken what they take.
            if iteration >= max(first, 0) + 600:
                seen.append(_memory(process.pid))
            time.sleep(2)
        measured.append(seen)
        for path in tmp_path.glob("model_*.pth"):
            assert problem_of(path) is None, path
    assert process.returncode == 0, process.stderr.read()[-2000:]
    for seen in filter(None, measured):
        early, late = seen[: max(len(seen) // 4, 1)], seen[-max(len(seen) // 4, 1) :]
        assert max(late) < 1.05 * max(early), seen
    iterations = [record["iteration"] for record in records(tmp_path)]
    assert len(iterations) == len(set(iterations)) and iterations[-1] == 5000
    assert len(list(tmp_path.glob("model_0*.pth"))) == 2


def _memory(process: int) -> int:
    """kB that it holds."""
    with open(f"/proc/{process}/status") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("VmRSS")), 0)
