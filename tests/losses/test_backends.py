"""Every backend of the fused core against a float64 reference, in value and gradient."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from iou_balanced.losses import (
    ClassWeights,
    iou_balanced_focal_loss,
    penalty_reduced_focal_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
)
from iou_balanced.losses.fused import backends, compiled, eager
from iou_balanced.losses.fused.core import split_scores
from iou_balanced.losses.fused.negatives import Negatives
from iou_balanced.losses.fused.rows import Rows
from iou_balanced.losses.fused.tables import Tables

K = 3
IN_INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
# In a process of its own, because Triton reads the variable when it is imported.
BACKENDS = ["triton"] if IN_INTERPRETER else ["eager", "compile"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)
SIZES = [(2, (7, 4)), (3, (9, 5)), (2, (20, 11))]


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch, request):
    """Dynamo's graph is run as it is, unless the test wants a real compiler."""
    if "real_compiler" not in request.node.name:
        monkeypatch.setattr(compiled, "COMPILER", "eager")
    monkeypatch.setattr(compiled, "_functions", {})
    monkeypatch.setattr(compiled, "_broken", None)
    monkeypatch.setattr(backends, "_told", set())
    monkeypatch.setattr(backends, "_elements_done", 0)
    monkeypatch.delenv(backends.VARIABLE, raising=False)


def make(num_images, sizes, dtype=torch.float32):
    labels = torch.randint(-1, K + 1, (num_images, sum(sizes)))
    labels[:, :3] = torch.tensor([0, K, -1])
    return [3 * torch.randn(num_images, s, K, dtype=dtype) for s in sizes], labels


def weights_of(name, num_images):
    table = torch.rand(num_images, K) + 0.5
    return {
        "none": None,
        "K": table[0],
        "NK": table,
        "kinds": ClassWeights(
            table[0], torch.rand(num_images, K), torch.rand(K), torch.rand(num_images, K + 1)
        ),
        "row": ClassWeights(row=torch.rand(K + 1)),
    }[name]


def reference(x, labels, class_weight, *, alpha=0.25, gamma=2.0, iou=None, quality=False):
    """Dense, by autograd, with one-hot targets; `x` (N, R, K) float64."""
    target = F.one_hot(labels.clamp(min=0), K + 1)[..., :K].bool() & (labels >= 0)[..., None]
    p = torch.sigmoid(x)
    if quality:
        y = torch.zeros_like(x)
        y[target] = iou.double()
        terms = (p - y).abs() ** gamma * F.binary_cross_entropy_with_logits(x, y, reduction="none")
    else:
        positive = alpha * (1 - p) ** gamma * -F.logsigmoid(x)
        terms = torch.where(target, positive, (1 - alpha) * p**gamma * -F.logsigmoid(-x))
    if isinstance(class_weight, torch.Tensor):
        class_weight = ClassWeights(*[class_weight] * 3)
    if class_weight is not None:
        own, other, background, row = (
            torch.ones(1, 1) if t is None else t.reshape(-1, t.shape[-1]) for t in class_weight
        )
        kind = torch.where(
            target,
            own[:, None],
            torch.where((labels == K)[..., None], background[:, None], other[:, None]),
        )
        row = row.expand(len(x), -1 if row.shape[1] > 1 else K + 1)
        terms = terms * kind * row.gather(1, labels.clamp(min=0))[..., None]
    if iou is not None and not quality:
        own = terms[target].detach()
        power = iou.double() ** 1.5
        factor = torch.ones_like(x)
        factor[target] = power * own.sum() / (power * own).sum()
        terms = terms * factor
    return (terms * (labels >= 0)[..., None]).sum()


def assert_equals_reference(backend, name, sizes, dtype=torch.float32, loss="iou", scale=3.0):
    levels, labels = make(*sizes, dtype)
    class_weight = weights_of(name, sizes[0])
    iou = torch.rand(int(((labels >= 0) & (labels < K)).sum()))
    x = torch.cat(levels, 1).double().requires_grad_()
    kwargs = {"quality": True, "iou": iou} if loss == "quality" else {}
    kwargs = {"iou": iou} if loss == "iou" else kwargs
    expected = reference(x, labels, class_weight, **kwargs)
    (scale * expected).backward()
    levels = [t.requires_grad_() for t in levels]
    function = {
        "plain": lambda *args, **kw: sigmoid_focal_loss(args[0], args[1], **kw),
        "iou": iou_balanced_focal_loss,
        "quality": quality_focal_loss,
    }[loss]
    value = function(levels, labels, iou, class_weight=class_weight, backend=backend)
    (scale * value).backward()
    grad = torch.cat([t.grad for t in levels], 1)
    rounding = {torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(dtype, 1e-5)
    torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad.double(), x.grad, rtol=rounding, atol=1e-6)


@every_backend
@pytest.mark.parametrize("name", ["none", "K", "NK", "kinds", "row"])
def test_equals_the_reference(backend, name, recwarn):
    for loss, sizes in zip(["plain", "iou", "quality"], SIZES, strict=True):
        if backend == "compile" and loss != "iou" and name != "none":
            continue  # the same compiled function, and tracing takes a second
        assert_equals_reference(backend, name, sizes, loss=loss)
    assert not [w for w in recwarn if "iou_balanced:" in str(w.message)]


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(backend, dtype):
    assert_equals_reference(backend, "kinds", SIZES[0], dtype)
    # 1e-8 is 0 in float16; with the loss scale in it, it is not.
    logits = torch.full((2, 4, K), -8.0, dtype=torch.float16, requires_grad=True)
    labels = torch.full((2, 4), K)
    (2.0**24 * sigmoid_focal_loss(logits, labels, backend=backend)).backward()
    x = logits.detach().double().requires_grad_()
    reference(x, labels, None).backward()
    torch.testing.assert_close(logits.grad.double() / 2**24, x.grad, rtol=2e-3, atol=0)


@every_backend
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0, "table"])
def test_kinds_of_negatives(backend, gamma, detached):
    table = torch.tensor([2.0, 0.5, 4.0])
    (x,), labels = make(2, (9,))
    labels = torch.where(labels >= 0, K, -1)
    x.requires_grad_()
    negatives = Negatives(table if gamma == "table" else gamma, 0.7, detached)
    _, (total,) = split_scores(Rows((x,), labels, Tables()), negatives, backend=backend)
    (2 * total).backward()
    y = x.detach().double().requires_grad_()
    p = torch.sigmoid(y)
    modulation = (p.detach() if detached else p) ** (table.double() if gamma == "table" else gamma)
    terms = 0.7 * modulation * F.softplus(y) * (labels >= 0)[..., None]
    (2 * terms.sum()).backward()
    torch.testing.assert_close(total.double(), terms.sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-5, atol=1e-7)


@every_backend
def test_a_second_backward_and_a_second_derivative(backend):
    (x,), labels = make(2, (9,))
    x.requires_grad_()
    loss = sigmoid_focal_loss(x, labels, backend=backend)
    (first,) = torch.autograd.grad(3 * loss, x, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(6 * loss, x, retain_graph=True)
    torch.testing.assert_close(second, 2 * kept)
    assert torch.equal(first, kept)  # which the second pass may not touch
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, x, create_graph=True)


@every_backend
def test_what_is_ignored_gets_no_gradient_and_nothing_to_do_is_0(backend):
    (x,), labels = make(2, (9,))
    x.requires_grad_()
    loss = sigmoid_focal_loss(x, torch.full_like(labels, -1), gamma=0.0, backend=backend)
    loss.backward()
    assert loss == 0 and (x.grad == 0).all()
    none = torch.zeros(0, 5, K, requires_grad=True)
    sigmoid_focal_loss(none, labels.new_zeros(0, 5), backend=backend).backward()
    assert none.grad.shape == none.shape


@pytest.mark.skipif(IN_INTERPRETER, reason="heat maps are not for Triton")
@every_backend
@pytest.mark.parametrize("weighted, beta", [(False, 4.0), (True, 4.0), (False, 0.0)])
def test_heat_maps(backend, weighted, beta):
    gt = torch.rand(2, K, 6, 5) ** 8
    gt[:, 1, 2, 3] = 1
    class_weight = torch.rand(2, K) if weighted else None
    x = torch.randn(gt.shape, requires_grad=True)
    settings = dict(class_weight=class_weight, beta=beta, backend=backend)
    loss = penalty_reduced_focal_loss(x, gt, **settings)
    (2 * loss).backward()
    y = x.detach().double().requires_grad_()
    p = torch.sigmoid(y)
    center = (1 - p) ** 2 * -F.logsigmoid(y)
    terms = torch.where(gt == 1, center, (1 - gt.double()) ** beta * p**2 * -F.logsigmoid(-y))
    if weighted:
        terms = terms * class_weight[:, :, None, None]
    (2 * terms.sum()).backward()
    torch.testing.assert_close(loss.double(), terms.sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(IN_INTERPRETER, reason="is the interpreter")
def test_triton_in_its_interpreter():
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout and "failed" not in done.stdout


if not IN_INTERPRETER:

    def test_the_real_compiler_and_30_sizes(recwarn):
        assert_equals_reference("compile", "none", (2, (7,)), loss="plain")
        for i in range(30):
            assert_equals_reference("compile", "none", (2 + i % 3, (5 + 3 * i,)), loss="plain")
        assert not [w for w in recwarn if "iou_balanced:" in str(w.message)]
        assert len(compiled._functions) == 1

    def test_30_sizes_are_compiled_once(monkeypatch):
        compilations = []

        def count(graph, inputs):
            compilations.append(graph)
            return graph.forward

        monkeypatch.setattr(compiled, "COMPILER", count)
        for i in range(30):
            sizes = (2 + i % 4, (40 + 7 * i, 9 + 2 * i, 3 + i))
            assert_equals_reference("compile", "NK", sizes)
        # One graph with value and slope.
        assert len(compilations) == 1

    def test_too_many_settings_are_left_to_eager(monkeypatch):
        monkeypatch.setattr(compiled, "MOST_FUNCTIONS", 1)
        assert_equals_reference("compile", "none", SIZES[0])
        with pytest.warns(UserWarning, match="more than 1 settings of losses"):
            assert_equals_reference("compile", "NK", SIZES[0])

    def test_a_failed_compilation_is_one_warning(monkeypatch):
        def fail(graph, inputs):
            raise OSError("no space left on the device")

        monkeypatch.setattr(compiled, "COMPILER", fail)
        with pytest.warns(UserWarning, match=r"torch\.compile failed .*no space left") as caught:
            assert_equals_reference("compile", "none", SIZES[0])
            assert_equals_reference("compile", "none", SIZES[0])
        assert len([w for w in caught if "torch.compile failed" in str(w.message)]) == 1

    def test_no_compiler_and_no_gpu_are_one_warning(monkeypatch):
        monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
        monkeypatch.delenv("CXX", raising=False)
        with pytest.warns(UserWarning, match=r'"compile" cannot be used: .*C\+\+ compiler'):
            assert_equals_reference("compile", "none", SIZES[0])
        with pytest.warns(UserWarning, match='"triton" cannot be used'):
            assert_equals_reference("triton", "none", SIZES[0])

    def test_the_compiler_is_the_one_of_the_environment(monkeypatch):
        """As torch has it: CXX where it is set, whatever others there are."""
        levels, labels = make(2, (9, 4))
        scores = Rows(tuple(levels), labels, Tables())
        monkeypatch.setattr(compiled.shutil, "which", lambda name: name if "own" in name else None)
        monkeypatch.setenv("CXX", "/opt/own-g++")
        assert compiled.why_not(scores, Negatives(2.0)) is None
        monkeypatch.setattr(compiled.shutil, "which", lambda name: name if name == "g++" else None)
        assert compiled.why_not(scores, Negatives(2.0)).endswith("and CXX=/opt/own-g++ is none")

    def test_the_environment_and_what_is_said(monkeypatch, caplog):
        caplog.set_level(logging.INFO)
        monkeypatch.setenv(backends.VARIABLE, "compile")
        assert_equals_reference(None, "none", SIZES[0])
        assert_equals_reference(None, "none", SIZES[0])
        assert [r.message for r in caplog.records if "backend" in r.message] == [
            'sigmoid losses on cpu: backend "compile"'
        ]
        monkeypatch.setenv(backends.VARIABLE, "fast")
        with pytest.raises(ValueError, match=r"IOU_BALANCED_BACKEND to be one of .* got 'fast'"):
            assert_equals_reference(None, "none", SIZES[0])
        with pytest.raises(ValueError, match=r"argument `backend` to be one of .* got 'cuda'"):
            assert_equals_reference("cuda", "none", SIZES[0])

    def test_a_short_run_does_not_compile_and_a_long_one_does(monkeypatch):
        levels, labels = make(2, (9, 4))
        scores = Rows(tuple(levels), labels, Tables())
        assert backends.choose(scores, Negatives(2.0), None) is eager
        monkeypatch.setattr(backends, "ELEMENTS_BEFORE_COMPILING", 4 * 26 * K)
        chosen = [backends.choose(scores, Negatives(2.0), None) for _ in range(5)]
        assert chosen == [eager] * 3 + [compiled] * 2

    def test_what_was_not_asked_for_is_left_without_a_warning(monkeypatch, recwarn):
        levels, labels = make(2, (9, 4))
        scores = Rows(tuple(levels), labels, Tables())
        monkeypatch.setattr(backends, "ELEMENTS_BEFORE_COMPILING", 0)
        assert backends.choose(scores, Negatives(2.0), None) is compiled
        monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
        assert backends.choose(scores, Negatives(2.0), None) is eager
        assert not [w for w in recwarn if "iou_balanced:" in str(w.message)]
