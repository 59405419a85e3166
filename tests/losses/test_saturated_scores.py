"""Each sigmoid loss against its paper's equation in float64, at logits where p is 0 or 1.

Rows of several shapes, K = 1, no positives, none but positives, IoUs of exactly 0 and 1, and dtypes
in which e^-100 is 0. Gradients are compared too: of a wrong and saturated score it is not 0.
"""

import pytest
import torch

from iou_balanced.losses import (
    equalization_loss_v2,
    equalized_focal_loss,
    iou_aware_bce_loss,
    matchability_aware_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
    task_aligned_bce_loss,
    varifocal_loss,
)
from iou_balanced.losses.task_aligned import EPS

ZERO = torch.zeros((), dtype=torch.float64)


def log_p(x):
    return -torch.logaddexp(-x, ZERO)


def p(x):
    return log_p(x).exp()


def bce(x, target):
    return -target * log_p(x) - (1 - target) * log_p(-x)


def distance(x, target):
    """|target - p|, without the rounding of 1 - p near 1."""
    return torch.where(target < 0.5, p(x) - target, (1 - target) - p(-x)).abs()


# Each gets the positives' own logits and classes, the others' logits and classes, IoUs, and what
# there is one of for each class or positive.
def focal(own, classes, rest, columns, iou, more):
    return (0.25 * p(-own) ** 2 * bce(own, 1)).sum() + (0.75 * p(rest) ** 2 * bce(rest, 0)).sum()


def quality(own, classes, rest, columns, iou, more):
    return (distance(own, iou) ** 2 * bce(own, iou)).sum() + (p(rest) ** 2 * bce(rest, 0)).sum()


def varifocal(own, classes, rest, columns, iou, more):
    negative = torch.cat([rest, own[iou == 0]])
    return (iou * bce(own, iou)).sum() + (0.75 * p(negative) ** 2 * bce(negative, 0)).sum()


def matchability(own, classes, rest, columns, iou, more):
    weight = (p(rest) ** 1.5).detach()
    return bce(own, iou**1.5).sum() + (weight * bce(rest, 0)).sum()


def iou_aware(own, classes, rest, columns, iou, more):
    target = (p(own) ** 0.25 * iou**0.75).clamp(min=0.01).detach()
    return bce(own, target).sum() + (p(rest) ** 2 * bce(rest, 0)).sum()


def task_aligned(own, classes, rest, columns, iou, objects):
    metric = p(own).detach() * iou**6
    target = torch.zeros_like(own)
    for one in objects.unique():
        its = objects == one
        target[its] = metric[its] / (metric[its].max() + EPS) * iou[its].max()
    return (distance(own, target) ** 2 * bce(own, target)).sum() + (
        p(rest) ** 2 * bce(rest, 0)
    ).sum()


def equalized(own, classes, rest, columns, iou, ratio):
    gamma = 2 + 8 * (1 - ratio.clamp(0, 1))
    own_terms = 0.25 * gamma[classes] / 2 * p(-own) ** gamma[classes] * bce(own, 1)
    terms = 0.75 * gamma[columns] / 2 * p(rest) ** gamma[columns] * bce(rest, 0)
    return own_terms.sum() + terms.sum()


def equalization_v2(own, classes, rest, columns, iou, ratio):
    negative = 1 / (1 + torch.exp(-12 * (ratio - 0.8)))
    own_terms = (1 + 4 * (1 - negative[classes])) * bce(own, 1)
    return own_terms.sum() + (negative[columns] * bce(rest, 0)).sum()


LOSSES = {
    focal: lambda x, labels, iou, more: sigmoid_focal_loss(x, labels),
    quality: lambda x, labels, iou, more: quality_focal_loss(x, labels, iou),
    varifocal: lambda x, labels, iou, more: varifocal_loss(x, labels, iou),
    matchability: lambda x, labels, iou, more: matchability_aware_loss(x, labels, iou),
    iou_aware: lambda x, labels, iou, more: iou_aware_bce_loss(x, labels, iou),
    task_aligned: lambda x, labels, iou, more: task_aligned_bce_loss(
        x, labels, iou, pos_object=more
    ),
    equalized: lambda x, labels, iou, more: equalized_focal_loss(x, labels, more.float()),
    equalization_v2: lambda x, labels, iou, more: equalization_loss_v2(x, labels, more.float()),
}
TOLERANCES = {torch.float32: 3e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def cases(dtype, seed):
    """(logits in float64 with the values of the dtype, labels, IoUs)."""
    generator = torch.Generator().manual_seed(seed)
    for shape in ((1, 1), (7, 1), (2, 9, 3)):
        num_classes = shape[-1]
        for size in (3.0, 50.0, 100.0):
            x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
            if size > 3:
                x = x.sign() * size
            for low, high in ((-1, num_classes + 1), (num_classes, num_classes + 1), (-1, 0)):
                labels = torch.randint(low, high, shape[:-1], generator=generator)
                yield x.to(dtype).double(), labels
            yield (
                x.to(dtype).double(),
                torch.randint(0, num_classes, shape[:-1], generator=generator),
            )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("naive", LOSSES, ids=lambda f: f.__name__)
def test_equals_the_equation(naive, dtype):
    torch.manual_seed(0)
    for i, (x, labels) in enumerate(cases(dtype, 0)):
        num_classes = x.shape[-1]
        positive = (labels >= 0) & (labels < num_classes)
        count = int(positive.sum())
        iou = torch.rand(count, dtype=torch.float32).double()
        if i % 2:
            iou = iou.round()
        more = torch.arange(count) % 3
        if naive in (equalized, equalization_v2):
            more = torch.linspace(0, 1.25, num_classes).double()

        ours = x.to(dtype).requires_grad_()
        value = LOSSES[naive](ours, labels, iou.float(), more)
        value.backward()

        leaf = x.clone().requires_grad_()
        flat, rows = leaf.reshape(-1, num_classes), labels.reshape(-1)
        is_own = torch.zeros(flat.shape, dtype=torch.bool)
        is_own[positive.reshape(-1), rows[positive.reshape(-1)]] = True
        is_rest = (rows >= 0).unsqueeze(1) & ~is_own
        columns = torch.arange(num_classes).expand(flat.shape)[is_rest]
        expected = naive(
            flat[is_own], rows[positive.reshape(-1)], flat[is_rest], columns, iou, more
        )
        (expected + 0 * leaf.sum()).backward()

        torch.testing.assert_close(value.double(), expected, rtol=3e-5, atol=1e-6)
        torch.testing.assert_close(ours.grad.double(), leaf.grad, rtol=TOLERANCES[dtype], atol=1e-6)
