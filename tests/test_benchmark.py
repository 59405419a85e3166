"""tools/benchmark.py: what it refuses, and how it counts."""

import argparse
import os
import statistics
import sys
import warnings
from pathlib import Path

import pytest
import torch

from iou_balanced.losses.fused import backends

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import benchmark
from benchmark_parts import detectors, evaluation, losses
from benchmark_parts.timing import Timing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("step ssd300", "unknown detector 'ssd300' of `step`: choose from retinanet, fcos"),
        ("detectors yolo", "unknown detector 'yolo' of `detectors`: choose from retinanet"),
        ("loss retinanet", "unknown detector 'retinanet' of `loss`: it takes no detectors"),
        ("step --images 0", "--images: 0: give a number from 1 on"),
        ("loss --anchors -5", "--anchors: -5: give a number from 1 on"),
        ("loss --repeats 0", "--repeats: 0: give a number from 1 on"),
        ("evaluation --evaluation-images 0", "0: give a number from 1 on"),
        ("loss --device cuda:0", "--device: invalid choice: 'cuda:0'"),
        ("slopes --classes 3", "slopes need three sizes each"),
        ("loss --record FILE", "FILE is no folder, and cannot be one"),
        ("loss --record FILE/below", "FILE/below is no folder, and cannot be one"),
    ],
)
def test_arguments_that_make_no_sense(words, message, tmp_path, capsys):
    """Before anything is measured."""
    file = tmp_path / "a_file"
    file.touch()
    with pytest.raises(SystemExit):
        benchmark.parse([word.replace("FILE", str(file)) for word in words.split()])
    assert message.replace("FILE", str(file)) in capsys.readouterr().err


def make_timing(*calls):
    return Timing(statistics.median(calls), 0.0, statistics.median(calls), calls)


def test_a_ratio_and_its_interval_are_of_the_same_rounds():
    base = make_timing(1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    t = make_timing(3.0, 2.0, 8.0, 4.0, 16.0, 64.0)
    # By round 3, 1, 2, 1/2, 1, 2; the medians are 6 and 6.
    assert t.ratio(base) == 1.5
    # Of six calls the least and the largest hold the median but in 2 of 64 cases.
    assert t.ratio_interval(base) == [0.5, 3.0]
    # Of twelve the third from either end: twice P(at most 2 of 12) = 158 / 4096.
    twelve, ones = make_timing(*map(float, range(1, 13))), make_timing(*[1.0] * 12)
    assert twelve.ratio_interval(ones) == [3.0, 10.0]
    # Of five 1 in 16 is left out: there is no such interval.
    assert make_timing(*[2.0] * 5).ratio_interval(make_timing(*[1.0] * 5)) == []


def test_ratios_are_of_processor_time_on_a_cpu():
    t = Timing(median=10.0, spread=0.0, cpu=1.0)
    assert (t.cost("cpu"), t.cost("cuda")) == (1.0, 10.0)


def settings(**values):
    given = {"device": "cpu", "dtype": "float32", "repeats": 1, "anchors": 20, "classes": 4}
    return argparse.Namespace(**given | values)


def test_a_backend_that_cannot_run_has_no_row(monkeypatch, capsys):
    """Its row would be that of the eager backend, which it falls back to."""

    def broken(function):
        def call(*args):
            raise RuntimeError("no compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(backends, "_told", set())
    rows = losses.rows(settings(backends=["eager", "triton"]))
    names = [row[0] for row in rows]
    assert names[:3] == ["fvcore", "fvcore, jit", "torchvision"] and len(names) == 7
    assert all(name.startswith("ours, eager") for name in names[3:])
    assert rows[0][losses.COLUMNS.index("of fvcore")] == 1.0
    assert all(row[losses.COLUMNS.index("of compiled fvcore")] == "-" for row in rows)
    said = capsys.readouterr().err
    assert "targets given: left out: no compiler\n" in said
    assert "ours, triton, plain: left out: iou_balanced: " in said


def test_left_out_is_what_falls_back_or_fails():
    assert not losses.left_out("fine", lambda: warnings.warn("of another", stacklevel=1))
    assert losses.left_out("falls back", lambda: warnings.warn("iou_balanced: no", stacklevel=1))


def test_more_objects_than_classes():
    rows = detectors.benchmark_heat_maps(settings(images=1, size=16, objects=200))
    assert next(row[1] for row in rows) == "authors' formula"


def test_a_scorer_that_is_killed_has_a_row(monkeypatch):
    score = evaluation._in_process

    def killed(connection, row, *args):
        if row == "hotcoco":
            os._exit(9)
        score(connection, row, *args)

    scorers = {"pycocotools": evaluation.SCORERS["pycocotools"], "hotcoco": ("json", "loads")}
    monkeypatch.setattr(evaluation, "SCORERS", scorers)
    monkeypatch.setattr(evaluation, "_in_process", killed)
    rows = evaluation.rows(settings(evaluation_images=3))
    assert rows[0][0] == "pycocotools" and rows[0][3] == 0
    assert rows[1] == ["hotcoco", "ended with status 9", "-", "-"]
