import math

import numpy as np
import pytest

from iou_balanced.analysis.intervals import Sample, difference, estimate, holm
from iou_balanced.analysis.students_t import t_quantile, t_tail


def test_students_t():
    # Tables: 12.706 for 1 degree of freedom, 4.303 for 2, 2.228 for 10, 1.960 for the normal.
    for df, expected in ((1, 12.7062), (2, 4.30265), (10, 2.22814), (math.inf, 1.95996)):
        assert t_quantile(0.95, df) == pytest.approx(expected, abs=1e-4)
        assert t_tail(t_quantile(0.95, df), df) == pytest.approx(0.05)
    assert t_tail(0, 5) == 1
    # Of 1 degree of freedom it is Cauchy's: 1 - 2 arctan(t) / pi; also beyond the table.
    assert t_tail(40, 1) == pytest.approx(1 - 2 * math.atan(40) / math.pi, rel=1e-9)
    assert t_quantile(0.9, 2.5) == pytest.approx(2.5582, abs=1e-3)


def test_holm_by_hand():
    # 0.01 x 3; 0.02 x 2 = 0.04; 0.03 x 1 is raised to 0.04.
    assert holm([0.02, None, 0.01, 0.03]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([None]) == [None]


def sample(values, draws, num_images=(101,)):
    values = np.asarray(values, float)[:, None]
    return Sample(np.concatenate([values, values + draws], axis=1), list(num_images))


def test_interval_of_one_seed():
    draws = np.array([-2.0, 2.0] * 50)  # variance 400 / 99, and 101 / 100 of it for 101 images
    found = estimate(sample([10], draws), 0.95)
    spread = math.sqrt(400 / 99 * 1.01)
    half = t_quantile(0.95, 100) * spread
    assert (found.low, found.high) == pytest.approx((10 - half, 10 + half))
    assert found.se_seeds is None and found.df == pytest.approx(100)
    assert "se_seeds" not in found.to_dict()


def test_few_images_have_the_wider_interval():
    draws = np.random.default_rng(0).normal(size=500)
    widths = [
        found.high - found.low
        for n in (4, 20, 1000)
        for found in [estimate(sample([10], draws, (n,)), 0.95)]
    ]
    assert widths[0] > 1.3 * widths[1] > 1.3 * widths[2]
    assert math.isnan(estimate(sample([10], draws, (1,)), 0.95).low)


def test_seeds_and_images_are_both_in_the_interval():
    draws = np.tile([-1.0, 1.0], 100)
    found = estimate(sample([10, 12, 14], draws), 0.95)  # variance 4 over seeds, 4 / 3 of the mean
    assert found.value == 12
    assert found.se_seeds == pytest.approx(math.sqrt(4 / 3))
    assert found.se_images == pytest.approx(math.sqrt(200 / 199 * 1.01))
    total = found.se_images**2 + 4 / 3
    df = total**2 / ((4 / 3) ** 2 / 2 + found.se_images**4 / 100)
    assert found.df == pytest.approx(df)
    half = t_quantile(0.95, df) * math.sqrt(total)
    assert found.high == pytest.approx(12 + half)


def test_a_difference_is_paired():
    draws = np.random.default_rng(0).normal(size=200)
    first, second = sample([10], draws), sample([11], draws)
    found = difference(second, first, 0.95)
    assert found.value == 1 and found.low == pytest.approx(1) and found.p == 0.0
    assert difference(first, first, 0.95).p == 1.0


def test_one_seed_against_several():
    draws = np.tile([-1.0, 1.0], 100)
    several, one = sample([10, 12, 14], draws), sample([9], -draws)
    found = difference(several, one, 0.95)
    # The spread of the one is taken to be that of the others: 4 / 3 + 4.
    assert found.se_seeds == pytest.approx(math.sqrt(4 / 3 + 4))
    assert found.p_method == "t"


def test_the_same_weights_are_pairs_seed_by_seed():
    draws = np.tile([-1.0, 1.0], 100)
    first, second = sample([10, 12, 14], draws), sample([9, 11.5, 13], -draws)
    found = difference(second, first, 0.95, same_weights=True)
    # Differences -1, -0.5 and -1: their variance is 1 / 12.
    assert found.value == pytest.approx(-2.5 / 3)
    assert found.se_seeds == pytest.approx(1 / 6)
    independent = difference(second, first, 0.95)
    assert independent.se_seeds == pytest.approx(
        math.sqrt(4 / 3 + np.var([9, 11.5, 13], ddof=1) / 3)
    )
    assert independent.se_images == found.se_images
    alone = difference(sample([9], -draws), sample([10], draws), 0.95, same_weights=True)
    assert alone.se_seeds is None


def test_permutation_p():
    draws = np.random.default_rng(0).normal(size=200)
    first, second = sample([10], draws), sample([11], 0 * draws)
    swapped = np.linspace(-2, 2, 400)  # half of them reach 1
    found = difference(second, first, 0.95, swapped)
    assert found.p == pytest.approx(201 / 401) and found.p_method == "permutation"
    # Never reached: 1 / 401 would be all that their number can say.
    found = difference(second, first, 0.95, swapped / 20)
    assert 0 < found.p < 1 / 401 and found.p_method == "permutation, tail"


def test_a_mean_over_classes_borrows_from_the_others():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(4, 301))
    classes[3] = 5.0  # one image: its draws do not vary
    several = Sample(classes.mean(axis=0)[None], [50, 50, 50, 1], [classes])
    found = estimate(several, 0.95)
    drawn = classes[:, 1:].mean(axis=0).var(ddof=1)
    assert found.se_images**2 > 3 * drawn  # an image alone varies 50 times as much as 50 do
    assert found.df < 10


def test_intervals_stay_within_what_is_possible():
    draws = np.random.default_rng(0).normal(size=200)
    low = Sample(np.concatenate([[0.5], draws + 0.5])[None], [30], None, (0.0, 100.0))
    assert estimate(low, 0.95).low == 0
