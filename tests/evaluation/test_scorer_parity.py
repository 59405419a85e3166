"""A scorer whose numbers are not pycocotools' is refused."""

import math

import pytest
from pycocotools.cocoeval import COCOeval

from iou_balanced.evaluation import metrics
from iou_balanced.evaluation.scorer_parity import largest_difference


class Different(COCOeval):
    """The area of objects that have none in the file is 0: everything is small."""

    def accumulate(self, p=None):
        super().accumulate(p)
        self.eval["precision"][:, :, 1] *= 0.99


class NoNumbers(COCOeval):
    def accumulate(self, p=None):
        super().accumulate(p)
        self.eval["recall"][:] = -1


def fast_scorer(monkeypatch, cls):
    faster = pytest.importorskip("faster_coco_eval")
    monkeypatch.setattr(faster, "COCOeval_faster", cls)
    monkeypatch.setattr(metrics, "_equal", set())


def test_the_reference_is_equal_to_itself_and_others_are_not():
    assert largest_difference(COCOeval) == 0
    assert 0 < largest_difference(Different) <= 0.01
    assert largest_difference(NoNumbers) == math.inf


def test_faster_coco_eval_is_equal():
    faster = pytest.importorskip("faster_coco_eval")
    assert largest_difference(faster.COCOeval_faster) < 1e-9


def test_one_that_differs_is_refused(monkeypatch):
    fast_scorer(monkeypatch, Different)
    with pytest.raises(ValueError, match=r"scorer='faster-coco-eval' is refused: .* pycocotools"):
        metrics.find_scorer("faster-coco-eval")
    with pytest.warns(UserWarning, match="is refused"):
        assert metrics.find_scorer("auto") is COCOeval
    assert metrics.find_scorer("pycocotools") is COCOeval
