"""Class weights from the training set to the log, and through a resume."""

import json
import logging

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import SimpleTrainer
from torch import nn

from iou_balanced.data import ClassCounts
from iou_balanced.engine import ClassBalanceHook, UserError, load_config, main
from iou_balanced.engine.scaling import scale_to_batch_size
from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    ClassWeights,
    ConstantSchedule,
    Equalization,
    inverse_frequency_weights,
)

from .helpers import ROOT, make_args, read_metrics

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
# The rows of Table 1, 10 and 12, as the README lists them.
ROWS = {
    "WF": [f"{CB}.eta=1", f"{CB}.schedule=null"],
    "WF+LS": [f"{CB}.eta=1"],
    "BB": [f"{CB}.intensity=0", f"{CB}.schedule=null"],
    "BB+LS": [f"{CB}.intensity=0"],
    "eta 0.7": [f"{CB}.eta=0.7"],
    "deferred 1": [f"{CB}.schedule.deferred_epochs=1"],
    "DRW": [f"{CB}.schedule._target_=iou_balanced.losses.ConstantSchedule"],
    "each iteration": [f"{CB}.schedule.update=iteration"],
    "CBL": [f"{CB}._target_=iou_balanced.losses.ClassBalanced", f"{CB}.schedule=null"],
    "CBL+linear": [f"{CB}._target_=iou_balanced.losses.ClassBalanced"],
    "CBL+approx": [f"{CB}._target_=iou_balanced.losses.ClassBalanced", f"{CB}.beta=null"],
    "CBL+class-wise": [
        f"{CB}._target_=iou_balanced.losses.ClassBalanced",
        f"{CB}.beta=null",
        f"{CB}.per_sample=False",
    ],
    "EQL": [f"{CB}._target_=iou_balanced.losses.Equalization", f"{CB}.schedule=null"],
    "EQL (bg. 50%)": [
        f"{CB}._target_=iou_balanced.losses.Equalization",
        f"{CB}.schedule=null",
        f"{CB}.background_weight=0.5",
    ],
    "intensity 5%": [f"{CB}.intensity=0.05"],
    "sigmoid": ["model.cls_loss.gamma=0", "model.cls_loss.alpha=-1", "model.head.prior_prob=0.005"],
    "quality focal": ["model.cls_loss._target_=iou_balanced.losses.QualityFocalLoss"],
    "both papers": ["model.cls_loss._target_=iou_balanced.losses.IoUBalancedFocalLoss"],
}


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
        (folder / "last_checkpoint").write_text("model_0000003.pth")
        (folder / "metrics.json").unlink()
        return folder

    def test_goes_on_with_the_weights(self, half, run):
        train(half, *SCHEDULE, resume=True)
        resumed, whole = read_metrics(half), read_metrics(run)
        assert min(resumed) == 4
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


@pytest.mark.parametrize("config", [BOFL, FCOS_BOFL], ids=["retinanet", "fcos"])
@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_tables_are_overrides(row, config, tmp_path):
    """They train, and change what they say."""
    kinds = {"CBL": ClassBalanced, "EQL": Equalization}
    cfg = load_config(config, ROWS[row])
    model = instantiate(cfg.model)
    kind = kinds.get(row[:3], BalanceOriented)
    assert type(model.class_balance) is kind
    assert repr(model) != repr(instantiate(load_config(config, []).model))
    if config == BOFL:
        train(tmp_path / "run", *ROWS[row], "train.max_iter=2", "train.best_checkpoint.metric=null")
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


class Model(nn.Module):
    """As little as a trainer of one's own needs."""

    def __init__(self, class_balance):
        super().__init__()
        self.class_balance, self.weight = class_balance, nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, batch):
        labels = torch.tensor([[0, 1]])
        weights = self.class_balance(list(labels), labels)
        self.seen.append(weights)
        return {"loss": self.weight * 0}


def own_trainer(class_balance, counts=None, iterations=4):
    model = Model(class_balance)
    trainer = SimpleTrainer(model, [0] * 100, torch.optim.SGD(model.parameters(), 0.1))
    trainer.register_hooks([ClassBalanceHook(model, counts, period=1)])
    trainer.train(0, iterations)
    return model, trainer


COUNTS = ClassCounts(
    class_names=("cat", "dog"), instances=(300, 3), images=(50, 3), num_images=60, name="pets"
)


def inverse_frequency_by_sample(**kwargs):
    return ClassBalanced(beta=None, **kwargs)


class TestOwnTrainer:
    def test_weights_in_force(self):
        schedule = ConstantSchedule(total_epochs=4, deferred_epochs=2)
        model, trainer = own_trainer(
            BalanceOriented(num_classes=2, eta=1, schedule=schedule), COUNTS
        )
        assert [w[0].tolist() for w in model.seen[:3:2]] == [
            [1, 1],
            [0.5050000000000000, 50.5],
        ] or [round(x, 3) for x in model.seen[2][0].tolist()] == [0.505, 50.5]
        logged = trainer.storage.latest()
        assert logged["class_weight/dog"][0] == pytest.approx(50.5)
        assert logged["class_weight/min"][0] == pytest.approx(0.505)

    def test_tables_apart_have_their_kind_in_the_name(self):
        model, trainer = own_trainer(Equalization(num_classes=2, tail_ratio=0.05), COUNTS)
        assert isinstance(model.seen[0], ClassWeights)
        logged = trainer.storage.latest()
        assert logged["class_weight_other/dog"][0] == 0
        assert logged["class_weight_background/min"][0] == 1
        _, trainer = own_trainer(ClassBalanced(num_classes=2), COUNTS)
        assert trainer.storage.latest()["class_weight_row/background"][0] == 1

    def test_counts_of_the_config(self):
        own_trainer(ClassBalanced(num_classes=2, class_counts=[3, 3]), counts=None)

    def test_no_counts(self):
        with pytest.raises(UserError, match=r"class_balance needs the class counts"):
            own_trainer(ClassBalanced(num_classes=2))

    def test_other_classes(self):
        with pytest.raises(UserError, match=r"data set pets: .*3 classes, but got 2"):
            own_trainer(ClassBalanced(num_classes=3), COUNTS)

    @pytest.mark.parametrize("kind", [BalanceOriented, inverse_frequency_by_sample])
    @pytest.mark.parametrize("intensity, warned", [(1.0, True), (0.05, False)])
    def test_extreme_weights(self, kind, intensity, warned, caplog):
        extreme = ClassCounts(
            class_names=("cat", "dog"), instances=(900, 1), images=(60, 1), num_images=60
        )
        schedule = ConstantSchedule()
        own_trainer(BalanceOriented(num_classes=2, intensity=intensity, schedule=schedule), extreme)
        # 901 / 2 = 450.5, and (60 - 1) / (450.5 - 1) = 0.131
        found = [r for r in caplog.records if "an intensity of 0.13" in r.getMessage()]
        assert bool(found) == warned
        assert not found or "model.class_balance.intensity=" in found[0].getMessage()


def test_data_set_of_the_counts_is_not_registered_twice():
    cfg = load_config(BOFL, [])
    names = [instantiate(cfg.datasets.train) for _ in range(2)]
    assert names[0] == names[1] and MetadataCatalog.get(names[0]).thing_classes
