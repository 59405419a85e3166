"""A resume with a config that does not fit the checkpoint: refused by name, or said."""

import shutil

import pytest
import torch
from torch import nn

from iou_balanced.engine import UserError, main
from iou_balanced.engine.checkpoint import Checkpointer

from .helpers import BASELINE, load_checkpoint, make_args

OPTS = ["train.seed=1", "dataloader.evaluator=null", "train.best_checkpoint.metric=null"]


class Trainer:
    """As much of one as a checkpointer needs."""

    def __init__(self, optimizer):
        self.optimizer, self.iteration = optimizer, 3

    def state_dict(self):
        return {"iteration": self.iteration, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.optimizer.load_state_dict(state["optimizer"])


def checkpointer(folder, kind=torch.optim.SGD, *, sizes=(4, 3), groups=1, **kwargs):
    """Of a model whose parameters have moved once, so that the optimizer has a state."""
    model = nn.Sequential(*(nn.Linear(5, size) for size in sizes))
    parameters = list(model.parameters())
    shares = [{"params": parameters[i::groups]} for i in range(groups)]
    optimizer = kind(shares, **kwargs)
    sum(p.sum() for p in parameters).backward()
    optimizer.step()
    return Checkpointer(model, str(folder), optimizer=optimizer, trainer=Trainer(optimizer))


def resume(folder, *args, **kwargs):
    checkpointer(folder, *args, **kwargs).resume_or_load("", resume=True)


SGD = {"lr": 0.1, "momentum": 0.9}


@pytest.fixture
def saved(tmp_path):
    checkpointer(tmp_path, **SGD).save("model_0000003")
    return tmp_path


MISFITS = {
    "a parameter of another shape": (
        {"sizes": (4, 2), **SGD},
        r"lacks 2 of the model's 4 .*first 1",
    ),
    "a layer more": (
        {"sizes": (4, 3, 2), **SGD},
        r"lacks 2 of the model's 6 parameters.*first 2\.",
    ),
    "a layer less": (
        {"sizes": (4,), **SGD},
        r"torch says of its optimizer: ValueError: loaded sta",
    ),
    "other groups": (
        {"groups": 2, **SGD},
        r"torch says of its optimizer: ValueError: loaded state",
    ),
    "another optimizer": (
        {"kind": torch.optim.Adam, "lr": 0.1},
        r"torch says of its optimizer: KeyError|Its optimizer has no betas, eps, as Adam needs",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_another_model_or_optimizer(saved, misfit):
    kwargs, message = MISFITS[misfit]
    with pytest.raises(UserError, match=message) as e:
        resume(saved, **kwargs)
    assert "model_0000003.pth is of another model or optimizer" in str(e.value)
    assert "a new run, with train.init_checkpoint=" in str(e.value)


def test_the_state_of_adam_is_none_of_sgd(tmp_path):
    """torch takes it, and fails in the first step."""
    checkpointer(tmp_path, torch.optim.Adam).save("model_0000003")
    with pytest.raises(UserError, match=r"Its optimizer has no dampening, momentum, as SGD needs$"):
        resume(tmp_path, **SGD)


def test_weights_for_a_new_run_need_not_fit(saved):
    found = checkpointer(saved / "new", sizes=(4, 2), **SGD)
    found.resume_or_load(str(saved / "model_0000003.pth"), resume=True)
    assert found.unmatched() == {"1.weight", "1.bias"}


def test_what_the_run_keeps_is_said(saved, log):
    resume(saved, **SGD)
    assert "keeps" not in log()
    found = checkpointer(saved, lr=0.5, momentum=0.9, weight_decay=0.01)
    found.resume_or_load("", resume=True)
    assert "it began with: lr is 0.1, and not 0.5; weight_decay is 0, and not 0.01" in log()
    assert found.checkpointables["optimizer"].param_groups[0]["lr"] == 0.1


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    opts = [*OPTS, "train.max_iter=2", f"train.output_dir={folder}"]
    main(make_args(BASELINE, opts=opts))
    return folder


def test_fewer_iterations_than_the_run_has(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = (folder / "metrics.json").read_bytes(), load_checkpoint(folder)["trainer"]["iteration"]
    opts = [*OPTS, "train.max_iter=1", f"train.output_dir={folder}"]
    with pytest.raises(
        UserError, match=r"^train\.max_iter=1: the run that is resumed has 2 iterat"
    ):
        main(make_args(BASELINE, opts=opts, resume=True))
    after = (folder / "metrics.json").read_bytes(), load_checkpoint(folder)["trainer"]["iteration"]
    assert after == before


def test_a_training_of_another_model(finished, tmp_path, log):
    folder = shutil.copytree(finished, tmp_path / "run")
    opts = [*OPTS, f"train.output_dir={folder}", "optimizer.lr=0.5"]
    with pytest.raises(UserError, match=r"is of another model .*parameters.*first head\."):
        main(make_args(BASELINE, opts=[*opts, "model.head.conv_dims=[24]"], resume=True))
    main(make_args(BASELINE, opts=opts, resume=True))
    assert "lr is 0.003, and not 0.5" in log()
