"""Class weights from the training set to the log, and through a resume."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from iou_balanced.data import ClassCounts
from iou_balanced.engine import UserError, load_config, main
from iou_balanced.engine.scaling import scale_to_batch_size
from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    Equalization,
    inverse_frequency_weights,
)
from iou_balanced.reproduction import papers

from .helpers import ROOT, TINY, make_args, read_metrics

LONG_TAIL = str(ROOT / "configs/Digits/retinanet_small_long_tail.py")
BOFL = str(ROOT / "configs/Digits/retinanet_small_long_tail_bofl.py")
FCOS_BOFL = str(ROOT / "configs/Digits/fcos_small_long_tail_bofl.py")
CB = "model.class_balance"
# Four epochs of two iterations, the first one deferred: lambda 0, 0, 1/2, 1.
SCHEDULE = [
    f"{CB}.schedule.total_epochs=4",
    f"{CB}.schedule.deferred_epochs=1",
    "datasets.train.num_images=16",
    "train.max_iter=8",
    "train.checkpointer.period=4",
    "train.seed=3",
]


def rows_of_the_records():
    """{row: (whose config, overrides)}; of rows that override the same keys the first one."""
    rows, seen = {}, []
    for row in papers()["bofl"].rows:
        keys = {x if "_target_" in x else x.partition("=")[0] for x in row.overrides}
        if keys and keys not in seen:
            seen.append(keys)
            is_balance = all(x.startswith(CB) for x in row.overrides)
            rows[row.id] = ("bofl" if is_balance else "centernet", list(row.overrides))
    for variant in papers()["bofl"].variants:
        rows[variant.name] = (variant.base, list(variant.overrides))
    return rows


ROWS = rows_of_the_records()


def train(folder, *opts, config=BOFL, **kwargs):
    main(make_args(config, opts=[f"train.output_dir={folder}", *opts], **kwargs))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bofl")
    train(folder, *SCHEDULE)
    return folder


def counts_of(folder):
    return ClassCounts.load(folder / "class_counts.json")


def test_counts_of_the_training_set(run):
    counts = counts_of(run)
    assert counts.num_images == 16 and counts.class_names == tuple("0123456789")
    assert counts.instances[0] > counts.instances[-1] > 0
    dataset = DatasetCatalog.get(counts.name)
    assert sum(counts.instances) == sum(len(x["annotations"]) for x in dataset)


def test_weights_follow_the_schedule(run):
    alpha = inverse_frequency_weights(counts_of(run).instances)
    records = read_metrics(run)
    for iteration, progress in enumerate([0, 0, 0, 0, 0.5, 0.5, 1, 1]):
        record = records[iteration]
        least = 1 + progress * (alpha - 1)  # if no image shows the class
        for i, a in enumerate(least.tolist()):
            weight = record[f"class_weight/{i}"]
            assert 0 < weight <= a + 1e-6
            if i == 9:  # so rare that most images do not show it
                assert weight >= a * (1 + progress * (0.8 - 1)) ** 3
        assert record["class_weight/min"] <= record["class_weight/max"] <= max(least) + 1e-6
    assert records[3]["class_weight/min"] == records[3]["class_weight/max"] == 1


def test_metrics_of_tail_and_head(run):
    metrics = read_metrics(run)[8]
    assert {"bbox/AP_tail", "bbox/AP_head"} <= set(metrics)
    assert (run / "inference" / "class_metrics.csv").exists()


def test_the_table_is_printed(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "iou_balanced"):
        train(tmp_path, *SCHEDULE, f"{CB}.eta=1", "train.max_iter=4")
    text = "\n".join(r.getMessage() for r in caplog.records)
    assert "class_balance at the end of the training" in text
    for word in ("instances", "images", "alpha", "final weight"):
        assert word in text


class TestResume:
    @pytest.fixture(scope="class")
    def half(self, tmp_path_factory):
        """The schedule of eight iterations, left after four."""
        folder = tmp_path_factory.mktemp("half")
        train(folder, *SCHEDULE)
        for path in folder.glob("model_*.pth"):
            if path.name != "model_0000003.pth":
                path.unlink()
        (folder / "metrics.json").unlink()
        return folder

    def test_goes_on_with_the_weights(self, half, run):
        train(half, *SCHEDULE, resume=True)
        resumed, whole = read_metrics(half), read_metrics(run)
        assert min(resumed) == 3  # whose evaluation is made up for
        for iteration in range(4, 8):
            for key in [k for k in whole[iteration] if k.startswith("class_weight/")]:
                assert resumed[iteration][key] == pytest.approx(whole[iteration][key]), key

    def test_other_data(self, run):
        other = [*SCHEDULE, "datasets.train.imbalance=20", "train.max_iter=10"]
        before = (run / "class_counts.json").read_text()
        with pytest.raises(UserError, match=r"other class_counts.*allow_other_counts=True"):
            train(run, *other, resume=True)
        assert (run / "class_counts.json").read_text() == before
        train(run, *other, f"{CB}.allow_other_counts=True", resume=True)
        assert counts_of(run).instances != json.loads(before)["classes"]


def test_the_records_have_the_rows():
    assert len(ROWS) >= 20
    assert {base for base, _ in ROWS.values()} == {"bofl", "baseline", "centernet"}


def belongs(row, detector, is_bofl):
    """CenterNet's classification loss is of another kind, and has overrides of its own."""
    base, overrides = ROWS[row]
    if base == "centernet":
        return detector == "centernet"
    if detector == "centernet" and any(x.startswith("model.cls_loss") for x in overrides):
        return False
    return (base == "bofl") == is_bofl


CASES = [
    (row, detector, is_bofl)
    for row in ROWS
    for detector in ("retinanet", "fcos", "centernet")
    for is_bofl in (True, False)
    if belongs(row, detector, is_bofl)
]


@pytest.mark.parametrize(("row", "detector", "is_bofl"), CASES)
def test_rows_of_the_records(row, detector, is_bofl, tmp_path):
    """They train, and change what they say."""
    _, overrides = ROWS[row]
    config = FCOS_BOFL.replace("fcos", detector)
    config = config if is_bofl else config.replace("_bofl", "")
    model = instantiate(load_config(config, overrides).model)
    if is_bofl:
        kinds = {cls.__name__: cls for cls in (ClassBalanced, Equalization)}
        named = [
            cls
            for name, cls in kinds.items()
            if f"{CB}._target_" in str(overrides) and name in str(overrides)
        ]
        assert [type(model.class_balance)] == (named or [BalanceOriented])
    else:
        assert model.class_balance is None
    # By name and value, but for a prior, which is a bias.
    plain = instantiate(load_config(config, []).model)
    assert repr(model) != repr(plain)
    if detector != "fcos":
        short = ["train.max_iter=2", "train.best_checkpoint.metric=null"]
        train(tmp_path / "run", *overrides, *short, config=config)
        assert read_metrics(tmp_path / "run")[1]["total_loss"] > 0


def test_epochs_follow_the_linear_scaling_rule():
    """Half the batch, twice the iterations: an epoch has twice as many, too."""
    starts = []
    for batch in (8, 4):
        cfg = load_config(BOFL, [f"dataloader.train.total_batch_size={batch}"])
        scale_to_batch_size(cfg)
        length, schedule = cfg.train.max_iter, instantiate(cfg.model).class_balance.schedule
        values = [schedule.progress(i, length) for i in range(length)]
        assert values[-1] == 1
        starts.append(next(i for i, value in enumerate(values) if value > 0))
    assert starts == [500, 1000]  # the fifth of twelve epochs, of 1,500 and 3,000 iterations


def test_evaluation_needs_no_training_set(run, tmp_path):
    train(
        tmp_path,
        "dataloader.train.dataset.names=nowhere",
        f"train.init_checkpoint={run}/model_final.pth",
        eval_only=True,
    )
    (line,) = (tmp_path / "metrics.json").read_text().splitlines()
    assert "bbox/AP_tail" in json.loads(line)  # the counts lie beside the checkpoint


class TestCountsFoundByChance:
    """Nobody asked for AP_tail and AP_head: they never stand in the way of an evaluation."""

    def evaluate(self, run, folder, *opts):
        train(folder, f"train.init_checkpoint={run}/model_final.pth", *opts, eval_only=True)
        (line,) = (folder / "metrics.json").read_text().splitlines()
        return json.loads(line)

    def test_of_other_classes(self, run, tmp_path, caplog):
        shutil.copy(run / "model_final.pth", tmp_path)
        other = [f"digit {i}" for i in range(10)]
        ClassCounts(other, [1] * 10, [1] * 10, 9).save(tmp_path / "class_counts.json")
        with caplog.at_level(logging.INFO, "iou_balanced"):
            metrics = self.evaluate(tmp_path, tmp_path / "out")
        assert "bbox/AP" in metrics and "bbox/AP_tail" not in metrics
        assert "class_counts.json is left out" in caplog.text

    def test_of_a_test_set_whose_classes_are_known_when_it_was_read(self, run, tmp_path):
        """It is one that Detectron2 reads when it is first asked for it."""
        digits = MetadataCatalog.get(instantiate(load_config(BOFL, TINY).datasets.test))
        content = json.loads(Path(digits.json_file).read_text())

        def evaluate():
            name = f"later_{tmp_path.name}_{len(list(tmp_path.iterdir()))}"
            json_file = tmp_path / f"{name}.json"
            json_file.write_text(json.dumps(content))
            register_coco_instances(name, {}, str(json_file), digits.image_root)
            names = f"dataloader.test.dataset.names={name}"
            return self.evaluate(run, tmp_path / "out", names)

        assert "bbox/AP_tail" in evaluate()
        for category in content["categories"]:
            category["name"] = f"digit {category['name']}"
        with pytest.raises(UserError, match="has 10 classes that the model does not have: 'digit "):
            evaluate()

    def test_of_the_checkpoint_first(self, run, tmp_path):
        """In the output folder lies another training's."""
        tails = []
        for images in ([1] * 10, [90] * 9 + [1]):
            other = ClassCounts(
                class_names=[str(i) for i in range(10)],
                instances=images,
                images=images,
                num_images=90,
            )
            other.save(tmp_path / "class_counts.json")
            self.evaluate(run, tmp_path)
            (tmp_path / "metrics.json").unlink()
            table = (tmp_path / "inference/class_metrics.csv").read_text()
            tails.append([line for line in table.splitlines() if ",tail," in line])
        assert tails[0] == tails[1] and tails[0]
        counts = counts_of(run)
        rarest = min(zip(counts.instances, counts.class_names, strict=True))
        assert any(line.startswith(f"{rarest[1]},{rarest[0]},") for line in tails[0])


def test_logged_with_the_losses(tmp_path):
    train(tmp_path, *SCHEDULE, "train.log_period=4", "train.best_checkpoint.metric=null")
    records = read_metrics(tmp_path)
    for iteration in (3, 7):
        assert {"total_loss", "class_weight/max", "class_weight/9"} <= set(records[iteration])


class TestClassWithoutInstance:
    OPTS = ("datasets.train.num_images=1", "dataloader.train.total_batch_size=1")

    def test_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"no instance of '.*model\.class_balance\.floor=1"):
            train(tmp_path, *self.OPTS)

    def test_floor(self, tmp_path):
        train(tmp_path, *self.OPTS, f"{CB}.floor=1", "train.best_checkpoint.metric=null")

    def test_does_not_matter_without_class_weights(self, tmp_path):
        train(tmp_path, *self.OPTS, "train.best_checkpoint.metric=null", config=LONG_TAIL)
        assert 0 in counts_of(tmp_path).instances


def test_data_set_of_the_counts_is_not_registered_twice():
    cfg = load_config(BOFL, TINY)
    names = [instantiate(cfg.datasets.train) for _ in range(2)]
    assert names[0] == names[1] and MetadataCatalog.get(names[0]).thing_classes
