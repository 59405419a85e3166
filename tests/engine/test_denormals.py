"""Numbers below the smallest normal float32."""

import pytest
import torch

from iou_balanced.engine import denormals, train
from iou_balanced.engine.denormals import are_flushed, flushed_denormals

from .helpers import make_args


def test_they_are_flushed_in_the_block_only():
    can = torch.set_flush_denormal(True)  # x86-64 and newer ARM
    torch.set_flush_denormal(False)
    tiny = torch.tensor(1e-39)
    assert (tiny * 1).item() > 0 and not are_flushed()
    with flushed_denormals("cpu"):
        assert ((tiny * 1).item() == 0) is can and are_flushed() is can
        with flushed_denormals("cpu"):
            pass
        assert are_flushed() is can  # of the outer block
    assert (tiny * 1).item() > 0
    with pytest.raises(KeyError), flushed_denormals("cpu"):
        raise KeyError
    assert not are_flushed()


def test_a_model_on_a_gpu_changes_nothing_on_the_cpu():
    with flushed_denormals("cuda:0"):
        assert not are_flushed()


def test_where_the_processor_cannot_nothing_changes(monkeypatch):
    monkeypatch.setattr(denormals.torch, "set_flush_denormal", lambda on: False)
    with flushed_denormals("cpu"):
        assert not are_flushed()


@pytest.mark.parametrize("eval_only", [False, True])
def test_a_training_and_an_evaluation_flush_them(monkeypatch, tmp_path, eval_only):
    seen = []
    monkeypatch.setattr(train, "do_train", lambda args, cfg: seen.append(are_flushed()))
    monkeypatch.setattr(train, "_evaluate", lambda args, cfg: seen.append(are_flushed()) or {})
    monkeypatch.setattr(train, "write_report", lambda cfg: None)
    args = make_args(opts=[f"train.output_dir={tmp_path}"])
    args.eval_only = eval_only
    train.main(args)
    assert seen == [torch.set_flush_denormal(False)] and not are_flushed()
