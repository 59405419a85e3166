"""`BalancedDefaultTrainer`: a run that is broken off ends with the numbers of one that was not."""

import os
import signal

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader

from iou_balanced.engine import BalancedDefaultTrainer, UserError

from .runs import differing, records
from .yaml_photos import train


def run(config, folder, stops=()):
    torch.manual_seed(1)
    np.random.seed(2)  # what draws a seed where SEED has none
    config.OUTPUT_DIR = str(folder)
    folder.mkdir()
    for stop in stops:
        train(config, stop=stop, resume=True)
        np.random.seed(7)
    train(config, resume=True)
    return folder


CASES = {
    "random crops and colors, workers": ([], [3]),
    "a seed, micro-batches": (["SEED", 4, "SOLVER.ACCUMULATION_STEPS", 2], [3]),
    "PreciseBN": (["TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2], [3]),
    "repeat factors": (
        [
            *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
            *("DATALOADER.REPEAT_THRESHOLD", 0.9, "DATALOADER.NUM_WORKERS", 0),
        ],
        [2, 4],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_to_the_last_bit(yaml_config, tmp_path, case):
    opts, stops = CASES[case]
    yaml_config.merge_from_list(["DATALOADER.NUM_WORKERS", 2, "DATASETS.TEST", (), *opts])
    yaml_config.merge_from_list(["SOLVER.MAX_ITER", 5, "TEST.EVAL_PERIOD", 2])
    whole = run(yaml_config, tmp_path / "whole")
    broken = run(yaml_config, tmp_path / "broken", stops)
    assert differing(whole, broken) == []
    assert records(whole) == records(broken)


class OwnLoader(BalancedDefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg)


def test_a_loader_of_ones_own_cannot_go_on_and_the_log_says_so(yaml_config, log):
    yaml_config.MODEL.CLASS_BALANCE.NAME, yaml_config.DATASETS.TEST = "", ()
    trainer = OwnLoader(yaml_config)
    trainer.start_iter = trainer.max_iter
    trainer.train()
    assert "starts at the beginning of its data" in log()


def test_a_signal_writes_a_checkpoint(yaml_config, tmp_path):
    yaml_config.merge_from_list(["SOLVER.CHECKPOINT_PERIOD", 100, "DATASETS.TEST", ()])
    trainer = BalancedDefaultTrainer(yaml_config)
    step = trainer._trainer.run_step
    trainer._trainer.run_step = lambda: (step(), os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(SystemExit) as e:
        trainer.train()
    assert e.value.code == 75
    assert (tmp_path / "model_0000000.pth").exists()
    resumed = BalancedDefaultTrainer(yaml_config)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 1


def test_another_run_in_the_folder_is_kept(yaml_config, tmp_path):
    """Its files would be mixed with the new run's, and the newest of both be resumed."""
    yaml_config.merge_from_list(["SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()])
    train(yaml_config)
    before = {p: p.read_bytes() for p in tmp_path.glob("*.pth")} | {0: metrics(tmp_path)}
    trainer = BalancedDefaultTrainer(yaml_config)
    trainer.resume_or_load(resume=False)
    with pytest.raises(UserError, match=r"holds a run \(.*model_final\.pth\): resume_or_load\(res"):
        trainer.train()
    assert {p: p.read_bytes() for p in tmp_path.glob("*.pth")} | {0: metrics(tmp_path)} == before
    yaml_config.SOLVER.MAX_ITER = 3
    train(yaml_config, resume=True)
    yaml_config.SOLVER.MAX_ITER = 2
    trainer = BalancedDefaultTrainer(yaml_config)
    trainer.resume_or_load(resume=True)
    with pytest.raises(UserError, match=r"^SOLVER\.MAX_ITER=2: the run that is resumed has 3 iter"):
        trainer.train()


def metrics(folder):
    return (folder / "metrics.json").read_bytes()
