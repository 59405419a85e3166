"""Gradient accumulation: micro-batches give the gradient of the whole batch."""

import contextlib
from itertools import chain

import pytest
import torch
from detectron2.config import instantiate
from detectron2.utils.events import EventStorage
from torch import nn

from iou_balanced import balance
from iou_balanced.engine import Trainer, UserError, main
from iou_balanced.engine.train import check_config
from iou_balanced.losses import BalanceOriented
from iou_balanced.modeling import LossNormalizer

from ..modeling.centernet.test_centernet import small_centernet
from ..modeling.detector_mixin import make_input, small_retinanet, without_boxes
from ..modeling.foveabox.foveabox_models import small_foveabox
from ..modeling.ssd.ssd_models import small_ssd
from ..modeling.test_fcos import plain as plain_fcos
from .helpers import load_checkpoint, make_args, tiny_config
from .test_trainer import Model, sample


def plain_retinanet():
    return balance(small_retinanet(), eta=None, lam=None)


def batches():
    """Two of four images, with many positives, few and none: two objects share a centre."""
    torch.manual_seed(5)
    few, shared = [[40, 30, 56, 48]], [[20, 20, 60, 60], [30, 30, 50, 50]]
    first = [make_input(), make_input(few, [1]), without_boxes(), make_input(shared, [2, 2])]
    return [first, [make_input(few, [0]), without_boxes(), without_boxes(), make_input()]]


def train(config, steps, data, wrap=lambda model: model, **kwargs):
    """One optimizer step on each batch of `data`, in `steps` micro-batches.

    Returns:
        The gradients and logged losses of each step, and the divisors' averages.
    """
    torch.manual_seed(7)
    model = instantiate(config())
    size = len(data[0]) // steps
    parts = [x[i : i + size] for x in data for i in range(0, len(x), size)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    trainer = Trainer(wrap(model), parts, optimizer, accumulation_steps=steps, **kwargs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # its statistics would be those of a micro-batch
        if isinstance(module, BalanceOriented):
            module.set_iteration(50, 100)
    gradients, losses = [], []
    with EventStorage() as trainer.storage:
        for trainer.iter in range(len(data)):
            trainer.run_step()
            gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
            latest = trainer.storage.latest().items()
            losses.append({k: v for k, (v, _) in latest if "loss" in k})
    averages = [x.average for x in model.modules() if isinstance(x, LossNormalizer)]
    return gradients, losses, averages


def assert_same_training(actual, expected, tolerance):
    for a, b in zip(actual[0], expected[0], strict=True):
        for x, y in zip(a, b, strict=True):
            assert (x - y).norm() <= tolerance * y.norm() + 1e-9
    for a, b in zip(actual[1], expected[1], strict=True):
        assert a == pytest.approx(b, rel=tolerance)
    assert actual[2] == pytest.approx(expected[2], rel=1e-6)


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (small_centernet, 2),
        (small_centernet, 4),
        (plain_retinanet, 2),
        (plain_fcos, 2),
        (small_ssd, 2),
        (small_ssd, 4),
        (small_foveabox, 2),
    ],
)
def test_gradient_losses_and_normalisers_are_those_of_the_whole_batch(config, steps):
    data = batches()
    expected = train(config, 1, data)
    assert all(x.norm() > 0 for x in expected[0][0])
    assert_same_training(train(config, steps, data), expected, tolerance=1e-3)


def test_bfloat16():
    data = batches()[:1]
    parts = [train(small_centernet, steps, data, amp_dtype="bfloat16") for steps in (1, 2)]
    assert_same_training(parts[1], parts[0], tolerance=0.03)


@pytest.mark.parametrize("config", [small_centernet, plain_retinanet, small_foveabox])
def test_counting_leaves_the_model_as_it_was(config):
    model = instantiate(config()).train()
    model.backbone.bottom_up.stem.eval()  # the user's own choice
    modes = [x.training for x in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.count_positives([make_input(), make_input(size=(64, 150))])
    assert modes == [x.training for x in model.modules()]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(x.average is None for x in model.modules() if isinstance(x, LossNormalizer))


def test_a_normaliser_of_ones_own_that_knows_no_parts():
    def config():
        return {**small_centernet(), "loss_normalizer": nn.Flatten()}

    with pytest.raises(ValueError, match=r"`cls_normalizer` .*`whole_batch`.* but got Flatten"):
        train(config, 2, batches())


def run_step(values, steps, *, model=None, **kwargs):
    """A step of the one-weight model of x = values, an image each; lr is 0.1."""
    model = model or Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = [[sample(v, f"{i}.png")] for i, v in enumerate(values)]
    trainer = Trainer(model, data, optimizer, accumulation_steps=steps, **kwargs)
    trainer.iter = 0
    if trainer.grad_scaler is not None:
        trainer.grad_scaler.load_state_dict({**trainer.grad_scaler.state_dict(), "scale": 8.0})
    with EventStorage() as trainer.storage:
        trainer.run_step()
    return trainer


# out = 4 and 12, losses 4 + 16 and 12 + 144; d/dw = (1 + 2 * 4) * 1 = 9 and (1 + 2 * 12) * 3 = 75.
# The means are 88 and 42, of norm 84, and w = 1 - 0.1 * 42 = -3.2.


@pytest.mark.parametrize("amp_dtype", [None, "bfloat16", "float16"])
def test_losses_of_other_models_are_averaged(amp_dtype):
    trainer = run_step([1.0, 3.0], 2, amp_dtype=amp_dtype)
    assert torch.allclose(trainer.model.layer.weight, torch.full((1, 4), -3.2), atol=0.02)
    latest = trainer.storage.latest()
    assert latest["total_loss"][0] == 88
    assert (latest["loss_a"][0], latest["loss_b"][0]) == (8, 80)
    if amp_dtype == "float16":  # one update of the scale
        assert trainer.grad_scaler.state_dict()["_growth_tracker"] == 1


def test_the_sum_is_clipped():
    # To norm 2: 1 in each entry. The norm is that of the mean.
    trainer = run_step([1.0, 3.0], 2, clip_max_norm=2.0)
    assert torch.allclose(trainer.model.layer.weight, torch.full((1, 4), 0.9))
    assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(84)


def test_one_step_takes_its_micro_batches_and_no_more():
    trainer = run_step([1.0, 3.0, 7.0], 2)
    assert next(trainer._data_loader_iter)[0]["file_name"] == "2.png"


def test_a_loss_that_is_not_finite_names_the_images_of_its_micro_batch():
    model = Model()
    with pytest.raises(FloatingPointError, match=r"loss_a is inf .*process: 1\.png\. "):
        run_step([1.0, float("inf"), 2.0], 3, model=model)
    assert torch.equal(model.layer.weight, torch.ones(1, 4))


def test_processes_exchange_gradients_once_and_hooks_run_once():
    model, calls = Model(), []

    @contextlib.contextmanager
    def no_sync():
        calls.append("alone")
        yield
        calls.append("done")

    model.no_sync = no_sync
    model.register_forward_hook(lambda *_: calls.append("forward"))
    model.layer.weight.register_hook(lambda _: calls.append("backward"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = [[sample(1.0)] for _ in range(3)]
    trainer = Trainer(model, data, optimizer, accumulation_steps=3)
    trainer.iter, trainer.after_backward = 0, lambda: calls.append("hooks")
    with EventStorage() as trainer.storage:
        trainer.run_step()
    alone = ["alone", "forward", "backward", "done"]
    assert calls == [*alone, *alone, "forward", "backward", "hooks"]


@pytest.mark.parametrize("steps", [0, -2, 1.5, True, None])
def test_bad_number_of_steps(steps):
    with pytest.raises(ValueError, match=rf"`accumulation_steps` to be .* but got {steps}"):
        run_step([1.0], steps)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("3", r"total_batch_size=4 cannot be shared by 3 micro-batches .* a multiple of 3"),
        ("8", r"total_batch_size=4 cannot be shared by 8 micro-batches .* a multiple of 8"),
        ("0", r"train\.accumulation_steps=0: give a whole number from 1 on"),
        ("2.0", r"train\.accumulation_steps=2\.0: give a whole number"),
        ("null", r"train\.accumulation_steps=null: give a whole number"),
    ],
)
def test_bad_config(steps, message):
    with pytest.raises(UserError, match=message):
        check_config(tiny_config(f"train.accumulation_steps={steps}"))


def test_processes_and_micro_batches_share_the_batch(monkeypatch):
    cfg = tiny_config("train.accumulation_steps=4")
    check_config(cfg)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    message = "by 2 processes with 4 micro-batches each .* multiple of 8"
    with pytest.raises(UserError, match=message):
        check_config(cfg)


def test_a_config_without_a_batch_size():
    cfg = tiny_config("train.accumulation_steps=2")
    del cfg.dataloader.train.total_batch_size
    with pytest.raises(UserError, match=r"divides dataloader\.train\.total_batch_size, which"):
        check_config(cfg)


class Interrupted(KeyboardInterrupt):
    """No failure, whose cause would be looked for."""


def test_a_resumed_run_goes_on_with_the_same_images(tmp_path, monkeypatch):
    """A step has the images that it has without accumulation; so the weights go on as well."""
    seen, stop_at = {}, None
    original = Trainer.run_step

    def run_step(trainer):
        if trainer.iter == stop_at:
            raise Interrupted
        backward = trainer._backward

        def record(data, *args):
            seen[run].setdefault(trainer.iter, []).append([x["image_id"] for x in data])
            return backward(data, *args)

        trainer._backward = record
        original(trainer)
        trainer._backward = backward

    monkeypatch.setattr(Trainer, "run_step", run_step)

    def start(name, steps, **kwargs):
        seen.setdefault(name, {})
        opts = [
            f"train.output_dir={tmp_path / name}",
            f"train.accumulation_steps={steps}",
            "train.seed=3",
            "train.checkpointer.period=2",
            "train.max_iter=5",
            "dataloader.train.num_workers=0",
            "dataloader.train.mapper.augmentations=[]",
            "datasets.test.num_images=1",
            "optimizer._target_=torch.optim.SGD",
            "optimizer.lr=0.01",
        ]
        main(make_args(opts=opts, **kwargs))

    for run, steps in [("whole", 1), ("accumulated", 2)]:
        start(run, steps)
    run, stop_at = "resumed", 3
    with pytest.raises(Interrupted):
        start(run, 2)
    seen[run].pop(2)  # after the last checkpoint
    stop_at = None
    start(run, 2, resume=True)

    assert [len(x) for x in seen["accumulated"][0]] == [2, 2]
    assert seen["resumed"] == seen["accumulated"]
    joined = {i: [[*chain(*x)]] for i, x in seen["accumulated"].items()}
    assert joined == seen["whole"]
    accumulated, resumed = (load_checkpoint(tmp_path / x) for x in ("accumulated", "resumed"))
    for name, value in accumulated["model"].items():
        torch.testing.assert_close(resumed["model"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    states = [x["trainer"]["hooks"]["ResumeStateHook"] for x in (accumulated, resumed)]
    assert states[0]["loss_normalizer"] == pytest.approx(states[1]["loss_normalizer"])
