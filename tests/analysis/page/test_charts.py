"""Axes of charts where there is little or nothing to show."""

import json

import matplotlib.axes
import pytest

from iou_balanced.analysis import analyze
from iou_balanced.analysis.page.ap_charts import ap_by_threshold, ap_lost
from iou_balanced.analysis.page.localization_charts import localization_charts
from iou_balanced.analysis.page.training_log import training_parts

from .data import write_truth


@pytest.fixture
def drawn(monkeypatch):
    """(xlim, ylim, texts) of the axes of the charts that are drawn, by title or label."""
    found = {}
    real = matplotlib.axes.Axes.draw

    def draw(axes, renderer):
        texts = [text.get_text() for text in axes.texts]
        found[axes.get_title() or axes.get_xlabel()] = (axes.get_xlim(), axes.get_ylim(), texts)
        real(axes, renderer)

    monkeypatch.setattr(matplotlib.axes.Axes, "draw", draw)
    return found


def test_a_run_that_finds_nothing(tmp_path, drawn):
    """As after a training of a few iterations: no IoU is negative, and 0 is not magnified."""
    truth = write_truth(tmp_path)
    analysis = analyze(truth, {"first": [], "other": []}, draws=10, permutations=0, processes=1)
    ap_by_threshold(analysis), ap_lost(analysis), localization_charts(analysis, "matched")
    assert drawn["IoU threshold"][1] == (0, 1)
    assert drawn["Points of AP50 that mending it alone would give"][0] == (0, 1)
    for title in ("Score by IoU (Fig. 3a)", "Localization (Fig. 3b)"):
        assert drawn[title] == ((0, 1), (0, 1), ["no detections"])
    assert drawn["Calibration of the score against the IoU"][2] == []


def test_the_marker_of_a_single_iteration_is_inside(tmp_path, drawn):
    for name, loss in (("a", 2.0), ("b", 2.2)):
        record = {"iteration": 11, "total_loss": loss, "bbox/AP": 0.0}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    training_parts({name: tmp_path / f"{name}.json" for name in "ab"}, ["a", "b"])
    (left, right), (bottom, top), _ = drawn["Loss"]
    assert left == 0 and right > 12 and bottom == 0 and top >= 1.05 * 2.2
    assert drawn["AP while training"][1] == (0, 1)
