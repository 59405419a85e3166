"""`ClassBalanceHook` in a trainer of one's own."""

import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from iou_balanced.data import ClassCounts
from iou_balanced.engine import ClassBalanceHook, UserError
from iou_balanced.engine.class_balance import lazy_config_key
from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    ClassWeights,
    ConstantSchedule,
    Equalization,
)


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


def test_keys_of_the_config():
    assert lazy_config_key("class_balance") == "model.class_balance"
    assert lazy_config_key("roi_heads.box_predictor.class_balance") == (
        "model.roi_heads.box_predictor.class_balance"
    )
    # The stages of a cascade are a list of another name in the config.
    assert lazy_config_key("roi_heads.box_predictor.2.class_balance") == (
        "model.roi_heads.box_predictors.2.class_balance"
    )
