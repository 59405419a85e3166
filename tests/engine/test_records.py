"""metrics.json and TensorBoard's files of runs that are broken off."""

import json
from pathlib import Path

import pytest

from iou_balanced.engine import main
from iou_balanced.engine.records import RecordWriter, append_record, cut_metrics, set_metrics_aside
from iou_balanced.engine.trainer import Trainer

from .helpers import make_args, read_metrics
from .runs import records, scalars


def write(path: Path, *lines, tail=b""):
    path.write_bytes(b"".join(json.dumps(x).encode() + b"\n" for x in lines) + tail)
    return path


def iterations(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


def test_what_the_resumed_run_records_again_is_left_out(tmp_path):
    lines = [{"iteration": i, "total_loss": 1.0} for i in (9, 19, 29)]
    path = write(tmp_path / "metrics.json", *lines, {"iteration": 19, "bbox/AP": 3.0})
    kept = cut_metrics(path, 20)
    assert iterations(path) == [9, 19, 19] and kept[-1]["bbox/AP"] == 3.0


@pytest.mark.parametrize(
    "tail", [b'{"iteration": 9, "total', b'{"iteration": 9}', b"\0" * 40, b"\xff\n"]
)
def test_a_torn_line_is_left_out(tmp_path, tail):
    """Also one that only lacks its end, to which the next record would be glued."""
    path = write(tmp_path / "metrics.json", {"iteration": 8}, tail=tail)
    assert cut_metrics(path, 10) == [{"iteration": 8}]
    assert path.read_text() == '{"iteration": 8}\n'


@pytest.mark.parametrize("tail", [b"", b'{"iteration": 9, "total'])
def test_a_record_has_a_line_of_its_own(tmp_path, tail):
    path = write(tmp_path / "metrics.json", {"iteration": 8}, tail=tail)
    append_record(path, {"bbox/AP": 2.0})
    assert path.read_bytes().splitlines()[-1] == b'{"bbox/AP": 2.0}'
    append_record(tmp_path / "new.json", {"bbox/AP": 2.0})
    assert (tmp_path / "new.json").read_text() == '{"bbox/AP": 2.0}\n'


def test_evaluations_of_other_checkpoints_stay(tmp_path):
    other = {"iteration": 90, "bbox/AP": 1.0, "checkpoint": "model_best.pth"}
    path = write(tmp_path / "metrics.json", other, {"iteration": 30, "total_loss": 1.0})
    cut_metrics(path, 10)
    assert iterations(path) == [90]


def test_the_evaluation_at_the_end_of_a_shorter_run_stays(tmp_path):
    lines = [{"iteration": 9, "total_loss": 1.0}, {"iteration": 10, "bbox/AP": 2.0}]
    path = write(tmp_path / "metrics.json", *lines)
    cut_metrics(path, 10, keep_evaluation=True)
    assert iterations(path) == [9, 10]
    cut_metrics(path, 10)
    assert iterations(path) == [9]


def test_records_without_checkpoint_are_set_aside(tmp_path):
    path = write(tmp_path / "metrics.json", {"iteration": 3, "total_loss": 1.0})
    set_metrics_aside(path)
    assert not path.exists() and iterations(tmp_path / "metrics.json.1") == [3]
    write(path, {"iteration": 4, "total_loss": 1.0})
    set_metrics_aside(path)
    assert iterations(tmp_path / "metrics.json.2") == [4]
    write(path, {"iteration": 3, "bbox/AP": 1.0, "checkpoint": "other.pth"})
    set_metrics_aside(path)
    assert path.exists()


OPTS = ["train.seed=1", "train.max_iter=7", "train.checkpointer.period=3", "train.log_period=2"]
OPTS += ["train.eval_period=3", "dataloader.train.num_workers=0"]


def test_an_evaluation_that_a_kill_has_cut_short_is_made_up_for(tmp_path, monkeypatch):
    """It counts for model_best.pth, and stands in the records once; TensorBoard as metrics.json."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(make_args(opts=[*OPTS, f"train.output_dir={whole}"]))
    from iou_balanced.engine import train

    test, calls = train.do_test, []

    def killed_in_the_first(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return test(*args, **kwargs)

    monkeypatch.setattr(train, "do_test", killed_in_the_first)
    args = make_args(opts=[*OPTS, f"train.output_dir={broken}"])
    with pytest.raises(KeyboardInterrupt):
        main(args)
    assert not (broken / "model_best.pth").exists()
    args.resume = True
    main(args)
    assert len(calls) == 4  # the cut one, and those after iterations 2, 5 and 6
    assert records(broken) == records(whole)
    assert (broken / "model_best.json").read_text() == (whole / "model_best.json").read_text()
    for tag in ("bbox/AP", "total_loss"):
        assert sorted(scalars(broken, tag)) == sorted(scalars(whole, tag))
    # A finished run that is resumed evaluates once more, and records nothing twice.
    main(args)
    assert records(broken) == records(whole)


def test_smoothed_values_go_on(tmp_path, monkeypatch):
    """A median of up to 20 values, also of those before the checkpoint."""
    losses = iter([9.0, 9.0, 9.0, 1.0, 1.0])
    monkeypatch.setattr(Trainer, "_write_metrics", _write_scalar(losses))
    opts = ["train.max_iter=4", "train.log_period=1", "train.checkpointer.period=3"]
    opts += ["dataloader.evaluator=null", "train.best_checkpoint.metric=null", "train.seed=1"]
    main(make_args(opts=[*opts, "train.max_iter=3", f"train.output_dir={tmp_path}"]))
    main(make_args(opts=[*opts, f"train.output_dir={tmp_path}"], resume=True))
    assert read_metrics(tmp_path)[3]["total_loss"] == 9.0  # of 9, 9, 9, 1; alone it would be 1


def _write_scalar(values):
    def write_metrics(self, *args, **kwargs):
        self.storage.put_scalar("total_loss", next(values))

    return write_metrics


def test_a_checkpoint_without_the_records_state_goes_on(tmp_path, monkeypatch):
    """Those of 0.1 have none; whether a value is smoothed then says the model that puts it."""
    opts = ["train.log_period=1", "train.eval_period=2", f"train.output_dir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "state_dict", lambda self: {})
        main(make_args(opts=[*opts, "train.max_iter=2"]))
    main(make_args(opts=[*opts, "train.max_iter=4"], resume=True))
    written = read_metrics(tmp_path)
    assert [i for i, record in written.items() if "num_pos_anchors" in record] == [0, 1, 2, 3]
    assert sum("bbox/AP" in record for record in written.values()) == 2
