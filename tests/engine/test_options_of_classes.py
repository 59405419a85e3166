"""Arguments of losses, class weights and the trainer that make no sense, refused by each class."""

import math

import pytest
import torch
from torch import nn

from iou_balanced.engine import Trainer, UserError, load_config
from iou_balanced.engine.checks import instantiate_model

from .helpers import CONFIG, ROOT, tiny_config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.cls_loss.alpha=7"],
            r"^model\.cls_loss.*: .*`alpha` to be in \[0, 1\], or below 0",
        ),
        (["model.cls_loss.alpha=nan"], r"^model\.cls_loss.*: .*`alpha` to be in .* but got nan"),
        (["model.cls_loss.eta=inf"], r"^model\.cls_loss.*: .*`eta` to be finite, but got inf"),
        (["model.cls_loss.eta=nan"], r"`eta` to be at least 0, but got nan"),
        (["model.cls_loss.eta=1e6"], r"`eta` to be at most 100, .* but got 1000000\.0"),
        (["model.cls_loss.eta=abc"], r"`eta` to be at least 0, but got 'abc'"),
        (["model.cls_loss.gamma=-1"], r"`gamma` to be at least 0, but got -1"),
        (["model.cls_loss.gamma=nan"], r"`gamma` to be at least 0, but got nan"),
        (["model.cls_loss.across_processes=maybe"], r"`across_processes` to be True or False"),
        (["model.box_loss.lam=inf"], r"^model\.box_loss.*: .*`lam` to be finite, but got inf"),
        (["model.box_loss.lam=nan"], r"`lam` to be at least 0, but got nan"),
        (["model.box_loss.beta=inf"], r"`beta` to be finite, but got inf"),
        (["model.box_loss.weight=nan"], r"`weight` to be at least 0, but got nan"),
        (["model.box_loss.weight=true"], r"`weight` to be at least 0, but got True"),
        (["model.box_loss.normalize=maybe"], r"`normalize` to be True or False, but got 'maybe'"),
        (["model.box_loss.measure_from=9"], r"`weight` to be 'auto' with measure_from, .* 3\.049"),
        (
            ["model.box_loss.weight=auto", "model.box_loss.measure_iterations=0"],
            r"^model\.box_loss.*: .*`measure_iterations` to be a whole number from 1 on",
        ),
        (["model.loss_normalizer.initial=-1"], r"^model\.loss_normalizer.*: .*`initial` to be a n"),
        (["model.loss_normalizer.momentum=x"], r"`momentum` to be in \[0, 1\), but got 'x'"),
    ],
)
def test_options_of_a_loss(overrides, message):
    with pytest.raises(UserError, match=message):
        instantiate_model(load_config(CONFIG, overrides))


@pytest.mark.parametrize("name", ["cls_loss", "box_loss"])
def test_a_number_in_the_place_of_a_loss(name):
    cfg = tiny_config()
    cfg.model[name] = 5
    with pytest.raises(UserError, match=rf"^model\.{name}=5: .*`{name}` to be a module, but got 5"):
        instantiate_model(cfg)


BOFL = str(ROOT / "configs/Digits/centernet_small_long_tail_bofl.py")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.class_balance.intensity=inf", r"`intensity` to be finite, but got inf"),
        ("model.class_balance.intensity=x", r"`intensity` to be at least 0, but got 'x'"),
        ("model.class_balance.eta=nan", r"`eta` to be in \[0, 1\], but got nan"),
        ("model.class_balance.eta=x", r"`eta` to be in \[0, 1\], but got 'x'"),
        ("model.class_balance.floor=x", r"`floor` to be greater than 0, but got 'x'"),
        ("model.class_balance.floor=inf", r"`floor` to be greater than 0, but got inf"),
        ("model.class_balance.allow_other_counts=maybe", r"`allow_other_counts` to be True or"),
        ("model.class_balance.num_classes=0", r"`num_classes` to be a whole number from 1 on"),
        ("model.class_balance.schedule=abc", r"`schedule` to be None or to have `progress`, as L"),
        ("model.class_balance.schedule.total_epochs=inf", r"`total_epochs` to be finite"),
        ("model.class_balance.schedule.total_epochs=x", r"`total_epochs` to be at least 0, but"),
        ("model.class_balance.schedule.deferred_epochs=-1", r"`deferred_epochs` to be at least 0"),
        ("model.cls_loss.alpha=inf", r"`alpha` to be finite, but got inf"),
        ("model.cls_loss.beta=1e9", r"`beta` to be at most 100, "),
    ],
)
def test_options_of_class_weights_and_heat_maps(override, message):
    with pytest.raises(UserError, match=rf"^model\.\S+: Expected argument {message}"):
        instantiate_model(load_config(BOFL, [override]))


class TestTrainer:
    """For those who make one by themselves."""

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            (
                {"clip_max_norm": -1},
                "`clip_max_norm` to be a finite number above 0, or None, .* -1",
            ),
            ({"clip_max_norm": 0}, "`clip_max_norm` to be a finite number above 0, .* but got 0"),
            ({"clip_max_norm": math.inf}, "`clip_max_norm` to be a finite number .* got inf"),
            ({"clip_max_norm": math.nan}, "`clip_max_norm` to be a finite number .* got nan"),
            ({"clip_max_norm": "1"}, "`clip_max_norm` to be a finite number .* got '1'"),
            ({"clip_norm_type": 0.5}, "`clip_norm_type` to be a number from 1 on, but got 0.5"),
            ({"clip_norm_type": math.nan}, "`clip_norm_type` to be a number from 1 on"),
            ({"accumulation_steps": True}, "`accumulation_steps` to be a whole number from 1 on"),
        ],
    )
    def test_refusals(self, kwargs, message):
        model = nn.Linear(1, 1)
        with pytest.raises(ValueError, match=f"^Expected argument {message}"):
            Trainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)

    def test_the_largest_entry_is_a_norm(self):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = Trainer(model, [], optimizer, clip_max_norm=1, clip_norm_type=math.inf)
        assert trainer.clip_max_norm == 1
