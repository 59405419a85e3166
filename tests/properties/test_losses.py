"""What every loss promises, whatever the numbers: finite, not below 0, and as its parts say."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from iou_balanced.losses import (
    BalanceOriented,
    GIoULoss,
    IoUBalancedFocalLoss,
    IoUBalancedSmoothL1Loss,
    QualityFocalLoss,
    SigmoidFocalLoss,
    SmoothL1Loss,
    effective_number_weights,
    inverse_frequency_weights,
    iou_ratio_weights,
    linear_schedule,
)

shares = st.floats(0, 1, width=32)
numbers = st.floats(-1e4, 1e4, width=32)


@st.composite
def batches(draw):
    """logits (R, K), labels (R,) and an IoU for each positive."""
    rows, classes = draw(st.integers(0, 6)), draw(st.integers(1, 4))
    logits = draw(st.lists(numbers, min_size=rows * classes, max_size=rows * classes))
    labels = draw(st.lists(st.integers(-1, classes), min_size=rows, max_size=rows))
    positives = sum(0 <= x < classes for x in labels)
    ious = draw(st.lists(shares, min_size=positives, max_size=positives))
    return (
        torch.tensor(logits, dtype=torch.float32).reshape(rows, classes).requires_grad_(),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(ious, dtype=torch.float32),
    )


@given(batches(), st.sampled_from([0.0, 0.5, 2.0]), shares)
def test_focal_losses_are_finite_and_not_negative(batch, gamma, alpha):
    logits, labels, ious = batch
    for loss in (
        SigmoidFocalLoss(alpha=alpha, gamma=gamma)(logits, labels),
        IoUBalancedFocalLoss(alpha=alpha, gamma=gamma)(logits, labels, ious),
        QualityFocalLoss()(logits, labels, ious),
    ):
        (grad,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and loss >= 0 and grad.isfinite().all()
        assert (grad[labels == -1] == 0).all()  # ignored rows


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(batch, random):
    logits, labels, ious = batch
    loss = IoUBalancedFocalLoss()(logits.double(), labels, ious.double())
    order = list(range(len(labels)))
    random.shuffle(order)
    positive = [i for i, x in enumerate(labels.tolist()) if 0 <= x < logits.shape[1]]
    place = {row: i for i, row in enumerate(positive)}
    moved = torch.tensor([place[i] for i in order if i in place], dtype=torch.int64)
    again = IoUBalancedFocalLoss()(logits.double()[order], labels[order], ious.double()[moved])
    torch.testing.assert_close(again, loss)


@given(batches())
def test_eq_4_keeps_the_sum_of_the_positives(batch):
    """And with equal IoUs it is the plain loss."""
    logits, labels, ious = batch
    plain = SigmoidFocalLoss()(logits.double(), labels)
    equal = torch.full_like(ious, 0.5).double()
    torch.testing.assert_close(IoUBalancedFocalLoss()(logits.double(), labels, equal), plain)
    balanced = IoUBalancedFocalLoss()(logits.double(), labels, ious.double())
    torch.testing.assert_close(balanced, plain, rtol=1e-6, atol=1e-9)


@given(st.lists(st.tuples(shares, st.floats(0, 100, width=32)), min_size=1, max_size=6))
def test_ratio_weights_keep_the_sum(pairs):
    ious = torch.tensor([iou for iou, _ in pairs], dtype=torch.float64)
    terms = torch.tensor([term for _, term in pairs], dtype=torch.float64)
    weights = iou_ratio_weights(terms, ious, 1.5)
    assert weights.isfinite().all() and (weights >= 0).all()
    torch.testing.assert_close((weights * terms).sum(), terms.sum(), rtol=1e-6, atol=1e-9)


deltas = st.lists(st.tuples(*[st.floats(-100, 100, width=32)] * 4), min_size=1, max_size=4)


@given(deltas, deltas, st.sampled_from([0.0, 0.11, 1.0]))
def test_smooth_l1_is_between_its_limits(first, second, beta):
    """|x| - beta / 2 <= smooth L1 <= |x|."""
    size = min(len(first), len(second))
    a, b = (torch.tensor(x[:size], dtype=torch.float64) for x in (first, second))
    loss = SmoothL1Loss(beta=beta, reduction="none")(a, b)
    distance = (a - b).abs()
    assert (loss <= distance + 1e-9).all() and (loss >= distance - beta / 2 - 1e-9).all()
    ious = torch.ones(size, dtype=torch.float64)  # of weight 1
    balanced = IoUBalancedSmoothL1Loss(beta=beta, lam=1.5, weight=1.0)(a, b, ious)
    torch.testing.assert_close(balanced, loss.sum())


coordinates = st.integers(0, 50)


@given(*[st.tuples(coordinates, coordinates, st.integers(1, 50), st.integers(1, 50))] * 2)
def test_giou_is_symmetric_and_in_0_2(first, second):
    a, b = (torch.tensor([[x, y, x + w, y + h]]).double() for x, y, w, h in (first, second))
    loss = GIoULoss()(a, b)
    assert -1e-9 <= loss <= 2 and loss == GIoULoss()(b, a)
    moved = torch.tensor([7.0, 3, 7, 3])
    torch.testing.assert_close(GIoULoss()(a + moved, b + moved), loss)
    assert GIoULoss()(a, a).abs() < 1e-6


counts = st.lists(st.integers(1, 10**6), min_size=1, max_size=8)


@given(counts, st.integers(2, 100))
def test_class_weights_fall_with_the_count_and_not_with_the_scale(numbers_of, factor):
    for weigh in (inverse_frequency_weights, lambda n: effective_number_weights(n, 0.999)):
        weights = weigh(numbers_of)
        assert weights.isfinite().all() and (weights > 0).all()
        order = sorted(range(len(numbers_of)), key=numbers_of.__getitem__)
        assert (weights[order].diff() <= 1e-12).all()
    scaled = inverse_frequency_weights([n * factor for n in numbers_of])
    torch.testing.assert_close(scaled, inverse_frequency_weights(numbers_of))


@given(counts, shares, st.floats(0, 1))
def test_weights_of_a_batch_are_not_negative(numbers_of, eta, intensity):
    classes = len(numbers_of)
    balance = BalanceOriented(
        num_classes=classes,
        schedule=None,
        eta=eta,
        intensity=intensity,
        class_counts=numbers_of,
    )
    objects = [torch.arange(classes), torch.zeros(0, dtype=torch.int64)]
    weights = balance(objects, torch.full((2, 3), classes))
    table = weights if isinstance(weights, torch.Tensor) else weights[0]
    assert table.isfinite().all() and (table >= 0).all()


@given(st.integers(2, 200), st.integers(0, 100), st.sampled_from(["last", "total", "next"]))
def test_a_schedule_rises_from_0_to_1(total, deferred, reading):
    if not total - 1 > deferred:
        return
    values = [linear_schedule(e, total, deferred, reading=reading) for e in range(total)]
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(values))
    assert all(v == 0 for v in values[:deferred])
