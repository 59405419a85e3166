"""Seesaw loss (arXiv 2008.10032)."""

import math

import pytest
import torch

from iou_balanced.losses import (
    ClassWeights,
    SeesawLoss,
    SoftmaxCrossEntropyLoss,
    seesaw_loss,
)

from . import naive_balanced as naive

K = 3
LABELS = torch.tensor([0, 3, -1, 2, 1, 2, 0, 3])
COUNTS = torch.tensor([100.0, 0.0, 7.0])


def logits(seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(8, K + 1, generator=generator).double()).requires_grad_()


def assert_same(loss, expected, x):
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    (grad,), (expected_grad,) = (
        torch.autograd.grad(y, x, retain_graph=True) for y in (loss, expected)
    )
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-14)


def test_by_hand():
    # K = 2, a sample of class 0 with N = (16, 1); logits (0, log 2, 0), background last.
    # Scores of the two classes 1/3 and 2/3. M = (1 / 16)^0.5 = 0.25, C = (2/3 / (1/3))^2 = 4:
    # S = 1. Denominator 1 + 1 * 2 + 1 (background) = 4: log 4.
    # With q = 0: 1 + 0.25 * 2 + 1 = 2.5. A sample of class 1: M = 1, and its score is the higher
    # one, C = 1: 1 + 2 + 1 = 4 over 2: log 2.
    x = torch.tensor([[0.0, math.log(2), 0.0]])
    counts = torch.tensor([16.0, 1.0])
    for label, kwargs, expected in [
        (0, {"p": 0.5, "q": 2}, math.log(4)),
        (0, {"p": 0.5, "q": 0}, math.log(2.5)),
        (1, {}, math.log(2)),
        (2, {}, math.log(4)),  # background: plain cross entropy
    ]:
        loss = seesaw_loss(x, torch.tensor([label]), counts, **kwargs)
        assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kwargs", [{}, {"p": 0}, {"q": 0}, {"p": 1.3, "q": 0.7, "eps": 0.2}])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_against_the_paper(kwargs, scale):
    x = logits(scale=scale)
    assert_same(
        seesaw_loss(x, LABELS, COUNTS, **kwargs), naive.seesaw(x, LABELS, COUNTS, **kwargs), x
    )


def test_without_factors_it_is_cross_entropy():
    x = logits()
    plain = SoftmaxCrossEntropyLoss()(x, LABELS)
    assert_same(seesaw_loss(x, LABELS, COUNTS, p=0, q=0), plain, x)
    assert_same(seesaw_loss(x, LABELS, torch.full((K,), 9.0), q=0), plain, x)


def test_levels_and_reductions():
    x = logits()
    labels = LABELS.view(2, 4)
    levels = [x.view(2, 4, K + 1)[:, :1], x.view(2, 4, K + 1)[:, 1:]]
    terms = seesaw_loss(levels, labels, COUNTS, reduction="none")
    assert terms.shape == (2, 4) and terms[0, 2] == 0
    torch.testing.assert_close(terms.sum(), seesaw_loss(x, LABELS, COUNTS))
    torch.testing.assert_close(terms.sum() / 7, seesaw_loss(x, LABELS, COUNTS, reduction="mean"))


def test_class_weights_are_of_the_samples_label():
    x, weight = logits(), torch.tensor([0.5, 2.0, 3.0])
    terms = seesaw_loss(x, LABELS, COUNTS, reduction="none")
    factor = torch.cat([weight, torch.ones(1)])[LABELS.clamp(min=0)]
    loss = seesaw_loss(x, LABELS, COUNTS, class_weight=weight)
    torch.testing.assert_close(loss, (terms * factor).sum(), check_dtype=False)
    with pytest.raises(ValueError, match="`class_weight` to have one table"):
        seesaw_loss(x, LABELS, COUNTS, class_weight=ClassWeights(other=weight))


def test_large_logits_stay_finite():
    x = torch.tensor([[-80.0, 90.0, -90.0, 0.0]], requires_grad=True)
    loss = seesaw_loss(x, torch.tensor([0]), torch.tensor([1e7, 1.0, 1.0]))
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all()


class TestModule:
    def test_it_uses_the_counts_of_the_iterations_before(self):
        module = SeesawLoss()
        counts = torch.zeros(K)
        for seed in range(3):
            x = logits(seed)
            assert_same(module(x, LABELS), naive.seesaw(x, LABELS, counts), x)
            counts += torch.tensor([2.0, 1.0, 2.0])  # of LABELS
            assert module.statistics.sums.tolist() == [counts.tolist()]

    def test_only_in_training(self):
        module = SeesawLoss().eval()
        module(logits(), LABELS)
        with torch.no_grad():
            module.train()(logits(), LABELS)
        assert not module.statistics.sums.any()

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"p": -1}, "`p` to be at least 0"),
            ({"q": 200}, "`q` to be at most 100"),
            ({"eps": 0}, "`eps` to be greater than 0"),
            ({"eps": 2}, r"`eps` to be in \[0, 1\]"),
            ({"reduction": "total"}, "`reduction` to be one of"),
        ],
    )
    def test_bad_arguments(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            SeesawLoss(**kwargs)

    def test_counts_of_another_shape(self):
        with pytest.raises(ValueError, match=r"`class_counts` .*shape \(3,\), but got \(4,\)"):
            seesaw_loss(logits(), LABELS, torch.ones(4))
