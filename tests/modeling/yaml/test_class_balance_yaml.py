"""MODEL.CLASS_BALANCE, for users of yaml files."""

import inspect

import pytest
from detectron2.config import CfgNode, get_cfg

from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    ConstantSchedule,
    Equalization,
    LinearSchedule,
)
from iou_balanced.modeling import add_class_balance_config
from iou_balanced.modeling.yaml.class_balance import class_balance_from_config

from ..detector_mixin import check_finite, make_input, training_step
from .test_yaml import build, small_yaml

KINDS = (BalanceOriented, ClassBalanced, Equalization)
SCHEDULES = (LinearSchedule, ConstantSchedule)


def make(text):
    """What stands in the yaml file's MODEL.CLASS_BALANCE, for three classes."""
    cfg = get_cfg()
    add_class_balance_config(cfg)
    cfg.merge_from_other_cfg(CfgNode.load_cfg(f"MODEL: {{CLASS_BALANCE: {{{text}}}}}"))
    return class_balance_from_config(cfg, 3)


def arguments(kind):
    return set(inspect.signature(kind).parameters) - {"num_classes", "class_counts", "image_counts"}


def test_a_key_for_every_argument():
    cfg = get_cfg()
    add_class_balance_config(cfg)
    keys = {key.lower() for key in cfg.MODEL.CLASS_BALANCE} - {"name"}
    assert keys == set().union(*map(arguments, (*KINDS, *SCHEDULES)))


@pytest.mark.parametrize("text", ["", "NAME: ''", "NAME: '', ETA: 0.9, SCHEDULE: linear"])
def test_none(text):
    assert make(text) is None
    assert class_balance_from_config(get_cfg(), 3) is None


@pytest.mark.parametrize(
    "text, expected",
    [
        ("NAME: BalanceOriented, SCHEDULE: ''", BalanceOriented(num_classes=3, schedule=None)),
        (
            "NAME: BalanceOriented, SCHEDULE: linear",
            BalanceOriented(num_classes=3, schedule=LinearSchedule()),
        ),
        ("NAME: ClassBalanced", ClassBalanced(num_classes=3)),
        ("NAME: Equalization", Equalization(num_classes=3)),
        (
            "NAME: Equalization, SCHEDULE: constant",
            Equalization(num_classes=3, schedule=ConstantSchedule()),
        ),
        (
            "NAME: BalanceOriented, ETA: 1, INTENSITY: 0.05, COUNT_OVER: process, "
            "COUNTED: locations, HAT: power, FLOOR: 2, SCHEDULE: linear, TOTAL_EPOCHS: 12, "
            "DEFERRED_EPOCHS: 3, UPDATE: iteration, READING: next",
            BalanceOriented(
                num_classes=3,
                eta=1,
                intensity=0.05,
                count_over="process",
                counted="locations",
                hat="power",
                floor=2,
                schedule=LinearSchedule(
                    total_epochs=12, deferred_epochs=3, update="iteration", reading="next"
                ),
            ),
        ),
        (
            "NAME: ClassBalanced, BETA: 0.99, NORMALIZE: False, PER_SAMPLE: False, "
            "INTENSITY: 0.5, FLOOR: 1.5, SCHEDULE: constant, TOTAL_EPOCHS: 12, "
            "DEFERRED_EPOCHS: 0, UPDATE: iteration",
            ClassBalanced(
                num_classes=3,
                beta=0.99,
                normalize=False,
                per_sample=False,
                intensity=0.5,
                floor=1.5,
                schedule=ConstantSchedule(total_epochs=12, deferred_epochs=0, update="iteration"),
            ),
        ),
        ("NAME: ClassBalanced, BETA: 1.0", ClassBalanced(num_classes=3, beta=None)),
        (
            "NAME: Equalization, TAIL_RATIO: 0.1, BACKGROUND_WEIGHT: 0.5",
            Equalization(num_classes=3, tail_ratio=0.1, background_weight=0.5),
        ),
    ],
)
def test_what_the_keys_stand_for(text, expected):
    assert repr(make(text)) == repr(expected)
    assert make(f"{text}, ALLOW_OTHER_COUNTS: True").allow_other_counts
    assert not make(text).allow_other_counts


@pytest.mark.parametrize(
    "text, message",
    [
        ("NAME: Balanced", r"CLASS_BALANCE\.NAME to be one of .*Equalization.*, but got 'Bal"),
        ("NAME: BalanceOriented", r"CLASS_BALANCE: Expected SCHEDULE to be given .* got None"),
        ("NAME: Equalization, SCHEDULE: cosine", r"SCHEDULE to be one of .* but got 'cosine'"),
        ("NAME: ClassBalanced, ETA: 0.8", r"ETA to be None, because NAME 'ClassBalanced' does not"),
        ("NAME: Equalization, INTENSITY: 0.1", r"INTENSITY to be None, because NAME 'Equaliz"),
        (
            "NAME: Equalization, SCHEDULE: constant, READING: last",
            r"READING to be None, because SCHEDULE 'constant' does not read it, but got 'last'",
        ),
        ("NAME: Equalization, TOTAL_EPOCHS: 12", r"TOTAL_EPOCHS to be None, because SCHEDULE ''"),
        ("NAME: BalanceOriented, SCHEDULE: '', ETA: 2.0", r"CLASS_BALANCE: Expected .*`eta`.*2"),
        (
            "NAME: Equalization, SCHEDULE: linear, TOTAL_EPOCHS: 5",
            r"CLASS_BALANCE: Expected argument `total_epochs` .* 5 and 5",
        ),
        # Taken for True otherwise, and 1 for a whole number.
        ("NAME: ClassBalanced, NORMALIZE: 'no!'", r"NORMALIZE to be True or False, but got 'no!'"),
        ("NAME: ClassBalanced, INTENSITY: True", r"INTENSITY to be a number, but got True"),
        ("NAME: BalanceOriented, BETA: 1.0, SCHEDULE: ''", r"BETA to be None, .* but got 1\.0"),
        ("NAME: ClassBalanced, BETA: high", r"BETA to be a number, but got 'high'"),
        (
            "NAME: Equalization, SCHEDULE: linear, TOTAL_EPOCHS: 12.5",
            r"CLASS_BALANCE\.TOTAL_EPOCHS to be a whole number, but got 12\.5",
        ),
        ("NAME: Equalization, SCHEDULE: 3", r"SCHEDULE to be a string, but got 3"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=message):
        make(text)


def test_every_key_has_a_type():
    cfg = get_cfg()
    add_class_balance_config(cfg)
    for key in set(cfg.MODEL.CLASS_BALANCE) - {"NAME"}:
        with pytest.raises(ValueError, match=rf"CLASS_BALANCE\.{key} to be "):
            make(f"NAME: Equalization, {key}: [1]")


def test_retinanet():
    cfg = small_yaml()
    assert build(cfg).class_balance is None  # without the keys
    add_class_balance_config(cfg)
    assert build(cfg).class_balance is None
    cfg.merge_from_list(["MODEL.CLASS_BALANCE.NAME", "Equalization"])
    model = build(cfg)
    assert repr(model.class_balance) == repr(Equalization(num_classes=3))
    model.class_balance.set_class_counts(None, [9, 5, 1])
    check_finite(model, training_step(model, [make_input()]))


def test_the_keys_survive_a_dump(tmp_path):
    cfg = get_cfg()
    add_class_balance_config(cfg)
    cfg.merge_from_list(["MODEL.CLASS_BALANCE.NAME", "Equalization"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    add_class_balance_config(again)
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert again.MODEL.CLASS_BALANCE == cfg.MODEL.CLASS_BALANCE
