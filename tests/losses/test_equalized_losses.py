"""Equalized focal loss (arXiv 2201.02593) and equalization loss v2 (arXiv 2012.08548)."""

import math

import pytest
import torch

from iou_balanced.losses import (
    ClassWeights,
    EqualizationLossV2,
    EqualizedFocalLoss,
    SigmoidFocalLoss,
    equalization_loss_v2,
    equalized_focal_loss,
    sigmoid_focal_loss,
)

from . import naive_balanced as naive

K = 3
LABELS = torch.tensor([[0, 3, -1, 2, 0], [-1, 1, 3, 3, 2]])
RATIO = torch.tensor([1.4, 0.3, 0.0])
MODULES = [
    EqualizedFocalLoss,
    EqualizationLossV2,
    lambda **kw: EqualizationLossV2(gamma=2, **kw),
]


def logits(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(2, 5, K, generator=generator)).to(dtype).requires_grad_()


def assert_same(loss, expected, x):
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    (grad,), (expected_grad,) = (
        torch.autograd.grad(y, x, retain_graph=True) for y in (loss, expected)
    )
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-14)


def ratio_of(sums):
    return sums[0] / sums[1].clamp(min=1e-10)


class TestFunctions:
    def test_equalized_focal_by_hand(self):
        # One positive of class 0 and logits 0: p = 1/2, -log(1/2) = 0.693147. g = (1, 0.5, 0),
        # gamma 2 and scale 8: gamma_j = 2, 6, 10, weights 1, 3, 5.
        # Own: 0.25 * 1 * 2^-2 = 0.0625. Others: 0.75 * 3 * 2^-6 = 0.03515625 and
        # 0.75 * 5 * 2^-10 = 0.003662109; sum 0.101318359, times log 2 = 0.0702285.
        loss = equalized_focal_loss(
            torch.zeros(1, 3), torch.tensor([0]), torch.tensor([1.0, 0.5, 0.0])
        )
        assert loss.item() == pytest.approx(0.101318359 * math.log(2), rel=1e-6)

    def test_equalization_v2_by_hand(self):
        # g = 0.8, the midpoint, for both: f = 1 / (1 + 1) = 0.5; a positive weighs 1 + 4 * 0.5 = 3,
        # a negative 0.5. Own and other logit 0, log 2 each: 3.5 log 2; a background row: 2 * 0.5.
        ratio = torch.tensor([0.8, 0.8])
        loss = equalization_loss_v2(torch.zeros(2, 2), torch.tensor([1, 2]), ratio)
        assert loss.item() == pytest.approx(4.5 * math.log(2), rel=1e-6)

    @pytest.mark.parametrize(
        "kwargs", [{}, {"alpha": -1.0, "gamma": 0.5, "scale": 2.0}, {"scale": 0.0}]
    )
    def test_equalized_focal_against_the_paper(self, kwargs):
        x = logits()
        loss = equalized_focal_loss(x, LABELS, RATIO.double(), **kwargs)
        assert_same(loss, naive.equalized_focal(x, LABELS, RATIO, **kwargs), x)

    @pytest.mark.parametrize(
        "kwargs", [{}, {"gamma": 2.0}, {"steepness": 3.0, "midpoint": 0.1, "boost": 0.5}]
    )
    def test_equalization_v2_against_the_paper(self, kwargs):
        x = logits()
        loss = equalization_loss_v2(x, LABELS, RATIO.double(), **kwargs)
        assert_same(loss, naive.equalization_v2(x, LABELS, RATIO, **kwargs), x)

    def test_balanced_gradients_are_focal_loss_and_cross_entropy(self):
        x = logits()
        loss = equalized_focal_loss(x, LABELS, torch.full((K,), 2.0))
        assert_same(loss, sigmoid_focal_loss(x, LABELS), x)
        loss = equalization_loss_v2(x, LABELS, torch.full((K,), 100.0))
        assert_same(loss, sigmoid_focal_loss(x, LABELS, alpha=-1, gamma=0), x)

    def test_class_weights_multiply(self):
        x, weight = logits(), torch.tensor([0.5, 2.0, 3.0])
        expected = naive.equalized_focal(x, LABELS, RATIO, weight=weight)
        for table in (weight, weight.expand(2, K), ClassWeights(weight, weight, weight)):
            loss = equalized_focal_loss(x, LABELS, RATIO.double(), class_weight=table)
            assert_same(loss, expected, x)

    def test_a_weight_for_each_row_of_flat_scores(self):
        x, labels = logits(), LABELS.flatten()
        weight = torch.rand(len(labels), K, dtype=torch.float64)
        flat = x.flatten(0, 1)
        loss = equalized_focal_loss(flat, labels, torch.ones(K), class_weight=weight)
        assert_same(loss, sigmoid_focal_loss(flat, labels, class_weight=weight), x)

    def test_tables_by_kind_keep_their_kinds(self):
        """Own elements twice, those of positive rows three times, background rows not at all."""
        x = logits()
        tables = ClassWeights(
            torch.full((K,), 2.0), torch.full((K,), 3.0), torch.zeros(K), torch.full((K + 1,), 5.0)
        )
        terms = equalization_loss_v2(x, LABELS, RATIO.double(), reduction="none")
        loss = equalization_loss_v2(
            x, LABELS, RATIO.double(), class_weight=tables, reduction="none"
        )
        own = torch.nn.functional.one_hot(LABELS.clamp(min=0), K + 1)[..., :K]
        factor = (own * 2 + (1 - own) * 3) * (LABELS != K)[..., None] * 5
        torch.testing.assert_close(loss, terms * factor, rtol=1e-10, atol=0)

    def test_the_largest_exponent_is_allowed(self):
        assert EqualizedFocalLoss(gamma=60.0, scale=40.0)(logits(), LABELS).isfinite()

    def test_levels(self):
        x = logits()
        parts = [x[:, :2], x[:, 2:]]
        assert_same(
            equalized_focal_loss(parts, LABELS, RATIO), equalized_focal_loss(x, LABELS, RATIO), x
        )

    @pytest.mark.parametrize("bad", [torch.ones(K + 1), torch.ones(1, K), [1.0, 1.0, 1.0]])
    def test_a_ratio_of_another_shape(self, bad):
        for loss in (equalized_focal_loss, equalization_loss_v2):
            with pytest.raises(ValueError, match=r"`gradient_ratio` .*each class.*\(3,\), but got"):
                loss(logits(), LABELS, bad)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: EqualizedFocalLoss(gamma=0.0), "`gamma` to be greater than 0"),
            (lambda: EqualizedFocalLoss(scale=-1), "`scale` to be at least 0"),
            (lambda: EqualizedFocalLoss(gamma=60, scale=60), "at most 100, but got 120"),
            (lambda: EqualizedFocalLoss(alpha=2), "`alpha` to be in"),
            (lambda: EqualizationLossV2(midpoint=-1), "`midpoint` to be at least 0"),
            (lambda: EqualizationLossV2(gamma=-1), "`gamma` to be at least 0"),
            (lambda: EqualizationLossV2(num_classes=0), "`num_classes` to be a whole number"),
            (lambda: EqualizationLossV2(across_processes="no"), "`across_processes` to be True"),
            (lambda: EqualizedFocalLoss(backend="cuda"), "`backend` to be one of"),
        ],
    )
    def test_bad_arguments(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestStatistics:
    @pytest.mark.parametrize("make", MODULES)
    def test_they_are_the_gradients_of_the_loss(self, make):
        """By autograd of the naive forms; each iteration uses what those before it left."""
        module, sums = make(), torch.zeros(2, K, dtype=torch.float64)
        initial = 1.0 if isinstance(module, EqualizedFocalLoss) else 100.0
        for seed in range(3):
            x = logits(seed)
            ratio = ratio_of(sums) if seed else torch.full((K,), initial)
            if isinstance(module, EqualizedFocalLoss):
                expected = naive.equalized_focal(x, LABELS, ratio)
            else:
                expected = naive.equalization_v2(x, LABELS, ratio, gamma=module.gamma)
            loss = module(x, LABELS)
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
            sums += naive.gradient_sums(expected, x, LABELS)
            torch.testing.assert_close(module.statistics.sums, sums, rtol=1e-5, atol=1e-12)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_small_gradients_do_not_underflow(self, dtype):
        """Background scores of 0.1%: slopes of 1e-6 and less, which float16 would round away."""
        x = torch.full((4, 500, K), -8.0, dtype=dtype, requires_grad=True)
        labels = torch.full((4, 500), K)
        module, single = EqualizedFocalLoss(), EqualizedFocalLoss()
        module(x, labels)
        single(x.detach().float().requires_grad_(), labels)
        assert (module.statistics.sums[1] > 0).all()
        torch.testing.assert_close(module.statistics.sums, single.statistics.sums)

    def test_class_weights_count(self):
        """The gradients are those of the weighted loss."""
        plain, weighted = EqualizationLossV2(), EqualizationLossV2()
        weight = torch.tensor([0.5, 2.0, 3.0])
        x = logits()
        plain(x, LABELS)
        weighted(x, LABELS, class_weight=weight)
        torch.testing.assert_close(
            weighted.statistics.sums, plain.statistics.sums * weight.double()
        )

    def test_only_in_training(self):
        module = EqualizedFocalLoss().eval()
        module(logits(), LABELS)
        with torch.no_grad():
            module.train()(logits(), LABELS)
        assert not module.statistics.sums.any()
        assert module.gradient_ratio.tolist() == [1.0] * K

    def test_a_rare_class_is_focused_more(self):
        """What it is for: the class with fewer positives gets the lower ratio."""
        module = EqualizedFocalLoss()
        x = torch.full((50, 2), -1.0, requires_grad=True)
        labels = torch.tensor([0] * 30 + [1] + [2] * 19)
        module(x, labels)
        frequent, rare = module.gradient_ratio.tolist()
        assert rare < frequent <= 1

    @pytest.mark.parametrize("make", [*MODULES, SigmoidFocalLoss])
    def test_parts_of_a_batch_have_its_gradients(self, make):
        whole, parts = make(), make()
        for seed in range(2):
            x = logits(seed)
            (expected,) = torch.autograd.grad(whole(x, LABELS), x)
            with torch.enable_grad():
                if hasattr(parts, "statistics"):
                    with parts.statistics.whole_batch():
                        losses = [parts(x[i : i + 1], LABELS[i : i + 1]) for i in range(2)]
                else:
                    losses = [parts(x[i : i + 1], LABELS[i : i + 1]) for i in range(2)]
            (grad,) = torch.autograd.grad(sum(losses), x)
            torch.testing.assert_close(grad, expected)
        if hasattr(parts, "statistics"):
            torch.testing.assert_close(parts.statistics.sums, whole.statistics.sums)
