"""AP of the PASCAL VOC challenge, worked out by hand."""

import numpy as np
import pytest
from detectron2.evaluation.pascal_voc_evaluation import voc_ap

from iou_balanced.evaluation.voc_metrics import (
    VOC_IOU_THRESHOLDS,
    Detections,
    GroundTruth,
    summarize_voc_ap,
    voc_average_precision,
)


def ground_truth(*objects):
    """(image, box, difficult?) of class 0, or (image, box, difficult, class)."""
    rows = [(*row, *(False, 0)[len(row) - 2 :]) for row in objects]
    images, boxes, difficult, classes = zip(*rows, strict=True) if rows else ((),) * 4
    return GroundTruth(
        np.array(images, dtype=np.int64),
        np.array(classes, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array(difficult, dtype=bool),
    )


def detections(*found, scores=None):
    """(image, box) of class 0 by falling score, or (image, box, class)."""
    rows = [(*row, *(0,)[len(row) - 2 :]) for row in found]
    images, boxes, classes = zip(*rows, strict=True) if rows else ((),) * 3
    return Detections(
        np.array(images, dtype=np.int64),
        np.array(classes, dtype=np.int64),
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.1, len(rows)) if scores is None else np.array(scores),
    )


def ap_at(threshold, truth, found, *, num_classes=1):
    """(11-point, area) of class 0."""
    ap = voc_average_precision(truth, found, num_classes=num_classes, iou_thresholds=[threshold])
    return ap["11point"][0, 0], ap["area"][0, 0]


def box(x, width=10):
    """`width` x 10 pixels."""
    return (x, 20, x + width, 30)


A, B, FAR = box(0), box(100), box(500)


def test_perfect_detections():
    truth, found = ground_truth((1, A), (1, B), (7, A)), detections((7, A), (1, A), (1, B))
    ap = voc_average_precision(truth, found, num_classes=1)
    for metric in ("11point", "area"):
        assert ap[metric].shape == (10, 1)
        np.testing.assert_allclose(ap[metric], 100, rtol=1e-12)


def test_a_false_detection_first_and_a_second_one_of_an_object():
    # Shifted by 1 of 10 pixels: IoU 90 / 110 = 0.818.
    truth = ground_truth((0, A), (0, B))
    found = detections((0, FAR), (0, A), (0, A), (0, box(101)))
    # false, true, false, true: precision 0, 1/2, 1/3, 2/4 at recall 0, 1/2, 1/2, 1.
    # The highest precision from each on is 1/2 throughout.
    assert ap_at(0.8, truth, found) == (pytest.approx(50), pytest.approx(50))
    # false, true, false, false: recall ends at 1/2, precision there 1/2. The area is 1/2 * 1/2,
    # and six of the eleven points (0 to 0.5) have 1/2.
    assert ap_at(0.85, truth, found) == (pytest.approx(600 / 22), pytest.approx(25))

    metrics = voc_average_precision(truth, found, num_classes=1)
    eleven, area = (summarize_voc_ap(metrics[m], ["cat"]) for m in ("11point", "area"))
    # The first at 0.50 to 0.80, the second at 0.85, 0.90 and 0.95.
    assert area["AP"] == area["AP-cat"] == pytest.approx((7 * 50 + 3 * 25) / 10)
    assert eleven["AP"] == pytest.approx((7 * 50 + 3 * 600 / 22) / 10)
    assert [area[f"AP{t}"] for t in (50, 60, 70, 75, 80)] == pytest.approx([50] * 5)
    assert (area["AP90"], eleven["AP90"]) == pytest.approx((25, 600 / 22))


def test_the_metrics_differ_where_precision_falls():
    truth = ground_truth((0, A), (0, B), (1, A), (1, B))
    found = detections((0, A), (0, FAR), (0, B), (1, FAR), (1, box(600)), (1, A))
    # true, false, true, false, false, true of 4: precision 1, 1/2, 2/3, 2/4, 2/5, 3/6 at recall
    # 1/4, 1/4, 1/2, 1/2, 1/2, 3/4; the highest from each on: 1, 2/3, 2/3, 1/2, 1/2, 1/2.
    # Eleven points: 0, 0.1, 0.2 have 1; 0.3, 0.4, 0.5 have 2/3; 0.6, 0.7 have 1/2; others 0.
    eleven = 100 * (3 * 1 + 3 * 2 / 3 + 2 * 1 / 2) / 11
    area = 100 * (1 + 2 / 3 + 1 / 2) / 4
    assert ap_at(0.5, truth, found) == (pytest.approx(eleven), pytest.approx(area))


def test_the_threshold_itself_is_enough():
    # 6 of 10 columns: IoU is 60 / 100, and 0.6 has no exact double.
    truth, found = ground_truth((0, A)), detections((0, box(0, width=6)))
    ap = voc_average_precision(truth, found, num_classes=1)["area"][:, 0]
    assert dict(zip(VOC_IOU_THRESHOLDS.tolist(), ap.tolist(), strict=True)) == {
        t / 100: 100.0 if t <= 60 else 0.0 for t in range(50, 100, 5)
    }
    # Each twentieth: `width` of 20 columns.
    for i, threshold in enumerate(VOC_IOU_THRESHOLDS):
        truth, found = ground_truth((0, box(0, 20))), detections((0, box(0, 10 + i)))
        assert ap_at(threshold, truth, found)[1] == 100
        assert ap_at(threshold + 1e-9, truth, found)[1] == 0


def test_difficult_objects_count_neither_way():
    truth = ground_truth((0, A), (0, B, True), (1, A, True))
    # Two detections of the difficult object come first, the other difficult one is missed.
    found = detections((0, B), (0, B), (0, A))
    assert ap_at(0.5, truth, found) == (pytest.approx(100), pytest.approx(100))
    # Were it an ordinary one: true, false, true of 3, which is (1 + 2/3) / 3.
    easy = truth._replace(difficult=np.array([False, False, False]))
    assert ap_at(0.5, easy, found)[1] == pytest.approx(100 * (1 + 2 / 3) / 3)
    # Half of the difficult one, IoU 0.5: not a detection of it at 0.55, but a false one.
    found = detections((0, box(100, width=5)), (0, A))
    assert ap_at(0.5, truth, found) == (pytest.approx(100), pytest.approx(100))
    assert ap_at(0.55, truth, found) == (pytest.approx(50), pytest.approx(50))


def test_a_detection_belongs_to_what_it_overlaps_most_though_that_is_taken():
    # 20 wide, at 0 and 6. The second detection, at 2, has IoU 18/22 = 0.82 with the object that
    # the first has found, and 16/24 = 0.67 with the other, which stays missed.
    truth = ground_truth((0, box(0, 20)), (0, box(6, 20)))
    found = detections((0, box(0, 20)), (0, box(2, 20)))
    # true, false of 2: recall 1/2 at precision 1; six of the eleven points.
    assert ap_at(0.5, truth, found) == (pytest.approx(600 / 11), pytest.approx(50))
    # And where both overlap equally, to the first: an object and a difficult one at one place.
    truth = ground_truth((0, A), (0, A, True))
    assert ap_at(0.5, truth, detections((0, A)))[1] == 100
    assert ap_at(0.5, ground_truth((0, A, True), (0, A)), detections((0, A)))[1] == 0


def test_classes_and_images_are_apart():
    truth = ground_truth((0, A, False, 0), (0, B, False, 1), (1, B, False, 0))
    found = detections((0, A, 1), (1, A, 0), (0, B, 0), (0, B, 1))
    ap = voc_average_precision(truth, found, num_classes=3)
    # Class 0: the right place in another image, then that of class 1. Class 1: false, then true.
    assert ap["area"][0].tolist() == [
        0,
        pytest.approx(50),
        pytest.approx(float("nan"), nan_ok=True),
    ]
    metrics = summarize_voc_ap(ap["area"], ["a", "b", "c"])
    assert metrics["AP"] == pytest.approx(25)  # class 2 has no object, and no say
    assert np.isnan(metrics["AP-c"])
    assert list(metrics) == (
        ["AP", "AP50", "AP60", "AP70", "AP75", "AP80", "AP90", "AP-a", "AP-b", "AP-c"]
    )


def test_a_class_of_difficult_objects_only_is_undefined():
    ap = voc_average_precision(ground_truth((0, A, True)), detections((0, A)), num_classes=1)
    assert np.isnan(ap["area"]).all() and np.isnan(ap["11point"]).all()
    assert all(np.isnan(x) for x in summarize_voc_ap(ap["area"], ["cat"]).values())


def test_nothing_detected_and_nothing_there():
    assert ap_at(0.5, ground_truth((0, A)), detections()) == (0, 0)
    assert np.isnan(ap_at(0.5, ground_truth(), detections((0, A)))).all()


def test_equal_scores_go_by_their_order():
    truth = ground_truth((0, A))
    first_false = detections((0, FAR), (0, A), scores=[0.5, 0.5])
    first_true = detections((0, A), (0, FAR), scores=[0.5, 0.5])
    assert ap_at(0.5, truth, first_false)[1] == 50
    assert ap_at(0.5, truth, first_true)[1] == 100


def test_scores_that_differ_in_the_fourth_decimal_are_told_apart():
    truth = ground_truth((0, A))
    found = detections((0, FAR), (0, A), scores=[0.99991, 0.99992])
    assert ap_at(0.5, truth, found)[1] == 100


def test_recall_is_counted_and_not_rounded():
    # 3 of 10 objects: recall 0.3 reaches four of the eleven points. In floating point 0.3 is less
    # than the third multiple of 0.1, and other code misses the point.
    truth = ground_truth(*((i, A) for i in range(10)))
    found = detections(*((i, A) for i in range(3)))
    assert ap_at(0.5, truth, found)[0] == pytest.approx(400 / 11)
    recall, precision = np.array([0.1, 0.2, 0.3]), np.ones(3)
    assert voc_ap(recall, precision, use_07_metric=True) == pytest.approx(3 / 11)
    for number in range(11):
        found = detections(*((i, A) for i in range(number)))
        points = number + 1 if number else 0
        assert ap_at(0.5, truth, found)[0] == pytest.approx(100 * points / 11)


def test_boxes_that_are_not_finite_or_turned_round_are_false():
    nan, inf = float("nan"), float("inf")
    for bad in [(nan, 20, 10, 30), (-inf, -inf, inf, inf), (10, 30, 0, 20), (5, 25, 5, 25)]:
        ap = ap_at(0.5, ground_truth((0, A)), detections((0, bad), (0, A)))
        assert ap == (pytest.approx(50), pytest.approx(50))
