"""The fused core in what a training does around it, and the memory that it takes."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from iou_balanced.losses import SigmoidFocalLoss, sigmoid_focal_loss
from iou_balanced.losses.fused import chunks, compiled, eager, positives, rows

K = 20
LABELS = torch.tensor([[0, K, -1, 7, K, 3], [K, 19, K, -1, 2, K]])
BACKENDS = pytest.mark.parametrize("backend", ["eager", "compile"])


class Model(nn.Module):
    """A network with its loss in it, as Detectron2's are."""

    def __init__(self, backend="eager", checkpointing=False):
        super().__init__()
        self.layer, self.loss = nn.Linear(4, K), SigmoidFocalLoss(backend=backend)
        self.checkpointing = checkpointing

    def forward(self, x, labels):
        if self.checkpointing:
            return checkpoint(lambda y: self.loss(self.layer(y), labels), x, use_reentrant=False)
        return self.loss(self.layer(x), labels)


@pytest.fixture(autouse=True)
def graphs_run_as_they_are(monkeypatch):
    monkeypatch.setattr(compiled, "COMPILER", "eager")
    monkeypatch.setattr(compiled, "_functions", {})


def gradient_of(model, called=None, times=1):
    torch.manual_seed(1)
    nn.init.normal_(model.layer.weight)
    nn.init.zeros_(model.layer.bias)
    x = torch.randn(2, 6, 4, requires_grad=True)
    for _ in range(times):
        (model if called is None else called)(x, LABELS).backward()
    return model.layer.weight.grad


@BACKENDS
def test_checkpointing_and_accumulation(backend):
    expected = gradient_of(Model())
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(gradient_of(Model(backend, checkpointing=True)), expected)
    torch.testing.assert_close(gradient_of(Model(backend), times=3), 3 * expected)


def test_torch_compile_of_the_model_around_it():
    # The loss is left out of the model's graph: its own is another one.
    model = Model()
    compiled_model = torch.compile(model, backend="eager")
    torch.testing.assert_close(gradient_of(model, compiled_model), gradient_of(Model()))


def test_distributed_data_parallel(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = Model()
        grad = gradient_of(model, DistributedDataParallel(model))
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(grad, gradient_of(Model()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("num_positives", [5, None])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_labels_that_are_not_looked_at(dtype, reduction, num_positives, monkeypatch):
    """As on a GPU, which is not waited for: the same numbers as on a CPU."""
    scores = 3 * torch.randn(2, 6, K, dtype=dtype)
    scores[LABELS < 0] = torch.inf  # whatever ignored rows have
    weight = torch.rand(2, K) + 0.5
    results = []
    for looks in (True, False):
        if not looks:
            for module in (positives, rows, eager):
                monkeypatch.setattr(module, "may_look_at", lambda x: False)
            assert positives.own_places(LABELS, K) is positives.ignored_places(LABELS) is None
        x = scores.clone().requires_grad_()
        levels = [x[:, :2], x[:, 2:]]
        settings = dict(reduction=reduction, num_positives=num_positives)
        loss = sigmoid_focal_loss(levels, LABELS, class_weight=weight, **settings)
        (grad,) = torch.autograd.grad(loss.sum(), x)
        results.append((loss.detach(), grad))
        assert loss.isfinite().all() and (grad[LABELS < 0] == 0).all()
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_is_the_gradient(dtype, monkeypatch):
    """Bytes beyond what the arguments hold, over forward and backward: 1.05 times the logits."""
    monkeypatch.setattr(chunks, "_CHUNK", {"cpu": 1 << 11})
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 1 << 6)
    labels = torch.randint(-1, 81, (2, 6000))
    labels[torch.rand(2, 6000) < 0.98] = 80
    logits = torch.randn(2, 6000, 80, dtype=dtype, requires_grad=True)
    sigmoid_focal_loss(logits, labels).backward()
    logits.grad = None
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        sigmoid_focal_loss(logits, labels, class_weight=torch.ones(2, 80)).backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    size = logits.numel() * logits.element_size()
    # In half precision the numbers that a row has, in float32, are twice as large beside it.
    assert 1 <= peak / size <= (1.05 if dtype == torch.float32 else 1.1)
