"""Intervals of a table's rows, from the result files of their runs."""

import json

import pytest

from iou_balanced.reproduction import find_table, report_rows, write_intervals
from iou_balanced.reproduction.runs import run_of

TRUTH = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 90, "height": 90} for i in range(1, 9)],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600}
        for i in range(1, 9)
    ],
}


def finish(folder, seed, found_until):
    """Make the folder that of a run that found the objects of the first images."""
    (folder / "inference").mkdir(parents=True)
    truth = folder / "truth.json"
    truth.write_text(json.dumps(TRUTH))
    box = {"category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9}
    found = [{"image_id": i, **box} for i in range(1, found_until + 1)]
    (folder / "inference/found.json").write_text(json.dumps(found))
    inputs = {"data_set": "x", "ground_truth": str(truth), "detections": "found.json"}
    (folder / "inference/analysis_inputs.json").write_text(json.dumps(inputs))
    record = {"seed": seed, "metrics": {"AP": 12.5 * found_until, "AP50": 12.5 * found_until}}
    (folder / "record.json").write_text(json.dumps(record))


@pytest.fixture
def analyze_rows(tmp_path):
    """Writes the intervals of Table 7 of BOFL; returns the lines and the row "epoch"."""
    table = find_table("bofl/7")

    def run():
        lines = []
        options = {"draws": 40, "permutations": 0, "say": lines.append}
        write_intervals(table.rows, output_dir=tmp_path, profile="full", **options)
        return lines, report_rows(table, output_dir=tmp_path)[1]

    run.folder = run_of(table.row("epoch"), profile="full").folder(tmp_path).parent
    return run


def test_they_are_of_all_seeds_and_made_once(analyze_rows):
    assert analyze_rows()[0] == []  # nothing has finished
    finish(analyze_rows.folder / "seed_0", 0, 4)
    lines, row = analyze_rows()
    assert lines == ["bofl/7/epoch: intervals of seeds 0"]
    one = row.ours["AP"]
    assert one.value == 50 and one.low < 50 < one.high and row.ours["AP50"].low is not None
    assert analyze_rows() == ([], row)
    finish(analyze_rows.folder / "seed_2", 2, 6)
    # Until it is made anew there is none: that of one seed is not that of the mean.
    assert (
        report_rows(find_table("bofl/7"), output_dir=analyze_rows.folder.parents[3])[1]
        .ours["AP"]
        .low
        is None
    )
    lines, row = analyze_rows()
    assert lines == ["bofl/7/epoch: intervals of seeds 0, 2"]
    both = row.ours["AP"]
    assert both.value == 62.5 and both.low < 62.5 < both.high
    finish(analyze_rows.folder / "seed_10", 10, 6)
    assert analyze_rows()[0] == ["bofl/7/epoch: intervals of seeds 0, 2, 10"]


def test_what_cannot_be_analyzed_is_said(analyze_rows):
    finish(analyze_rows.folder / "seed_0", 0, 4)
    (analyze_rows.folder / "seed_0/inference/analysis_inputs.json").unlink()
    lines, row = analyze_rows()
    assert len(lines) == 2 and "no intervals: " in lines[1] and "seed_0" in lines[1]
    assert row.ours["AP"].value == 50 and row.ours["AP"].low is None
