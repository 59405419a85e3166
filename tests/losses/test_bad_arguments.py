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
            if argument not in ("names", "of"):  # of `ClassStatistics`: any text
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


FUNCTIONS = [
    losses.sigmoid_focal_loss,
    losses.balance_oriented_focal_loss,
    losses.iou_balanced_focal_loss,
    losses.penalty_reduced_focal_loss,
    losses.iou_balanced_penalty_reduced_focal_loss,
    losses.equalized_focal_loss,
    losses.equalization_loss_v2,
    losses.varifocal_loss,
    losses.matchability_aware_loss,
    losses.iou_aware_bce_loss,
    losses.quality_focal_loss,
    losses.task_aligned_bce_loss,
    losses.correlation_loss,
    losses.seesaw_loss,
    losses.iou_balanced_cross_entropy,
    losses.iou_balanced_smooth_l1_loss,
    losses.iou_balanced_terms,
]
GIVEN = {
    "gt_labels": torch.tensor([[0, 2, 3], [1, -1, 3]]),
    "gt_heatmap": torch.tensor([1.0, 0.5, 0.0, 1.0, 1.0, 0.2]).reshape(1, 3, 2, 1),
    "pos_iou": torch.tensor([0.2, 0.9, 0.5]),
    "pos_object": torch.arange(3),
    "gradient_ratio": torch.ones(3),
    "class_counts": torch.ones(3),
    "class_weight": torch.ones(3),
    "pred_deltas": torch.randn(3, 4),
    "gt_deltas": torch.randn(3, 4),
    "terms": torch.rand(3, 4),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_number_of_a_function_is_named(function):
    parameters = inspect.signature(function).parameters
    given = {name: GIVEN[name] for name in parameters if name in GIVEN}
    if "pred_logits" in parameters:
        columns = 4 if function in (losses.seesaw_loss, losses.iou_balanced_cross_entropy) else 3
        logits = torch.randn(2, 3, columns)
        given["pred_logits"] = [logits] if columns == 4 else logits
        if "gt_heatmap" in parameters:
            given["pred_logits"] = torch.randn(1, 3, 2, 1)
    assert function(**given).isfinite().all()
    numbers = [k for k, p in parameters.items() if type(p.default) is float and k != "weight"]
    for number in numbers:
        for value in (math.nan, -math.inf, "abc"):
            if (number, value) != ("alpha", -math.inf):  # below 0: no weighting
                with pytest.raises(ValueError, match=f"`{number}` to be"):
                    function(**given, **{number: value})
    for flag in {"detached", "iou_weighted", "iou_gradient"} & set(parameters):
        with pytest.raises(ValueError, match=f"`{flag}` to be True or False"):
            function(**given, **{flag: "no"})


def test_sums_over_processes_are_the_default_of_modules_alone():
    for name, x in vars(losses).items():
        if inspect.isfunction(x) or name in KINDS:
            parameters = inspect.signature(x).parameters
            if "across_processes" in parameters:
                assert parameters["across_processes"].default is (name in KINDS), name
