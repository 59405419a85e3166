"""SOLVER.ACCUMULATION_STEPS of a yaml config, and the state of its trainer after a resume."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import build_detection_train_loader
from detectron2.engine import SimpleTrainer
from detectron2.utils.env import seed_all_rng
from torch import nn

from iou_balanced.engine import BalancedDefaultTrainer, Trainer, UserError
from iou_balanced.modeling import (
    add_centernet_config,
    add_class_balance_config,
    add_iou_balanced_config,
)

from .yaml_photos import train


@pytest.fixture
def config(yaml_config):
    yaml_config.DATASETS.TEST = ()
    return yaml_config


def step(cfg, steps):
    """How one SGD iteration of all four photos changes the weights; the logged losses."""
    cfg.SOLVER.ACCUMULATION_STEPS, cfg.SOLVER.IMS_PER_BATCH = steps, 4
    cfg.OUTPUT_DIR = f"{cfg.OUTPUT_DIR}/{steps}"
    seed_all_rng(3)
    trainer = BalancedDefaultTrainer(cfg)
    assert trainer.cfg.SOLVER.IMS_PER_BATCH == 4
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # its statistics would be those of a micro-batch
    sizes = []
    trainer.model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    seed_all_rng(4)  # the same crops
    trainer.train()
    assert sizes == [4 // steps] * steps
    changes = {name: p.detach() - before[name] for name, p in trainer.model.named_parameters()}
    latest = trainer.storage.latest().items()
    return changes, {name: value for name, (value, _) in latest if "loss" in name}


@pytest.mark.parametrize("clip", [False, True])
def test_an_iteration_is_that_of_the_whole_batch(config, clip):
    config.SOLVER.OPTIMIZER = "SGD"
    config.SOLVER.BASE_LR, config.SOLVER.WARMUP_ITERS, config.SOLVER.MAX_ITER = 1.0, 0, 1
    config.SOLVER.WEIGHT_DECAY = config.SOLVER.WEIGHT_DECAY_NORM = 0.0
    config.SOLVER.CLIP_GRADIENTS.ENABLED = clip
    config.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"  # of each parameter
    config.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    # Eq. 4 and 7 keep the sums of a micro-batch.
    config.MODEL.IOU_BALANCED.CLS_ETA = config.MODEL.IOU_BALANCED.LOC_LAMBDA = 0.0
    config.MODEL.IOU_BALANCED.LOC_WEIGHT, config.MODEL.IOU_BALANCED.LOC_NORMALIZE = None, False
    (whole, losses), (accumulated, its_losses) = step(config, 1), step(config, 2)
    for name, change in whole.items():
        assert change.any(), name
        assert (accumulated[name] - change).norm() <= 1e-3 * change.norm() + 1e-7, name
    assert its_losses == pytest.approx(losses, rel=1e-5) and losses["total_loss"] > 0
    if clip:  # once, and the sum
        assert max(x.norm().item() for x in accumulated.values()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("steps", "kind"), [(1, SimpleTrainer), (2, Trainer)])
def test_a_resume_goes_on_with_the_optimizers_state(config, steps, kind):
    config.SOLVER.ACCUMULATION_STEPS = steps
    config.SOLVER.AMP.ENABLED = steps > 1  # Detectron2's own needs a GPU
    train(config, stop=2)
    trainer = BalancedDefaultTrainer(config)
    assert type(trainer._trainer) is kind
    assert steps == 1 or trainer._trainer.amp_dtype is torch.bfloat16
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    path = trainer.checkpointer.get_checkpoint_file()
    saved = torch.load(path, weights_only=False)["trainer"]["_trainer"]["optimizer"]
    ours = trainer.optimizer.state_dict()
    assert len(saved["state"]) == len(list(trainer.model.parameters()))
    for i, state in saved["state"].items():
        assert state["step"] == 2 and state["exp_avg"].any()
        assert all(torch.equal(ours["state"][i][name], value) for name, value in state.items())
    trainer, weights = train(config, resume=True)
    assert sorted(weights) == [2, 3]
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 4


def test_a_checkpoint_of_another_trainer(config, caplog):
    """Detectron2 v0.6 does not keep the optimizer's state."""
    trainer = BalancedDefaultTrainer(config)
    state = trainer.state_dict()
    del state["_trainer"]
    trainer.load_state_dict(state)
    assert "no state of the optimizer" in caplog.text


class OwnLoader(BalancedDefaultTrainer):
    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg)


@pytest.mark.parametrize("kind", [BalancedDefaultTrainer, OwnLoader])
def test_loaders_give_micro_batches(config, kind):
    config.SOLVER.ACCUMULATION_STEPS = 2
    config.INPUT.MIN_SIZE_TRAIN = (32,)
    trainer = kind(config)
    batches = trainer._trainer._data_loader_iter
    assert [len(next(batches)) for _ in range(3)] == [1, 1, 1]
    assert trainer.model.class_balance.class_counts == [6, 2, 1]


@pytest.mark.parametrize(
    ("steps", "processes", "message"),
    [
        (0, 1, r"SOLVER\.ACCUMULATION_STEPS=0: give a whole number from 1 on"),
        (2.0, 1, r"SOLVER\.ACCUMULATION_STEPS=2\.0: give a whole number"),
        (3, 1, r"IMS_PER_BATCH=2 cannot be shared by 3 micro-batches \(.*a multiple of 3"),
        (2, 2, r"by 2 processes with 2 micro-batches each \(SOLVER\.ACC.*a multiple of 4"),
    ],
)
def test_bad_config(config, monkeypatch, steps, processes, message):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: processes)
    config.SOLVER.ACCUMULATION_STEPS = steps
    with pytest.raises(UserError, match=message):
        BalancedDefaultTrainer(config)


def test_a_batch_scaled_to_the_number_of_processes(config):
    """Detectron2 scales it first: 8 for four of them are 2 for one."""
    config.SOLVER.REFERENCE_WORLD_SIZE, config.SOLVER.IMS_PER_BATCH = 4, 8
    config.SOLVER.ACCUMULATION_STEPS = 2
    trainer = BalancedDefaultTrainer(config)
    assert trainer.cfg.SOLVER.IMS_PER_BATCH == 2
    assert len(next(iter(trainer.data_loader))) == 1


@pytest.mark.parametrize(
    "add", [add_centernet_config, add_class_balance_config, add_iou_balanced_config]
)
def test_each_function_adds_the_key(add):
    cfg = get_cfg()
    add(cfg)
    assert cfg.SOLVER.ACCUMULATION_STEPS == 1
    cfg.SOLVER.ACCUMULATION_STEPS = 4
    add(cfg)
    assert cfg.SOLVER.ACCUMULATION_STEPS == 4
