import json

from iou_balanced.analysis.page.training_log import read_training_log, training_parts


def write(path, records):
    path.write_text("\n".join(json.dumps(r) for r in records) + '\n{"iteration": 5, "to')
    return path


def test_curves_and_weights_of_a_resumed_training(tmp_path):
    """Iterations 20 and 30 were lost with the interruption, and done again."""
    log = write(
        tmp_path / "metrics.json",
        [
            {"iteration": 9, "total_loss": 2.0, "loss_cls": 1.5, "class_weight/cat": 1.0},
            {"iteration": 19, "total_loss": 1.0, "bbox/AP": 9.0},
            {"iteration": 29, "total_loss": 0.9, "bbox/AP": 11.0},
            {"iteration": 19, "total_loss": 1.1, "loss_cls": 0.8, "class_weight/cat": 2.5},
            {"iteration": 19, "bbox/AP": 10.0, "class_weight/min": 1.0},
            {"bbox/AP": 12.0, "checkpoint": "model.pth"},
        ],
    )
    records = read_training_log(log)
    assert [r["iteration"] for r in records] == [9, 19]
    assert records[1]["total_loss"] == 1.1 and records[1]["bbox/AP"] == 10.0
    parts = training_parts({"ours": log}, ["ours"])
    assert [c.name for c in parts["charts"]] == ["training_loss", "training_ap"]
    assert "total_loss from 2.00 to 1.10" in parts["charts"][0].alt
    assert "ours from 10.00 to 10.00" in parts["charts"][1].alt
    assert parts["weights"] == [{"run": "ours", "iteration": 20, "rows": [("cat", "2.500")]}]


def test_two_trainings_are_lines_of_one_chart(tmp_path):
    logs = {
        name: write(tmp_path / f"{name}.json", [{"iteration": 0, "total_loss": x, "loss_cls": x}])
        for name, x in (("a", 1.0), ("b", 2.0))
    }
    (chart,) = training_parts(logs, ["a", "b"])["charts"]
    assert chart.alt == "Loss by iteration: a from 1.00 to 1.00; b from 2.00 to 2.00."


def test_no_training(tmp_path):
    assert training_parts({"a": tmp_path / "none.json"}, ["a"]) is None
    (tmp_path / "odd.json").write_text('[1]\n{"iteration": "x"}\n')
    assert read_training_log(tmp_path / "odd.json") == []
