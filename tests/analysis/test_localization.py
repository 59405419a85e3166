import math
import time

import numpy as np
import pytest
from pycocotools.coco import COCO

from iou_balanced.analysis.localization import (
    IOU_EDGES,
    IOU_THRESHOLDS,
    fraction_above_iou,
    match_detections,
    mean_score_by_iou,
    rank_correlation,
)

from ..evaluation.helpers import coco_dict


def coco_of(data):
    coco = COCO()
    coco.dataset = data
    coco.createIndex()
    return coco


def result(image_id, category_id, score, *bbox):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


TRUTH = coco_dict(
    [
        [(0, 0, 0, 10, 10), (0, 20, 0, 10, 10), (1, 0, 0, 10, 10)],
        [(0, 0, 0, 10, 10)],  # annotation 4, a crowd
    ],
    category_ids=(3, 17),
    crowd={4},
)


def test_match_by_hand():
    results = [
        # Half of the first box: 50 / 100. Touches nothing else.
        result(100, 3, 0.9, 0, 0, 5, 10),
        # x from 5 to 25 meets both boxes of class 3: inter 50, union 200 + 100 - 50 = 250 each.
        result(100, 3, 0.8, 5, 0, 20, 10),
        # The same place as a box of class 3, but of class 17, whose box is elsewhere.
        result(100, 17, 0.7, 20, 0, 10, 10),
        # Exact, for the second time: a box may be the best of several detections.
        result(100, 3, 0.6, 20, 0, 10, 10),
        result(100, 3, 0.05, 20, 0, 10, 10),  # at the floor: stays
        result(100, 3, 0.049, 20, 0, 10, 10),  # below it: left out
        result(101, 3, 0.5, 0, 0, 10, 10),  # only a crowd is there
        result(101, 17, 0.4, 0, 0, 10, 10),  # no box of the class in the image
    ]
    scores, ious = match_detections(coco_of(TRUTH), results)
    assert scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.05, 0.5, 0.4]
    assert ious == pytest.approx([0.5, 0.2, 0, 1, 1, 0, 0])
    assert len(match_detections(coco_of(TRUTH), results, score_thresh=0.65).scores) == 3


def test_match_reads_the_predictions_of_the_evaluator():
    # Classes count from 0 there: 0 is category 3, 1 is category 17.
    predictions = [
        {"image_id": 100, "instances": [result(100, 1, 0.7, 0, 0, 10, 10)]},
        {"image_id": 101, "instances": []},
    ]
    coco = coco_of(TRUTH)
    assert match_detections(coco, predictions).ious == pytest.approx([1])
    swapped = match_detections(coco, predictions, category_ids=(17, 3))
    assert swapped.ious == pytest.approx([1])
    moved = [{"image_id": 100, "instances": [result(100, 1, 0.7, 20, 0, 10, 10)]}]
    assert match_detections(coco, moved).ious == pytest.approx([0])
    assert match_detections(coco, moved, category_ids=(17, 3)).ious == pytest.approx([1])


def test_match_nothing():
    matched = match_detections(coco_of(TRUTH), [])
    assert matched.scores.shape == matched.ious.shape == (0,)
    without = {k: v for k, v in TRUTH.items() if k != "annotations"}
    assert match_detections(coco_of(without), [result(100, 3, 0.9, 0, 0, 5, 10)]).ious == [0]


def test_match_is_quick_at_the_scale_of_coco():
    rng = np.random.default_rng(0)
    data = coco_dict(
        [
            [(int(c), *rng.uniform(1, 200, 4).tolist()) for c in rng.integers(0, 80, 7)]
            for _ in range(500)
        ],
        category_ids=tuple(range(1, 81)),
    )
    results = [
        result(100 + i, int(c), 0.5, *box)
        for i in range(500)
        for c, box in zip(
            rng.integers(1, 81, 100), rng.uniform(1, 200, (100, 4)).tolist(), strict=True
        )
    ]
    coco = coco_of(data)
    start = time.perf_counter()
    assert len(match_detections(coco, results).ious) == 50_000
    # A tenth of COCO val, so that all of it takes well under a minute.
    assert time.perf_counter() - start < 5


def test_mean_score_by_hand():
    assert IOU_EDGES == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
    # 0.5 opens the first range; 0.55 opens the second; 1 closes the last; 0.49 is in none.
    ious = [0.49, 0.5, 0.54, 0.55, 0.96, 1.0]
    scores = [0.9, 0.2, 0.4, 0.6, 0.7, 1.0]
    mean, count = mean_score_by_iou(scores, ious)
    assert count.tolist() == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert mean[[0, 1, 9]] == pytest.approx([0.3, 0.6, 0.85])
    assert np.isnan(mean[2:9]).all()
    mean, count = mean_score_by_iou(scores, ious, edges=[0, 0.5, 1])
    assert count.tolist() == [1, 5] and mean == pytest.approx([0.9, 2.9 / 5])
    assert np.isnan(mean_score_by_iou([], []).mean_score).all()


def test_mean_score_refuses():
    with pytest.raises(ValueError, match=r"same shape \(D,\), but got \(2,\) and \(1,\)"):
        mean_score_by_iou([0.1, 0.2], [0.5])
    with pytest.raises(ValueError, match="`edges` to ascend"):
        mean_score_by_iou([0.1], [0.5], edges=[0.5, 0.5])


def test_fraction_above_by_hand():
    # "Higher": an IoU that equals the threshold does not count.
    assert fraction_above_iou([0.2, 0.5, 0.7, 0.9], [0.5, 0.6, 0.9]).tolist() == [0.5, 0.5, 0]
    assert fraction_above_iou([0.6], IOU_THRESHOLDS).tolist() == [1, 1] + [0] * 8
    assert np.isnan(fraction_above_iou([], [0.5])).all()


def test_rank_correlation():
    assert rank_correlation([0.1, 0.2, 0.9], [0.5, 0.6, 0.61]) == pytest.approx(1)
    assert rank_correlation([0.1, 0.2, 0.9], [0.9, 0.6, 0.5]) == pytest.approx(-1)
    # Ranks 1 2.5 2.5 4 and 2 1 3.5 3.5, less their mean 2.5: -1.5 0 0 1.5 and -0.5 -1.5 1 1.
    # Products 0.75 + 1.5 = 2.25, norms sqrt(4.5) and sqrt(0.25 + 2.25 + 2) = sqrt(4.5): 0.5.
    assert rank_correlation([0.1, 0.5, 0.5, 0.8], [0.4, 0.2, 0.7, 0.7]) == pytest.approx(0.5)
    for scores, ious in [([], []), ([0.5], [0.5]), ([0.5, 0.5], [0.1, 0.2])]:
        assert math.isnan(rank_correlation(scores, ious))
