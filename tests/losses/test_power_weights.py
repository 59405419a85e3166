"""Powers of the inverse frequency; and that other weightings are corners of `ClassBalanced`."""

import pytest
import torch

from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    effective_number_weights,
    inverse_frequency_weights,
    power_frequency_weights,
    sigmoid_focal_loss,
)

COUNTS = [120, 7, 31, 60]
LABELS = torch.tensor([[0, 4, 3], [2, -1, 1]])


def weights(**kwargs):
    module = ClassBalanced(
        num_classes=4, per_sample=False, class_counts=COUNTS, schedule=None, **kwargs
    )
    return module(None, LABELS)


def test_by_hand():
    # n = (1, 4), power 1/2: (1, 1/2), mean 3/4: (4/3, 2/3). Power 1: (1, 1/4), mean 5/8.
    assert power_frequency_weights([1, 4], 0.5).tolist() == pytest.approx([4 / 3, 2 / 3])
    assert power_frequency_weights([1, 4], 1).tolist() == pytest.approx([1.6, 0.4])
    assert power_frequency_weights([5, 1000], 0).tolist() == [1.0, 1.0]
    assert power_frequency_weights([0, 4], 1, floor=1).tolist() == pytest.approx([1.6, 0.4])


def test_corners():
    """Of one module: no weights, inverse frequency, effective number, the factor of BOFL."""
    inverse = inverse_frequency_weights(COUNTS)
    by_power = {p: power_frequency_weights(COUNTS, p) for p in (0, 0.5, 1)}
    torch.testing.assert_close(by_power[0], torch.ones(4).double())
    torch.testing.assert_close(by_power[1], inverse / inverse.mean())
    ratio = by_power[0.5] ** 2 / by_power[1]  # the square root, up to the scale
    torch.testing.assert_close(ratio, ratio[:1].expand(4))
    # The effective number goes from the one end, beta 0, to the other, beta 1.
    torch.testing.assert_close(effective_number_weights(COUNTS, 0.0, normalize=True), by_power[0])
    nearly_1 = effective_number_weights(COUNTS, 1 - 1e-9, normalize=True)
    torch.testing.assert_close(nearly_1, by_power[1], rtol=1e-6, atol=0)
    # As modules, column by column.
    torch.testing.assert_close(weights(power=0.5), by_power[0.5].float())
    torch.testing.assert_close(weights(beta=None), inverse.float())
    bofl = BalanceOriented(num_classes=4, schedule=None, eta=1, class_counts=COUNTS)
    torch.testing.assert_close(bofl(None, LABELS), weights(beta=None).expand(2, 4))


def test_they_weigh_positives_and_negatives_of_a_column():
    x = torch.randn(2, 3, 4)
    table = weights(power=0.5)
    terms = sigmoid_focal_loss(x, LABELS, reduction="none")
    loss = sigmoid_focal_loss(x, LABELS, class_weight=table, reduction="none")
    torch.testing.assert_close(loss, terms * table)


@pytest.mark.parametrize("bad", [-0.5, float("nan"), None, True])
def test_bad_power(bad):
    with pytest.raises(ValueError, match="`power` to be at least 0"):
        power_frequency_weights(COUNTS, bad)
    if bad is not None:
        with pytest.raises(ValueError, match="`power` to be at least 0"):
            ClassBalanced(num_classes=4, power=bad)


def test_a_class_without_instances():
    with pytest.raises(ValueError, match=r"classes \[1\] have none.*`floor`"):
        power_frequency_weights([3, 0], 0.5)
