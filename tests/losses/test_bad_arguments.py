"""Each argument of each loss, weighting and schedule refuses nonsense in a line that names it."""

import inspect
import math

import pytest
import torch

from iou_balanced import losses
from iou_balanced.modeling.normalizer import LossNormalizer

NEEDS = {
    "ClassBalance": {"num_classes": 3, "schedule": None},
    "BalanceOriented": {"num_classes": 3, "schedule": None},
    "ClassBalanced": {"num_classes": 3},
    "Equalization": {"num_classes": 3},
}
KINDS = {
    name: kind
    for name, kind in vars(losses).items()
    if inspect.isclass(kind) and issubclass(kind, (torch.nn.Module, losses.ConstantSchedule))
}
KINDS["LinearSchedule"] = losses.LinearSchedule
KINDS["LossNormalizer"] = LossNormalizer
NEVER = [math.nan, -math.inf, "abc", "", [], [1, "abc"], {"a": 1}, object(), 1j, torch.ones(2)]
# Outside of what any argument can be, but for those that say otherwise.
ALSO = [-1, math.inf, True, 1e9]
LARGE = ("beta", "intensity", "floor", "weight", "initial", "total_epochs")
LARGE += ("strength", "steepness", "midpoint", "boost")
TAKES = {
    "alpha": {-1},  # below 0: no weighting
    "VarifocalLoss.alpha": {1e9},
    "MatchabilityAwareLoss.alpha": {1e9},
    **{key: {1e9} for key in LARGE},
    **{key: {True} for key in ("normalize", "per_sample", "across_processes")},
    **{key: {True} for key in ("allow_other_counts", "detached", "iou_weighted", "iou_gradient")},
}


def arguments():
    for name, kind in sorted(KINDS.items()):
        for argument in inspect.signature(kind).parameters:
            if argument != "names":  # of `ClassStatistics`: any
                yield pytest.param(name, argument, id=f"{name}.{argument}")


@pytest.mark.parametrize(("name", "argument"), arguments())
def test_it_is_named(name, argument):
    takes = TAKES.get(f"{name}.{argument}", TAKES.get(argument, ()))
    for value in [*NEVER, *(x for x in ALSO if x not in takes)]:
        with pytest.raises(ValueError, match=argument) as e:
            KINDS[name](**{**NEEDS.get(name, {}), argument: value})
        assert "\n" not in str(e.value).replace(repr(value), "")


def test_there_are_many():
    assert len(list(arguments())) > 70


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, "x"], [1, 2, -1], [1, 2, math.nan], "abc"])
@pytest.mark.parametrize("name", ["BalanceOriented", "ClassBalanced", "Equalization"])
def test_counts_of_classes(name, counts):
    argument = "image_counts" if name == "Equalization" else "class_counts"
    with pytest.raises(ValueError, match="counts") as e:
        KINDS[name](**NEEDS[name], **{argument: counts})
    assert "\n" not in str(e.value)
