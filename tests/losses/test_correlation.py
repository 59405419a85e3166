"""Correlation loss and soft ranks; over several processes see `test_across_processes`."""

import math

import pytest
import torch

from iou_balanced.losses import (
    CorrelationLoss,
    IoUBalancedFocalLoss,
    PenaltyReducedFocalLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
    TaskAlignedBCELoss,
    VarifocalLoss,
    correlation_loss,
    sigmoid_focal_loss,
)
from iou_balanced.losses.correlation_coefficients import pearson
from iou_balanced.losses.soft_ranks import soft_ranks

from .test_quality_members import LABELS, OBJECTS, POS_IOU, example

KINDS = ["concordance", "pearson", "spearman"]


def rows_with_scores(scores):
    """Rows of one class with these scores, all positives."""
    p = torch.tensor(scores, dtype=torch.float64)
    logits = (p / (1 - p)).log()[:, None].requires_grad_()
    return logits, torch.zeros(len(scores), dtype=torch.int64)


def value(scores, iou, **settings):
    logits, labels = rows_with_scores(scores)
    pos_iou = torch.tensor(iou, dtype=torch.float64)
    return correlation_loss(logits, labels, pos_iou, reduction="mean", **settings).item()


def test_coefficients_by_hand():
    """Scores 0.2, 0.4, 0.6 and IoUs 0.1 above them: on a line, so that Pearson is 1.

    Both variances and the covariance are 0.04, and the means are 0.1 apart: concordance is
    0.08 / (0.08 + 0.01). Ranks 1, 2, 3 against 1, 3, 2: Spearman 1 - 6 * 2 / (3 * 8) = 0.5.
    """
    assert value([0.2, 0.4, 0.6], [0.3, 0.5, 0.7], kind="pearson") == pytest.approx(0, abs=1e-12)
    assert value([0.2, 0.4, 0.6], [0.3, 0.5, 0.7]) == pytest.approx(1 - 8 / 9)
    assert value([0.2, 0.4, 0.6], [0.3, 0.9, 0.5], kind="spearman") == pytest.approx(0.5)
    # Rising, but on no line.
    rising = ([0.1, 0.2, 0.9], [0.5, 0.6, 0.63])
    assert value(*rising, kind="spearman") == pytest.approx(0)
    assert value(*rising, kind="pearson") > 0.1
    assert value([0.2, 0.4, 0.6], [0.7, 0.5, 0.3], kind="pearson") == pytest.approx(2)


def test_sum_is_that_of_as_many_positives():
    logits, labels = rows_with_scores([0.2, 0.4, 0.6])
    iou = torch.tensor([0.3, 0.5, 0.7]).double()
    total = correlation_loss(logits, labels, iou)
    assert total.item() == pytest.approx(3 / 9)
    mean = correlation_loss(logits, labels, iou, reduction="mean")
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (total, mean)]
    assert grads[0].abs().min() > 1e-3
    torch.testing.assert_close(grads[0], 3 * grads[1])


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind):
    levels = [2, 0, 3]
    assert torch.autograd.gradcheck(
        lambda x: correlation_loss(
            list(x.split(levels, dim=1)), LABELS, POS_IOU, kind=kind, strength=0.3
        ),
        example().requires_grad_(),
    )


def test_at_the_authors_strength_spearman_is_pearson():
    settings = dict(scores=[0.1, 0.15, 0.93, 0.4], iou=[0.5, 0.2, 0.9, 0.1])
    assert value(**settings, kind="spearman", strength=1.0) == pytest.approx(
        value(**settings, kind="pearson"), rel=1e-9
    )


def naive_soft_ranks(values, strength):
    """Decreasing fit by the min-max formula, in place of the pooling of adjacent violators."""
    z, order = (values / strength).sort(descending=True)
    d = z - torch.arange(len(z), 0, -1)
    n = len(d)
    fit = [
        min(max(d[j : k + 1].mean().item() for k in range(i, n)) for j in range(i + 1))
        for i in range(n)
    ]
    ranks = torch.empty_like(z)
    ranks[order] = z - torch.tensor(fit, dtype=z.dtype)
    return ranks


@pytest.mark.parametrize("strength", [1e-3, 0.05, 0.2, 2.0])
def test_soft_ranks(strength):
    torch.manual_seed(0)
    values = torch.rand(9, dtype=torch.float64)
    values[3] = values[5]
    ours = soft_ranks(values, strength)
    torch.testing.assert_close(ours, naive_soft_ranks(values, strength))
    assert ours.sum().item() == pytest.approx(45) and ours[3] == ours[5]
    assert torch.autograd.gradcheck(
        lambda x: soft_ranks(x, strength), torch.rand(6).double().requires_grad_()
    )


def test_soft_ranks_of_values_far_apart_are_ranks():
    values = torch.tensor([0.3, -1.0, 7.0, 0.5]).double()
    torch.testing.assert_close(soft_ranks(values, 0.1), torch.tensor([2.0, 1, 4, 3]).double())
    assert soft_ranks(values[:0], 0.1).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "scores, iou", [([], []), ([0.3], [0.6]), ([0.3, 0.3, 0.3], [0.3, 0.3, 0.3])]
)
def test_without_spread_there_is_no_loss_and_no_gradient(kind, scores, iou):
    logits, labels = rows_with_scores(scores)
    pos_iou = torch.tensor(iou, dtype=torch.float64)
    loss = correlation_loss(logits, labels, pos_iou, kind=kind)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-6) and grad.abs().sum() < 1e-5


def test_equal_ranks_of_many_positives_are_without_spread():
    """Their mean is rounded: the variance that is left is none."""
    ranks, weights = torch.full((7,), 1e6 / 3).double(), torch.ones(7).double()
    assert pearson(ranks, torch.arange(7).double(), weights) == 1


def test_equal_scores_of_unequal_boxes_are_told_apart_by_concordance():
    logits, labels = rows_with_scores([0.3, 0.3, 0.3])
    loss = correlation_loss(logits, labels, torch.tensor([0.2, 0.5, 0.9]).double())
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad[2] < grad[1] < grad[0]  # descent raises the best box's score most


def test_iou_has_gradient_where_asked_only():
    for asked in (False, True):
        logits, labels = rows_with_scores([0.2, 0.4, 0.3])
        iou = torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
        correlation_loss(logits, labels, iou, iou_gradient=asked).backward()
        assert (iou.grad is not None) == asked


def test_class_weights_weigh_pairs():
    """A weight of 0 takes the pair out of means and covariance."""
    logits, labels = rows_with_scores([0.2, 0.4, 0.6, 0.1])
    logits = torch.cat([logits, logits], dim=1)  # two classes
    labels[3] = 1
    iou = torch.tensor([0.3, 0.5, 0.7, 0.9]).double()
    loss = correlation_loss(
        logits, labels, iou, kind="pearson", class_weight=torch.tensor([2.0, 0.0])
    )
    assert loss.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "loss, more",
    [
        (SigmoidFocalLoss(), {}),
        (IoUBalancedFocalLoss(), {}),
        (VarifocalLoss(), {}),
        (TaskAlignedBCELoss(), {"pos_object": OBJECTS}),
    ],
)
def test_module_adds_to_any_loss(loss, more):
    x = example()
    module = CorrelationLoss(loss=loss, weight=0.3, kind="pearson")
    base = loss(x, LABELS, *([POS_IOU] if loss.needs_pos_iou else []), **more)
    expected = base + 0.3 * correlation_loss(x, LABELS, POS_IOU, kind="pearson")
    assert module(x, LABELS, POS_IOU, **more).item() == pytest.approx(expected.item())
    assert module.needs_pos_iou and module.takes_levels
    assert module.needs_pos_object == bool(more)


def test_default_is_focal_loss_and_a_mean_stays_a_mean():
    x = example()
    assert CorrelationLoss(weight=0)(x, LABELS, POS_IOU) == sigmoid_focal_loss(x, LABELS)
    module = CorrelationLoss(loss=SigmoidFocalLoss(reduction="mean"), weight=1)
    expected = sigmoid_focal_loss(x, LABELS, reduction="mean") + correlation_loss(
        x, LABELS, POS_IOU, reduction="mean"
    )
    assert module(x, LABELS, POS_IOU).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    half = example().to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    iou = POS_IOU.to(dtype)
    results = []
    for x, given in ((half, iou), (single, iou.float())):
        loss = CorrelationLoss(loss=VarifocalLoss())(x, LABELS, given)
        assert loss.dtype == torch.float32
        results.append((loss.detach(), torch.autograd.grad(256 * loss, x)[0].float()))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1], rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CorrelationLoss(kind="kendall"), r"`kind` to be one of .*but got 'kendall'"),
        (lambda: CorrelationLoss(weight=-1), r"`weight` to be at least 0, but got -1"),
        (lambda: CorrelationLoss(strength=0), r"`strength` to be finite and above 0, but got 0"),
        (
            lambda: CorrelationLoss(loss=VarifocalLoss(reduction="none")),
            r"`reduction` to be one of \('sum', 'mean'\).*but got 'none'",
        ),
        (
            lambda: CorrelationLoss(loss=SoftmaxCrossEntropyLoss()),
            r"`loss` to be a module with a sigmoid loss .*but got SoftmaxCrossEntropyLoss",
        ),
        (
            lambda: CorrelationLoss(loss=PenaltyReducedFocalLoss()),
            r"`loss` to be .*but got PenaltyReducedFocalLoss",
        ),
        (
            lambda: CorrelationLoss(loss=CorrelationLoss()),
            r"`loss` to be without a correlation loss of its own",
        ),
        (
            lambda: CorrelationLoss()(example(), LABELS, None),
            r"`pos_iou` .*shape \(6,\), but got None",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nan_scores_stay_visible():
    logits, labels = rows_with_scores([0.2, 0.4, 0.3])
    with torch.no_grad():
        logits[1] = math.nan
    for kind in KINDS:
        loss = correlation_loss(logits, labels, torch.tensor([0.2, 0.5, 0.9]), kind=kind)
        assert loss.isnan()
