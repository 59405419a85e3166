"""Kinds of errors by hand, and mended results evaluated with pycocotools."""

import numpy as np
import pytest

from iou_balanced.analysis import Detections
from iou_balanced.analysis.matching import match
from iou_balanced.analysis.tide import KINDS, find_errors, mended
from iou_balanced.analysis.weighted_ap import weighted_ap

from .reference import pycocotools_ap, random_data
from .simulation import make_truth

TRUTH = make_truth([0, 0, 0], [0, 1, 0], [[0, 0, 20, 20], [100, 0, 20, 20], [200, 0, 20, 20]], 2, 2)
# (class, box, score, kind or None)
FOUND = [
    (0, [0, 0, 20, 20], 0.9, None),
    (0, [0, 0, 20, 19], 0.8, "duplicate"),
    (0, [100, 0, 20, 20], 0.7, "classification"),
    (0, [100, 0, 20, 18], 0.75, "classification"),
    (1, [110, 0, 20, 20], 0.6, "localization"),  # half of it: IoU 1/3
    (1, [10, 0, 20, 20], 0.5, "both"),
    (1, [300, 300, 20, 20], 0.4, "background"),
]


def columns(found):
    classes, boxes, scores = (np.array(x) for x in zip(*[f[:3] for f in found], strict=True))
    return np.zeros(len(found), int), classes, boxes, scores


def gain(truth, matches, errors, kind):
    ones = list(np.ones((truth.num_images, 1)))
    tables = mended(truth, matches, errors, kind)
    return np.array([weighted_ap(table, ones)[0, 0] for table in tables])


def test_kinds_by_hand():
    matches = match(TRUTH, Detections.from_columns(*columns(FOUND), 2))
    errors = find_errors(TRUTH, matches)
    kinds = [None if k < 0 else KINDS[k] for k in errors.kind.tolist()]
    order = np.argsort(-matches.detections.score)
    expected = [f[3] for f in sorted(FOUND, key=lambda f: -f[2])]
    assert [kinds[i] for i in order] == expected
    assert errors.missed.tolist() == [False, False, True]
    assert errors.counts() == {
        "classification": 2,
        **dict.fromkeys(("localization", "both", "duplicate", "background", "missed"), 1),
    }


def test_gains_by_hand():
    matches = match(TRUTH, Detections.from_columns(*columns(FOUND), 2))
    errors = find_errors(TRUTH, matches)
    # Class 0: found first, then false ones, one of two objects: recall 0.5, 51 of 101 levels.
    assert gain(TRUTH, matches, errors, None) == pytest.approx([51 / 101, 0])
    # The better one of the two becomes class 1's object, before its two false ones.
    assert gain(TRUTH, matches, errors, "classification") == pytest.approx([51 / 101, 1])
    assert gain(TRUTH, matches, errors, "localization") == pytest.approx([51 / 101, 1])
    assert gain(TRUTH, matches, errors, "missed") == pytest.approx([1, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_mended_results_equal_pycocotools(kind):
    """Detections moved, taken away and relabelled, and evaluated again."""
    truth, found = random_data(11, crowds=0.1, num_images=60)
    matches = match(truth, Detections.from_columns(*found, truth.num_classes))
    errors = find_errors(truth, matches)
    detections = matches.detections
    kept = np.ones(len(detections), bool)
    category, boxes = detections.category.copy(), detections.boxes.copy()
    best = {}
    for d in np.flatnonzero(errors.kind == KINDS.index(kind)):
        kept[d] = False
        g = int(errors.target[d])
        if g >= 0 and (g not in best or detections.score[d] > detections.score[best[g]]):
            best[g] = d
    for g, d in best.items():
        kept[d], category[d], boxes[d] = True, truth.category[g], truth.boxes[g]
    mended_truth = truth
    if kind == "missed":
        left = ~errors.missed
        mended_truth = make_truth(
            *(truth.image[left], truth.category[left], truth.boxes[left]),
            *(truth.num_images, truth.num_classes),
            crowd=truth.crowd[left],
            area=truth.area[left],
        )
    data = tuple(x[kept] for x in (detections.image, category, boxes, detections.score))
    expected = pycocotools_ap(mended_truth, data)[0, 0]
    np.testing.assert_allclose(gain(truth, matches, errors, kind), expected, atol=2e-2)
    assert errors.counts()[kind] > 0
