"""AP equals pycocotools', also where images count several times."""

import numpy as np
import pytest

from iou_balanced.analysis import Detections
from iou_balanced.analysis.class_tables import class_table, pooled
from iou_balanced.analysis.estimates import metric_samples
from iou_balanced.analysis.influence import ap_influence
from iou_balanced.analysis.intervals import difference
from iou_balanced.analysis.matching import match
from iou_balanced.analysis.resampling import bootstrap, multiplicities, permute, swaps
from iou_balanced.analysis.weighted_ap import weighted_ap

from .reference import pycocotools_ap, random_data
from .simulation import draw_scene

CASES = {
    "plain": {"crowds": 0.0},
    "crowds": {"crowds": 0.3},
    "equal scores": {"ties": True},
    "equal scores and crowds": {"ties": True, "crowds": 0.3},
    "more than 100 detections": {"many": True},
}


def ap_of(truth, detections, weights):
    """(A, T, K, W)"""
    matches = match(truth, Detections.from_columns(*detections, truth.num_classes))
    rows = list(weights.astype(float))
    return np.array(
        [
            [
                weighted_ap(class_table(matches, truth, k, area), rows)
                for k in range(truth.num_classes)
            ]
            for area in range(4)
        ]
    ).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES)
def test_equals_pycocotools(case, seed):
    truth, detections = random_data(seed, **CASES[case])
    found = ap_of(truth, detections, np.ones((truth.num_images, 1)))[..., 0]
    np.testing.assert_allclose(found, pycocotools_ap(truth, detections), atol=1e-12)
    assert np.isnan(found[0, 0, -1]) and not np.isnan(found[0, 0, 0])  # the last has no object


@pytest.mark.parametrize("case", ["plain", "crowds", "more than 100 detections"])
def test_an_image_drawn_twice_counts_twice(case):
    truth, detections = random_data(5, **CASES[case])
    weights = multiplicities(truth.num_images, 4, seed=1)
    assert (weights[:, 0] == 1).all() and (weights.sum(axis=0) == truth.num_images).all()
    found = ap_of(truth, detections, weights)
    for i, times in enumerate(weights.T.astype(int)):
        np.testing.assert_allclose(
            found[..., i], pycocotools_ap(truth, detections, times), atol=1e-12
        )


def test_to_drop_repeats_flips_a_verdict():
    """Two detectors of nearly the same kind on 300 images, 400 draws."""
    truth, ((one,), (other,)) = draw_scene(
        np.random.default_rng(29), 300, (0.5,), noises=(0.08, 0.077)
    )
    draws = multiplicities(300, 400, seed=0)

    def interval(weights):
        rows = list(weights.astype(float))
        ap = [weighted_ap(class_table(m, truth, 0, 0), rows).mean(axis=0) for m in (one, other)]
        return np.quantile((ap[1] - ap[0])[1:], [0.025, 0.975])

    found = interval(draws)
    assert found[0] < 0 < found[1]  # they cannot be told apart
    # Without repeats a draw is 63% of the images, and draws differ less from each other.
    dropped = interval(np.minimum(draws, 1))
    assert dropped[0] > 0
    assert np.diff(dropped) < 0.9 * np.diff(found)
    ours = [metric_samples(truth, [d]) for d in bootstrap(truth, [one, other], draws=400, seed=0)]
    number = difference(ours[1]["AP"], ours[0]["AP"], 0.95)
    assert number.low < 0 < number.high


def test_counts_that_do_not_fit_a_table_at_once(monkeypatch):
    truth, detections = random_data(3)
    weights = multiplicities(truth.num_images, 30, seed=0)
    expected = ap_of(truth, detections, weights)
    monkeypatch.setattr("iou_balanced.analysis.weighted_ap._MAX_TABLE", 300)
    np.testing.assert_allclose(ap_of(truth, detections, weights), expected, rtol=1e-13)


def two_runs(seed, num_images=40):
    truth, first = random_data(seed, num_images=num_images)
    rng = np.random.default_rng(seed)
    second = (*first[:2], first[2] + rng.normal(0, 2, first[2].shape).clip(-4, 4), first[3])
    second[2][:, 2:] = np.abs(second[2][:, 2:])
    second = (*second[:3], np.random.default_rng(seed + 1).random(len(first[3])))
    return truth, first, second


def test_swapped_runs_equal_pycocotools():
    """Runs whose detections were swapped in some images, evaluated again."""
    truth, first, second = two_runs(1)
    swap = swaps(truth.num_images, 3, seed=7)
    matches = [
        match(truth, Detections.from_columns(*x, truth.num_classes)) for x in (first, second)
    ]
    found = permute(truth, *matches, draws=3, seed=7)
    for i in range(3):
        mixed = []
        for one, other in ((first, second), (second, first)):
            kept, taken = swap[one[0], i] == 0, swap[other[0], i] == 1
            columns = zip(one, other, strict=True)
            mixed.append(tuple(np.concatenate([a[kept], b[taken]]) for a, b in columns))
        a, b = (pycocotools_ap(truth, x) for x in mixed)
        assert found["AP"][i] == pytest.approx(np.nanmean(b[0] - a[0]), abs=1e-12)
        assert found["APs"][i] == pytest.approx(np.nanmean((b - a)[1]), abs=1e-12)
        assert found["AP-class 1"][i] == pytest.approx((b - a)[0, :, 1].mean(), abs=1e-12)


def test_pooled_runs_hold_both():
    truth, first, second = two_runs(2)
    tables = [
        class_table(match(truth, Detections.from_columns(*x, truth.num_classes)), truth, 0, 0)
        for x in (first, second)
    ]
    pool = pooled(tables, truth.num_images)
    kept, none = np.ones((truth.num_images, 1)), np.zeros((truth.num_images, 1))
    for table, weights in zip(tables, ((kept, none), (none, kept)), strict=True):
        expected = weighted_ap(table, list(kept))
        np.testing.assert_allclose(weighted_ap(pool, list(np.concatenate(weights))), expected)


def test_influence_is_the_derivative():
    truth, detections = random_data(4, num_images=300, crowds=0.02)
    matches = match(truth, Detections.from_columns(*detections, truth.num_classes))
    weights = multiplicities(truth.num_images, 200, seed=0).astype(float)
    for k, t in ((0, 0), (1, 4)):
        table = class_table(matches, truth, k, 0)
        change = ap_influence(table, t, truth.num_images)
        assert change.sum() == pytest.approx(0, abs=1e-12)
        draws = weighted_ap(table, list(weights))[t]
        linear = draws[0] + change @ (weights - 1)
        assert np.corrcoef(draws[1:], linear[1:])[0, 1] > 0.95
        assert linear[1:].std() == pytest.approx(draws[1:].std(), rel=0.1)
    assert not ap_influence(class_table(matches, truth, 3, 0), 0, truth.num_images).any()
