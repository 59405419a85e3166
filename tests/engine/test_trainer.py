import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from iou_balanced.engine import Trainer


class Model(nn.Module):
    """One weight; the loss is its distance to the target in the data."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)
        nn.init.ones_(self.layer.weight)

    def forward(self, data):
        x = torch.stack([d["x"] for d in data])
        out = self.layer(x)
        self.dtype = out.dtype
        return {"loss_a": out.float().sum(), "loss_b": out.float().square().sum()}


def run_step(data, **kwargs):
    model = Model()
    trainer = Trainer(model, [data], torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)
    trainer.iter = 0
    with EventStorage() as trainer.storage:
        trainer.run_step()
    return trainer


def sample(value, name="a.png"):
    return {"x": torch.full((4,), value), "file_name": name}


def test_a_plain_step():
    # out = 4; d(loss_a + loss_b)/dw = (1 + 2 * 4) * x = 9; w = 1 - 0.1 * 9 = 0.1.
    trainer = run_step([sample(1.0)])
    assert torch.allclose(trainer.model.layer.weight, torch.full((1, 4), 0.1))
    assert trainer.storage.latest()["total_loss"][0] == 4 + 16


def test_clipping_bounds_the_gradient():
    # The gradient is (9, 9, 9, 9), of norm 18; clipped to norm 2 it is 1 in each entry.
    trainer = run_step([sample(1.0)], clip_max_norm=2.0)
    assert torch.allclose(trainer.model.layer.weight, torch.full((1, 4), 0.9))
    assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(18)


@pytest.mark.parametrize("amp_dtype", ["auto", "bfloat16"])
def test_bfloat16_on_a_cpu(amp_dtype):
    trainer = run_step([sample(1.0)], amp_dtype=amp_dtype)
    assert trainer.model.dtype is torch.bfloat16
    assert trainer.model.layer.weight.dtype is torch.float32
    assert torch.allclose(trainer.model.layer.weight, torch.full((1, 4), 0.1), atol=0.01)


def test_an_unknown_amp_dtype_is_an_error():
    with pytest.raises(ValueError, match=r"train\.amp\.dtype .* but got 'float8'"):
        run_step([sample(1.0)], amp_dtype="float8")


def test_a_loss_that_is_not_finite_stops_before_the_step():
    model = Model()
    trainer = Trainer(
        model,
        [[sample(1.0, "good.png"), sample(float("inf"), "bad.png")]],
        torch.optim.SGD(model.parameters(), lr=0.1),
    )
    trainer.iter = 7
    with (
        EventStorage() as trainer.storage,
        pytest.raises(
            FloatingPointError, match=r"Iteration 7: loss_a is inf and loss_b is inf.*bad\.png"
        ),
    ):
        trainer.run_step()
    assert torch.equal(model.layer.weight, torch.ones(1, 4))


def test_the_scaler_is_kept_in_the_checkpoint():
    assert "grad_scaler" not in run_step([sample(1.0)]).state_dict()
    trainer = run_step([sample(1.0)], amp_dtype="float16", clip_max_norm=2.0)
    # The first scale overflows: the step is skipped, which is no error, and the scale halved.
    assert trainer.grad_scaler.get_scale() == 2**15
    assert torch.equal(trainer.model.layer.weight, torch.ones(1, 4))
    state = trainer.state_dict()
    state["grad_scaler"]["scale"] = 8.0
    trainer.load_state_dict(state)
    assert trainer.grad_scaler.get_scale() == 8.0
    del state["grad_scaler"]  # a checkpoint of a run without AMP
    trainer.load_state_dict(state)


def test_a_gradient_that_is_not_finite_stops_too():
    model = Model()
    nn.init.zeros_(model.layer.weight)
    model.forward = lambda data: {"loss": model.layer.weight.abs().sqrt().sum()}  # slope inf at 0
    trainer = Trainer(
        model, [[sample(1.0)]], torch.optim.SGD(model.parameters(), lr=0.1), clip_max_norm=1.0
    )
    trainer.iter = 0
    with (
        EventStorage() as trainer.storage,
        pytest.raises(FloatingPointError, match="the norm of the gradient is nan"),
    ):
        trainer.run_step()
