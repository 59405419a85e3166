import math

import pytest
import torch

from iou_balanced.losses import (
    balance_oriented_weights,
    effective_number_weights,
    inverse_frequency_weights,
    tail_classes,
)

from ..losses import paper_bofl as paper

COUNTS = [120, 7, 31, 60]


class TestInverseFrequency:
    def test_by_hand(self):
        # n = 10, K = 2: 10 / (2 * 8) and 10 / (2 * 2)
        assert inverse_frequency_weights([8, 2]).tolist() == [0.625, 2.5]

    def test_equal_counts_have_weight_1(self):
        assert inverse_frequency_weights(torch.full((80,), 17)).tolist() == [1.0] * 80

    def test_against_the_paper(self):
        ours = inverse_frequency_weights(COUNTS)
        assert ours.dtype == torch.float64
        assert ours.tolist() == pytest.approx(paper.inverse_frequency_alphas(COUNTS), rel=1e-15)

    def test_class_without_instance(self):
        with pytest.raises(ValueError, match=r"classes \[1, 3\] have none.*`floor`"):
            inverse_frequency_weights([5, 0, 3, 0])

    def test_floor(self):
        """It is for the class, not for n: 8 / (2 * 8) and 8 / (2 * 4)."""
        assert inverse_frequency_weights([8, 0], floor=4).tolist() == [0.5, 1.0]
        assert inverse_frequency_weights([8, 2], floor=1).tolist() == [0.625, 2.5]

    @pytest.mark.parametrize("bad", [[], [[1, 2]], 3])
    def test_bad_shape(self, bad):
        with pytest.raises(ValueError, match=r"`counts`.*\(K,\)"):
            inverse_frequency_weights(bad)

    @pytest.mark.parametrize("bad", [[1, -1], [1, math.nan], [1, math.inf]])
    def test_bad_values(self, bad):
        with pytest.raises(ValueError, match=r"`counts` to be at least 0"):
            inverse_frequency_weights(bad)

    @pytest.mark.parametrize("bad", [-1, 0, math.nan])
    def test_bad_floor(self, bad):
        with pytest.raises(ValueError, match="`floor` to be greater than 0"):
            inverse_frequency_weights([1, 2], floor=bad)


class TestEffectiveNumber:
    def test_by_hand(self):
        # beta 0.5: (1 - 0.5) / (1 - 0.5^1) = 1, / (1 - 0.5^2) = 2/3; sum 5/3 -> times 6/5
        assert effective_number_weights([1, 2], 0.5).tolist() == pytest.approx([1, 2 / 3])
        assert effective_number_weights([1, 2], 0.5, normalize=True).tolist() == pytest.approx(
            [1.2, 0.8]
        )

    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize("beta", [0.9, 0.99, 0.9999])
    def test_against_the_paper(self, beta, normalize):
        ours = effective_number_weights(COUNTS, beta, normalize=normalize).tolist()
        theirs = paper.effective_number_alphas(COUNTS, beta, normalize=normalize)
        assert ours == pytest.approx(theirs, rel=1e-10)

    def test_limits(self):
        """Eq. 4: beta = 0 is no weighting, beta -> 1 the inverse frequency."""
        assert effective_number_weights(COUNTS, 0.0).tolist() == [1.0] * 4
        near_one = effective_number_weights(COUNTS, 1 - 1e-12, normalize=True)
        inverse = inverse_frequency_weights(COUNTS)
        torch.testing.assert_close(near_one, inverse * 4 / inverse.sum(), rtol=1e-6, atol=0)

    def test_many_instances(self):
        """1 - beta^n without cancellation, and beta^n without underflow."""
        weights = effective_number_weights([1, 10**9], 1 - 1e-9)
        assert weights[0].item() == pytest.approx(1.0, rel=1e-6)
        assert weights[1].item() == pytest.approx(1e-9 / (1 - math.exp(-1)), rel=1e-6)

    @pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan])
    def test_bad_beta(self, beta):
        with pytest.raises(ValueError, match=r"`beta` to be in \[0, 1\)"):
            effective_number_weights(COUNTS, beta)


class TestBalanceOriented:
    IMAGES = torch.tensor([[2, 0, 1, 0], [0, 3, 0, 1]])

    @pytest.mark.parametrize("hat", ["base", "power"])
    @pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
    @pytest.mark.parametrize("eta", [0.0, 0.8, 1.0])
    @pytest.mark.parametrize("intensity", [0.0, 0.05, 1.0])
    def test_against_the_paper(self, intensity, eta, progress, hat):
        alpha = inverse_frequency_weights(COUNTS)
        settings = dict(eta=eta, progress=progress, intensity=intensity, hat=hat)
        ours = balance_oriented_weights(alpha, self.IMAGES, **settings)
        theirs = paper.balance_oriented_table(alpha.tolist(), self.IMAGES.tolist(), **settings)
        torch.testing.assert_close(ours, torch.tensor(theirs).double(), rtol=1e-6, atol=0)
        assert ours.shape == (2, 4)

    def test_by_hand(self):
        """lambda 1/2: alpha 3 -> 2; eta 0.8 -> 0.9, of two instances 0.81; an absent class 1."""
        alpha, counts = torch.tensor([3.0, 0.5]), torch.tensor([[2, 0]])
        ours = balance_oriented_weights(alpha, counts, eta=0.8, progress=0.5)
        assert ours.tolist()[0] == pytest.approx([2 * 0.81, 0.75])
        ours = balance_oriented_weights(alpha, counts, eta=0.8, progress=0.5, hat="power")
        assert ours.tolist()[0] == pytest.approx([2 * (1 - 0.5 * 0.36), 0.75])

    def test_is_1_at_the_start(self):
        ours = balance_oriented_weights(torch.rand(4), self.IMAGES, eta=0.3, progress=0.0)
        assert ours.eq(1).all()

    def test_no_gradient(self):
        alpha = torch.rand(4, requires_grad=True)
        assert not balance_oriented_weights(alpha, self.IMAGES, eta=0.8, progress=0.5).requires_grad

    @pytest.mark.parametrize(
        "name, value", [("eta", 1.1), ("eta", -0.1), ("progress", 1.5), ("progress", math.nan)]
    )
    def test_bad_values(self, name, value):
        settings = {"eta": 0.8, "progress": 0.5, name: value}
        with pytest.raises(ValueError, match=rf"`{name}` to be in \[0, 1\]"):
            balance_oriented_weights(torch.ones(4), self.IMAGES, **settings)

    def test_bad_hat(self):
        with pytest.raises(ValueError, match=r"`hat` to be one of \('base', 'power'\)"):
            balance_oriented_weights(torch.ones(4), self.IMAGES, eta=1, progress=1, hat="x")

    @pytest.mark.parametrize("shape", [(3,), (4, 1), ()])
    def test_bad_shapes(self, shape):
        with pytest.raises(ValueError, match=r"shapes \(K,\) and \(N, K\)"):
            balance_oriented_weights(torch.ones(shape), self.IMAGES, eta=1, progress=1)


class TestTail:
    IMAGES = (50, 3, 30, 5, 12)  # 100 in all

    @pytest.mark.parametrize(
        "ratio, tail",
        [
            (0.0, []),
            (0.014, []),  # 0 is nearer than 3%
            (0.016, [1]),
            (0.03, [1]),
            (0.08, [1, 3]),
            (0.139, [1, 3]),  # 8% is nearer than 20%
            (0.141, [1, 3, 4]),
            (0.5, [1, 2, 3, 4]),
            (1.0, [0, 1, 2, 3, 4]),
        ],
    )
    def test_nearest_ratio(self, ratio, tail):
        assert tail_classes(self.IMAGES, ratio).nonzero().flatten().tolist() == tail

    def test_equals_are_on_one_side(self):
        """Of 5, 5 and 90 images, a tail of one 5 would be 5%: it is none or both."""
        assert tail_classes([5, 90, 5], 0.06).tolist() == [True, False, True]
        assert tail_classes([5, 90, 5], 0.04).tolist() == [False] * 3

    def test_the_definition_of_the_paper(self):
        """At a ratio that a threshold meets, the largest threshold that does not exceed it."""
        torch.manual_seed(0)
        for _ in range(20):
            counts = torch.randint(1, 50, (12,)).tolist()
            ratio = paper.tail_ratio(counts, sorted(counts)[5])
            ours = tail_classes(counts, ratio).tolist()
            assert ours == paper.tail_classes(counts, ratio)

    def test_class_without_image_is_tail(self):
        assert tail_classes([0, 10, 90], 0.1).tolist() == [True, True, False]
        assert tail_classes([0, 0], 0.1).shape == (2,)

    @pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan])
    def test_bad_ratio(self, ratio):
        with pytest.raises(ValueError, match="`tail_ratio`"):
            tail_classes(self.IMAGES, ratio)
