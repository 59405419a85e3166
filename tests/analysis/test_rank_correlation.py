import numpy as np
import pytest
from scipy.stats import spearmanr

from iou_balanced.analysis.populations import POPULATIONS, Population, population
from iou_balanced.analysis.rank_correlation import rank_correlation_influence
from iou_balanced.analysis.resampling import multiplicities

from .simulation import draw_scene


def test_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    x, image = rng.integers(0, 20, 300), rng.integers(0, 40, 300)
    y = np.round(x / 10 + rng.normal(size=300), 1)
    value, change = rank_correlation_influence(x, y, image, 40)
    assert value == pytest.approx(spearmanr(x, y).statistic)
    assert change.sum() == pytest.approx(0, abs=1e-12)  # all images twice is the same correlation
    weights = multiplicities(40, 300, seed=0)
    linear = value + change @ (weights - 1.0)
    exact = []
    for column in weights.T:
        copies = np.repeat(np.arange(300), column[image])
        exact.append(spearmanr(x[copies], y[copies]).statistic)
    assert np.corrcoef(linear[1:], exact[1:])[0, 1] > 0.97
    assert linear[1:].std() == pytest.approx(np.std(exact[1:]), rel=0.1)


def test_undefined():
    image = np.zeros(3, int)
    assert np.isnan(rank_correlation_influence(np.ones(3), np.arange(3), image, 1)[0])
    assert np.isnan(rank_correlation_influence(np.ones(1), np.ones(1), image[:1], 1)[0])


def test_numbers_by_hand():
    found = Population(
        score=np.array([0.95, 0.85, 0.4, 1.0]),
        iou=np.array([0.52, 0.9, 0.2, 1.0]),
        image=np.array([0, 0, 1, 2]),
        category=np.zeros(4, int),
    )
    weights = np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 0.0]])
    numbers = found.sums(weights)
    assert numbers["mean_iou"] == pytest.approx([2.62 / 4, 1.42 / 2])
    assert numbers["mean_score"] == pytest.approx([3.2 / 4, 1.8 / 2])
    assert numbers["mean_score_by_iou"][0] == pytest.approx([0.95, 0.95])  # 0.50 to 0.55
    assert numbers["mean_score_by_iou"][9, 0] == 1.0  # the last range holds 1
    assert np.isnan(numbers["mean_score_by_iou"][9, 1])
    assert numbers["share_above"][0] == pytest.approx([0.75, 1.0])
    # Bins of the score: 0.4 to 0.5: 0.2 off; 0.8 to 0.9: 0.05; 0.9 to 1: |1.95 - 1.52|, two boxes.
    assert numbers["calibration_error"][0] == pytest.approx((0.2 + 0.05 + 0.43) / 4)
    assert numbers["calibration_count"][:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 2]


def test_populations():
    truth, ((matches,), _) = draw_scene(np.random.default_rng(0), 50, (1.0, 0.5))
    matched, top, everything = (population(name, truth, matches) for name in POPULATIONS)
    true = matches.candidate[matches.status[0, 0] == 1]
    assert len(matched.score) == len(true) and matched.iou.min() >= 0.5
    assert len(top.score) == len(truth.image)
    assert top.score.min() >= np.sort(everything.score)[-len(top.score)]
    assert len(everything.score) == len(matches.detections)
    # In "all" a duplicate has the IoU of the object that another detection found.
    assert (everything.iou >= 0.5).sum() >= len(true)
