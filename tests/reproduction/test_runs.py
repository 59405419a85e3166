"""Which runs the rows need, where they lie, and their commands."""

from pathlib import Path

import pytest

from iou_balanced.engine import load_config
from iou_balanced.reproduction import (
    RecordError,
    all_rows,
    all_tables,
    command,
    find_table,
    plan_runs,
)
from iou_balanced.reproduction.runs import quote, rows_of_run, slug

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("profile", ["full", "quick"])
def test_every_row_has_one_run(profile):
    runs = plan_runs(all_rows(), profile=profile)
    ids = [row for run in runs for row in run.rows]
    assert sorted(ids) == sorted(row.id for row in all_rows() if row.config)
    assert len({run.name for run in runs}) == len(runs) < len(ids)


def test_rows_that_are_the_same_training_share_it():
    runs = plan_runs([row for table in all_tables()[7:] for row in table.rows])
    (ours,) = [r for r in runs if (r.config, r.overrides) == ("COCO/centernet_MNV2_140e_bofl", ())]
    tables = {row.rpartition("/")[0] for row in ours.rows}
    assert tables == {f"bofl/{n}" for n in (1, 2, 4, 5, 6, 7, 8, 10)}
    assert rows_of_run(ours) == list(ours.rows)


def test_seeds():
    runs = plan_runs(find_table("bofl/7").rows, seeds=3)
    assert [run.seed for run in runs] == [0, 1, 2, 0, 1, 2]
    assert runs[1].name == "full/COCO/centernet_MNV2_140e_bofl/update-iteration/seed_1"
    assert runs[4].name == "full/COCO/centernet_MNV2_140e_bofl/as_written/seed_1"


def test_a_run_comes_after_the_one_that_it_starts_from():
    rows = find_table("iou/6").rows
    names = [run.config for run in plan_runs(rows)]
    assert names[:2] == ["COCO/retinanet_R_50_FPN_1x", "Cityscapes/retinanet_R_50_FPN"]
    assert len(names) == 6
    # It is the run of other tables' rows.
    both = plan_runs([*find_table("iou/4").rows, *rows])
    assert [run.rows for run in both if run.config == names[0]] == [("iou/4/R_50",)]
    quick = [run.config for run in plan_runs(rows, profile="quick")]
    assert not [name for name in quick if name.startswith("COCO")]


def test_wrong_arguments():
    with pytest.raises(RecordError, match="no profile 'fast'; there are full, quick"):
        plan_runs([], profile="fast")
    with pytest.raises(RecordError, match="0 seeds: give a number from 1 on"):
        plan_runs([], seeds=0)


def test_folders_of_overrides_can_be_read():
    cb = "model.class_balance"
    assert slug([]) == "as_written"
    assert slug([f"{cb}.eta=1", f"{cb}.schedule=null"]) == "eta-1_schedule-null"
    target = f"{cb}.schedule._target_=iou_balanced.losses.ConstantSchedule"
    assert slug([target]) == "ConstantSchedule"
    assert slug(["model.x=[1, 2]", "model.norm="]) == "x-_1__2__norm-"


def test_commands_are_those_of_train_net(tmp_path):
    output = tmp_path / "a folder = of 'mine'"
    (run,) = plan_runs([find_table("iou/3").row("eta_1.4")])
    words = command(run, output, num_gpus=4, resume=True)
    assert words[:5] == [
        "tools/train_net.py",
        "--config-file",
        "configs/COCO/retinanet_R_50_FPN_1x_600_iou_balanced_cls.py",
        "--num-gpus",
        "4",
    ]
    assert words[5:8] == ["--resume", "model.cls_loss.eta=1.4", "train.seed=0"]
    cfg = load_config(str(ROOT / words[2]), words[6:])
    assert cfg.train.output_dir == str(run.folder(output)) and cfg.model.cls_loss.eta == 1.4


@pytest.mark.parametrize(
    "value",
    ["plain/a-b_c.1", "a b", 'q"uo"te', "back\\slash", "end\\", 'x\\"y', "a=b,c", "it's"],
)
def test_quoted_values_are_read_back(value):
    config = str(ROOT / "configs/Digits/retinanet_small.py")
    assert load_config(config, [f"train.output_dir={quote(value)}"]).train.output_dir == value
