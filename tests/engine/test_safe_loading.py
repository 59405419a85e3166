"""Weight files, built by hand, from which nothing may run unless the user says so."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from iou_balanced.engine import UserError, main
from iou_balanced.engine.checkpoint import Checkpointer, load_trained
from iou_balanced.engine.safe_loading import UNSAFE_VARIABLE, load_tensors
from iou_balanced.engine.yaml_class_names import YamlCheckpointer

from .helpers import make_args

WAY_OUT = r"Nothing of it was run\. If you trust who made it: train\.unsafe_load=True .* " + (
    f"{UNSAFE_VARIABLE}=1 in the environment"
)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return Path.touch, (Path(self.marker),)


def model():
    return nn.Linear(2, 1, bias=False)


WEIGHT = np.array([[3.0, 4.0]], np.float32)


def dump_pickle(path, content):
    path.write_bytes(pickle.dumps(content))


def evil_files(folder):
    marker = folder / "ran"
    content = {"model": {"weight": WEIGHT}, "__author__": "me", "x": Evil(marker)}
    dump_pickle(folder / "evil.pkl", content)
    tensors = {"model": {"weight": torch.tensor(WEIGHT)}, "x": Evil(marker)}
    torch.save(tensors, folder / "evil.pth")
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model_state": tensors}, folder / "evil.pyth")
    return marker


NAMES = ["evil.pkl", "evil.pth", "old.pth", "evil.pyth"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [Checkpointer, YamlCheckpointer])
def test_nothing_runs(tmp_path, name, kind):
    marker = evil_files(tmp_path)
    with pytest.raises(UserError, match=rf"^{tmp_path / name} holds .*, which loading.*{WAY_OUT}"):
        kind(model()).load(str(tmp_path / name), checkpointables=[])
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES[:3])
def test_it_is_loaded_where_the_user_says_so(tmp_path, name, monkeypatch, caplog):
    marker = evil_files(tmp_path)
    loaded = model()
    checkpointer = Checkpointer(loaded)
    checkpointer.unsafe = True
    checkpointer.load(str(tmp_path / name), checkpointables=[])
    assert marker.exists() and loaded.weight.tolist() == WEIGHT.tolist()
    assert "is loaded with whatever is in it, as you asked for" in caplog.text
    marker.unlink()
    monkeypatch.setenv(UNSAFE_VARIABLE, "1")
    Checkpointer(model()).load(str(tmp_path / name), checkpointables=[])
    assert marker.exists()


def test_of_predictions_too(tmp_path):
    marker = evil_files(tmp_path)
    for name in NAMES:
        with pytest.raises(UserError, match=WAY_OUT):
            load_trained(model(), str(tmp_path / name), key="--weights ")
    assert not marker.exists()


@pytest.mark.parametrize("eval_only", [False, True])
@pytest.mark.parametrize("name", ["evil.pkl", "evil.pth"])
def test_of_trainings_and_evaluations(tmp_path, name, eval_only):
    marker = evil_files(tmp_path)
    weights = f"train.init_checkpoint={tmp_path / name}"
    args = make_args(opts=[weights, f"train.output_dir={tmp_path}/out"], eval_only=eval_only)
    with pytest.raises(UserError, match=WAY_OUT):
        main(args)
    assert not marker.exists()


def zoo_files(folder):
    """As the model zoo has them."""
    names = {"model": {"weight": WEIGHT}, "__author__": "Detectron2"}
    dump_pickle(folder / "detectron2.pkl", names)
    dump_pickle(folder / "heuristics.pkl", {**names, "matching_heuristics": True})
    torch.save({"model": {"weight": torch.tensor(WEIGHT)}}, folder / "a.pth")
    torch.save({"weight": torch.tensor(WEIGHT)}, folder / "bare.pth")
    torch.save({"model_state": {"weight": torch.tensor(WEIGHT)}}, folder / "pycls.pyth")
    state = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.AdamW(state.parameters())
    state(torch.ones(2)).sum().backward()
    optimizer.step()
    state.weight.data.copy_(torch.tensor(WEIGHT))
    everything = {"model": state.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 5}
    torch.save({**everything, "class_names": ["a", "b"]}, folder / "training.pth")
    return ["detectron2.pkl", "heuristics.pkl", "a.pth", "bare.pth", "pycls.pyth", "training.pth"]


def test_files_of_the_model_zoo(tmp_path):
    for name in zoo_files(tmp_path):
        loaded = model()
        Checkpointer(loaded).load(str(tmp_path / name), checkpointables=[])
        assert loaded.weight.tolist() == WEIGHT.tolist(), name


@pytest.mark.parametrize("blobs", [False, True])
def test_files_of_caffe2(tmp_path, blobs):
    """Their names are turned into Detectron2's, and momenta left out."""
    content = {"conv1_w": np.ones((2, 3), np.float32), "conv1_w_momentum": np.zeros((2, 3))}
    dump_pickle(tmp_path / "c.pkl", {"blobs": content, "cfg": "text"} if blobs else content)
    loaded = nn.ModuleDict({"stem": nn.ModuleDict({"conv1": nn.Linear(3, 2, bias=False)})})
    Checkpointer(loaded).load(str(tmp_path / "c.pkl"), checkpointables=[])
    assert loaded["stem"]["conv1"].weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("content", [5, [1], "text"])
def test_a_pickle_of_no_weights(tmp_path, content):
    dump_pickle(tmp_path / "a.pkl", content)
    with pytest.raises(
        UserError, match=r"a\.pkl holds a \w+: weights are a dict of arrays by name"
    ):
        Checkpointer(model()).load(str(tmp_path / "a.pkl"), checkpointables=[])


@pytest.mark.parametrize("name", ["a.pkl", "a.pth", "a.pyth"])
@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x04"])
def test_what_is_no_such_file_at_all(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"^--weights {tmp_path / name} cannot be had|holds") as e:
        load_trained(model(), str(tmp_path / name), key="--weights ")
    assert "\n" not in str(e.value)


def test_tensors_of_any_kind(tmp_path):
    content = {"a": torch.ones(2, dtype=torch.bfloat16), "b": [1, "x", None], "c": torch.Size([2])}
    torch.save(content, tmp_path / "a.pth")
    assert str(load_tensors(str(tmp_path / "a.pth"))) == str(content)
