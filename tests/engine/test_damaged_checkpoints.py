"""What a resume makes of damaged, missing and half-written checkpoints, and of a full disk."""

import os
import shutil
import signal

import pytest
import torch
from torch import nn

from iou_balanced.engine import UserError, main
from iou_balanced.engine.checkpoint import Checkpointer
from iou_balanced.engine.checkpoint_files import checkpoints_in, problem_of
from iou_balanced.engine.periodic_checkpointer import PeriodicCheckpointer

from .helpers import load_checkpoint, make_args
from .test_full_disk import full_disk

OPTS = ["train.seed=1", "train.best_checkpoint.metric=total_loss", "train.best_checkpoint.mode=min"]
OPTS += ["train.max_iter=6", "train.checkpointer.period=2", "dataloader.evaluator=null"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with model_0000001.pth, 3, 5, model_final.pth and model_best.pth."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    main(make_args(opts=[*OPTS, "train.eval_period=2", f"train.output_dir={folder}"]))
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy without the files of the last iteration: model_0000003.pth is the newest."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("model_0000005.pth", "model_final.pth", "model_best.pth", "model_best.json"):
        (folder / name).unlink()
    (folder / "last_checkpoint").write_text("model_0000003.pth")
    return folder


def checkpointer(folder):
    class State:
        def __init__(self):
            self.iteration = None

        def state_dict(self):
            return {"iteration": self.iteration}

        def load_state_dict(self, state):
            self.iteration = state["iteration"]

    return Checkpointer(nn.Linear(300, 20), str(folder), trainer=State())


@pytest.fixture
def small(tmp_path):
    """A checkpointer with files of iterations 9, 19 and 29; saving takes milliseconds."""
    found = checkpointer(tmp_path)
    for iteration in (9, 19, 29):
        found.checkpointables["trainer"].iteration = iteration
        found.save(f"model_{iteration:07d}", iteration=iteration)
    return found


def flip(path, share):
    """Turn a byte that is a part of the content."""
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    path.write_bytes(content)


def truncate(path, size):
    with path.open("rb+") as file:
        file.truncate(size)


DAMAGES = {
    "half": lambda path: truncate(path, path.stat().st_size // 2),
    "all but one byte": lambda path: truncate(path, path.stat().st_size - 1),
    "empty": lambda path: truncate(path, 0),
    "text": lambda path: path.write_text("no checkpoint\n" * 100),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "weights only": lambda path: torch.save({"model": nn.Linear(300, 20).state_dict()}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "no iteration": lambda path: torch.save({"model": {}, "trainer": {}}, path),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_whole_checkpoint_is_taken(small, tmp_path, damage, log):
    DAMAGES[damage](tmp_path / "model_0000029.pth")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    small.resume_or_load("", resume=True)
    assert small.checkpointables["trainer"].iteration == 19
    assert "model_0000029.pth cannot be resumed: it " in log()
    assert "Going on with" in log() and "model_0000019.pth" in log()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_every_flipped_byte_of_the_content_is_found(tmp_path):
    """In weights and in the pickle beside them; what no part uses may be anything."""
    path = tmp_path / "model_0000001.pth"
    torch.save({"model": {"w": torch.arange(4000.0)}}, path)
    whole = path.read_bytes()
    start = whole.index(torch.arange(4000.0).numpy().tobytes())
    for place in [*range(start, start + 16000, 1999), whole.index(b"model")]:
        content = bytearray(whole)
        content[place] ^= 0x10
        path.write_bytes(content)
        assert problem_of(path), place
    path.write_bytes(whole)
    assert problem_of(path) is None


def test_no_flipped_bit_of_the_directory_ends_the_search(tmp_path):
    """There, bits ask for a password, for another compression or for places out of the file."""
    path = tmp_path / "model_0000001.pth"
    torch.save({"model": {"w": torch.arange(4.0)}}, path)
    whole = path.read_bytes()
    problems = set()
    for place in range(whole.index(b"PK\1\2"), len(whole)):
        for bit in (0x01, 0x08):
            content = bytearray(whole)
            content[place] ^= bit
            path.write_bytes(content)
            problems.add(problem_of(path))
    assert any("encrypted" in str(x) for x in problems)
    assert any("decompressing" in str(x) for x in problems)


def test_a_damaged_final_or_best_checkpoint(small, tmp_path, log):
    """Their names do not tell how new they are."""
    for name in ("model_final.pth", "model_best.pth"):
        shutil.copy(tmp_path / "model_0000029.pth", tmp_path / name)
        flip(tmp_path / name, 0.5)
    small.tag_last_checkpoint("model_final.pth")
    small.resume_or_load("", resume=True)
    assert small.checkpointables["trainer"].iteration == 29
    assert "model_final.pth cannot be resumed: it is damaged" in log()


@pytest.mark.parametrize("said", [None, "", "model_0000099.pth", "\0\0", "../elsewhere.pth"])
def test_whatever_last_checkpoint_says(small, tmp_path, said):
    (tmp_path / "last_checkpoint").unlink()
    if said is not None:
        (tmp_path / "last_checkpoint").write_text(said)
    assert small.has_checkpoint()
    small.resume_or_load("", resume=True)
    assert small.checkpointables["trainer"].iteration == 29


def test_a_newer_file_than_last_checkpoint_says(small, tmp_path):
    """The kill came between the two."""
    small.tag_last_checkpoint("model_0000009.pth")
    small.resume_or_load("", resume=True)
    assert small.checkpointables["trainer"].iteration == 29


def test_none_is_whole(small, tmp_path):
    for path in tmp_path.glob("*.pth"):
        truncate(path, 100)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    message = r"no whole checkpoint to resume \(model_0000029\.pth: it is torn.*Nothing was changed"
    with pytest.raises(UserError, match=message):
        small.resume_or_load("", resume=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    for path in tmp_path.glob("*.pth"):
        path.unlink()
    with pytest.raises(UserError, match=r"last_checkpoint names model_0000029\.pth, which is miss"):
        small.resume_or_load("", resume=True)


def test_weights_of_other_names_are_no_checkpoints(tmp_path):
    torch.save({"model": {}}, tmp_path / "imagenet.pth")
    assert checkpoints_in(tmp_path) == [] and not checkpointer(tmp_path).has_checkpoint()


def test_a_run_with_a_torn_newest_checkpoint_goes_on(folder, tmp_path, finished):
    """And ends as the unbroken one; nothing that was whole is overwritten."""
    truncate(folder / "model_0000003.pth", 5000)
    (folder / "last_checkpoint").unlink()
    stamp = (folder / "model_0000001.pth").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"holds a run \(.*model_0000003\.pth\): --resume goes on"):
        main(make_args(opts=[*OPTS, f"train.output_dir={folder}"]))
    main(make_args(opts=[*OPTS, f"train.output_dir={folder}"], resume=True))
    assert (folder / "model_0000001.pth").stat().st_mtime_ns == stamp
    one, other = load_checkpoint(finished)["model"], load_checkpoint(folder)["model"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_without_whole_checkpoint_is_left_alone(folder):
    for path in folder.glob("*.pth"):
        truncate(path, 1000)
    before = {p.name: p.read_bytes() for p in folder.glob("*.pth")}
    with pytest.raises(UserError, match="has no whole checkpoint to resume"):
        main(make_args(opts=[*OPTS, f"train.output_dir={folder}"], resume=True))
    assert {p.name: p.read_bytes() for p in folder.glob("*.pth")} == before


class Trainer:
    def __init__(self, start_iter):
        self.start_iter, self.max_iter = start_iter, 100


def numbers(folder):
    return sorted(int(p.stem[6:]) for p in folder.glob("model_0*.pth"))


def test_max_to_keep_counts_over_all_starts(small, tmp_path):
    for name in ("model_final.pth", "model_best.pth"):
        shutil.copy(tmp_path / "model_0000009.pth", tmp_path / name)
    for start, left in ((30, [29, 39]), (40, [39, 49])):
        periodic = PeriodicCheckpointer(small, 10, max_to_keep=2)
        periodic.trainer = Trainer(start)
        periodic.before_train()
        for iteration in range(start, start + 10):
            periodic.step(iteration)
        assert numbers(tmp_path) == left
    assert (tmp_path / "model_final.pth").exists() and (tmp_path / "model_best.pth").exists()


def test_the_only_whole_checkpoint_stays_until_there_is_another(small, tmp_path, monkeypatch):
    truncate(tmp_path / "model_0000029.pth", 10)
    periodic = PeriodicCheckpointer(small, 10, max_to_keep=1)
    periodic.trainer = Trainer(20)
    periodic.before_train()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device"):
        patch.setattr(torch, "save", fail)
        periodic.step(29)
    assert problem_of(tmp_path / "model_0000019.pth") is None
    periodic.step(29)
    assert numbers(tmp_path) == [29] and problem_of(tmp_path / "model_0000029.pth") is None


def test_a_full_disk_is_one_line_and_leaves_nothing(small, tmp_path):
    """As a limit to the size of a file, which the system answers in the same way."""
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with full_disk(1000), pytest.raises(UserError) as error:
        small.save("model_0000029", iteration=29)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/model_0000029.pth could not be written (File too large)")
    assert "make room, and go on with --resume" in message and "\n" not in message
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    small.save("model_0000029", iteration=29)  # there is room again


def test_a_kill_in_the_middle_of_writing(small, tmp_path, monkeypatch):
    """Of model_best.pth, the only checkpoint: the old one stays whole; what is left is removed."""
    shutil.copy(tmp_path / "model_0000029.pth", tmp_path / "model_best.pth")
    child = os.fork()
    if child == 0:

        def write_half_and_die(content, file):
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = write_half_and_die
        small.save("model_best", iteration=39)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert problem_of(tmp_path / "model_best.pth") is None
    (left,) = tmp_path.glob(".model_best.pth.*")
    small.remove_leftovers()
    assert not left.exists() and problem_of(tmp_path / "model_best.pth") is None


def test_last_checkpoint_is_never_half_a_name(small, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        small.tag_last_checkpoint("model_0000009.pth")
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000029.pth"


def test_a_damaged_best_checkpoint_is_not_the_best(finished, tmp_path, log):
    """Else no later evaluation would write one."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    flip(folder / "model_best.pth", 0.5)
    opts = [*OPTS, "train.eval_period=2", "train.max_iter=8", f"train.output_dir={folder}"]
    main(make_args(opts=opts, resume=True))
    assert "model_best.pth is given up: it is damaged" in log()
    assert problem_of(folder / "model_best.pth") is None


def test_the_best_by_another_metric_is_kept(finished, tmp_path, log):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = (folder / "model_best.pth").read_bytes()
    opts = [*OPTS, "train.eval_period=2", "train.max_iter=8", f"train.output_dir={folder}"]
    main(make_args(opts=[*opts, "train.best_checkpoint.metric=loss_cls"], resume=True))
    assert (folder / "best_total_loss.pth").read_bytes() == before
    assert "model_best.pth is the best by total_loss, which is not loss_cls" in log()
    assert load_checkpoint(folder, "model_best.pth")["best"]["metric"] == "loss_cls"


def test_the_best_value_is_in_its_file(finished):
    """So that a kill between the file and its JSON does not part them."""
    best = load_checkpoint(finished, "model_best.pth")
    assert best["best"]["metric"] == "total_loss"
    assert best["trainer"]["iteration"] <= 5
    assert load_checkpoint(finished)["trainer"]["iteration"] == 5
