"""The reference of the class-balance tests against numbers worked out by hand.

At logit 0: p = 1/2 and every cross entropy is ln 2, with the gradient -1/2 where the target is 1
and 1/2 where it is 0. So without focal loss's alpha and gamma (`PLAIN`) an element is its weight
times ln 2.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from .paper import focal_terms, number
from .paper_bofl import (
    balance_oriented_table,
    bofl,
    by_kind,
    class_balanced_focal,
    class_wise,
    constant_lambda,
    effective_number_alphas,
    equalization,
    equalization_loss,
    expected_volume,
    focal_loss,
    inverse_frequency_alphas,
    iou_balanced_focal,
    linear_lambda,
    loss_and_grad,
    quality_focal,
    sample_wise,
    scheduled_alpha,
    softmax,
    tail_classes,
    tail_ratio,
)

LN2, LN3 = math.log(2), math.log(3)
PLAIN = {"focal_alpha": -1, "gamma": 0.0}


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def close(actual, expected):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.as_tensor(actual, dtype=torch.float64), expected)


def test_effective_number():
    # beta = 1/2: 1, 1 + 1/2, 1 + 1/2 + 1/4, and in the limit 2 (Eq. 4); Eq. 2 is their inverse.
    assert [expected_volume(0.5, n) for n in (1, 2, 3)] == [1, 1.5, 1.75]
    assert expected_volume(0.5) == 2 and expected_volume(0.5, 60) == pytest.approx(2)
    close(effective_number_alphas([1, 2, 3], 0.5), [1, 2 / 3, 4 / 7])
    # The sum of 1 and 2/3 is 5/3, so 6/5 brings it to K = 2.
    close(effective_number_alphas([1, 2], 0.5, normalize=True), [1.2, 0.8])
    close(effective_number_alphas([5, 9], 0.0), [1, 1])


def test_inverse_frequency_is_the_limit_of_the_effective_number():
    # n = 8, C = 2: 8 / (2 * 6) and 8 / (2 * 2). Over the instances, not the classes, its mean is 1.
    alphas = inverse_frequency_alphas([6, 2])
    close(alphas, [2 / 3, 2])
    assert (6 * alphas[0] + 2 * alphas[1]) / 8 == pytest.approx(1)
    # beta to 1: 1/6 and 1/2, whose sum 2/3 is brought to 2 by 3. Eq. 5 is larger by 4/3 throughout.
    limit = effective_number_alphas([6, 2], 1 - 1e-7)
    assert limit == pytest.approx([1 / 6, 1 / 2], rel=1e-5)
    normalized = effective_number_alphas([6, 2], 1 - 1e-7, normalize=True)
    assert normalized == pytest.approx([1 / 2, 3 / 2], rel=1e-5)


def test_schedules():
    # 140 epochs with D = 5: 134 steps from epoch 5 to epoch 139. 12 epochs with D = 3: 8 steps.
    assert [linear_lambda(e, 140, 5) for e in (0, 4, 5, 72, 139)] == [0, 0, 0, 0.5, 1]
    assert [linear_lambda(e, 12, 3) for e in (2, 3, 4, 7, 11)] == [0, 0, 0.125, 0.5, 1]
    assert [linear_lambda(e, 3, 0) for e in (0, 1, 2)] == [0, 0.5, 1]
    assert [constant_lambda(e, 3) for e in (0, 2, 3, 11)] == [0, 0, 1, 1]
    assert constant_lambda(0, 0) == 1
    # Eq. 7: halfway from 1 to 2/3 and to 2; 5% of the way at most.
    close([scheduled_alpha(a, 0.5) for a in (2 / 3, 2)], [5 / 6, 1.5])
    close([scheduled_alpha(a, 1.0, intensity=0.05) for a in (2 / 3, 2)], [59 / 60, 1.05])


def test_balance_oriented_table():
    # lambda = 1/2 and eta = 0.8: the base is 0.9. Its powers: 1, 0.9, 0.81, 0.729.
    counts = [[2, 0], [1, 3]]
    args = {"eta": 0.8, "progress": 0.5}
    table = balance_oriented_table([2 / 3, 2], counts, **args)
    close(table, [[5 / 6 * 0.81, 1.5], [5 / 6 * 0.9, 1.5 * 0.729]])
    # Both images together have 3 and 3.
    table = balance_oriented_table([2 / 3, 2], counts, **args, whole_batch=True)
    close(table, [[5 / 6 * 0.729, 1.5 * 0.729]] * 2)
    # The hat on the whole power: halfway from 1 to 0.64, to 1, to 0.8 and to 0.512.
    table = balance_oriented_table([1, 1], counts, **args, hat="power")
    close(table, [[0.82, 1], [0.9, 0.756]])
    # Intensity touches alpha only. At the end everything is there, at the start nothing.
    args["progress"] = 1.0
    table = balance_oriented_table([2 / 3, 2], counts, **args, intensity=0.05)
    close(table, [[59 / 60 * 0.64, 1.05], [59 / 60 * 0.8, 1.05 * 0.512]])
    args["progress"] = 0.0
    close(balance_oriented_table([2 / 3, 2], counts, **args), [[1, 1]] * 2)


def test_bofl():
    # Logit 0, gamma 2: an element is ln 2 / 4, times 1/4 where the target is 1 and 3/4 elsewhere.
    # Weights as above: 0.675, 1.5 and 0.75, 1.0935. Label 0 of image 0: 0.25 * 0.675 + 0.75 * 1.5;
    # its background row: 0.75 * (0.675 + 1.5). Label 1 of image 1: 0.75 * 0.75 + 0.25 * 1.0935.
    labels = [[0, 2], [-1, 1]]
    args = ([6, 2], [[2, 0], [1, 3]])
    loss, grad = loss_and_grad(bofl, zeros(2, 2, 2), labels, *args, eta=0.8, progress=0.5)
    assert loss == pytest.approx((1.29375 + 1.63125 + 0.835875) * LN2 / 4)
    # p^2 softplus has the gradient 2 p p (1 - p) ln 2 + p^3 = ln 2 / 4 + 1/8.
    slope = LN2 / 4 + 1 / 8
    by_slope = [
        [[-0.25 * 0.675, 0.75 * 1.5], [0.75 * 0.675, 0.75 * 1.5]],
        [[0, 0], [0.75 * 0.75, -0.25 * 1.0935]],
    ]
    close(grad / slope, by_slope)
    # Sigmoid cross entropy (Table 8): 0.675 + 1.5, twice, and 0.75 + 1.0935.
    loss = bofl(zeros(2, 2, 2), labels, *args, eta=0.8, progress=0.5, **PLAIN)
    assert number(loss) == pytest.approx((2.175 * 2 + 1.8435) * LN2)


def test_without_progress_bofl_is_focal_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 2, dtype=torch.float64), [[0, 2, -1], [1, 1, 2]]
    flat = focal_terms(logits.flatten(0, 1), [0, 2, -1, 1, 1, 2], alpha=0.25, gamma=2.0)
    loss = bofl(logits, labels, [6, 2], [[1, 0], [0, 2]], eta=0.8, progress=0.0)
    assert number(loss) == pytest.approx(sum(number(term) for row in flat for term in row))


def test_plain_elements_are_binary_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 2, dtype=torch.float64), torch.tensor([[0, 2, 1], [1, 1, 2]])
    table = torch.rand(2, 2, dtype=torch.float64)
    loss, grad = loss_and_grad(focal_loss, logits, labels, class_wise(labels, table), **PLAIN)
    logits.requires_grad_()
    targets = F.one_hot(labels, 3)[..., :2].double()
    expected = F.binary_cross_entropy_with_logits(
        logits, targets, weight=table[:, None], reduction="sum"
    )
    assert loss == pytest.approx(expected.item())
    torch.testing.assert_close(grad, torch.autograd.grad(expected, logits)[0])


def test_class_balanced_focal():
    # Alphas 1.2 and 0.8; labels 0, 0 and background, two columns each: 2 * 1.2, twice, and 2 * 1.
    labels, alphas = [[0, 0, 2, -1]], [1.2, 0.8]
    loss, grad = loss_and_grad(class_balanced_focal, zeros(1, 4, 2), labels, alphas, **PLAIN)
    assert loss == pytest.approx(6.8 * LN2)
    close(grad, [[[-0.6, 0.6], [-0.6, 0.6], [0.5, 0.5], [0, 0]]])
    # Halfway the first is 1.1. Class-wise each of the three rows has 1.2 + 0.8.
    loss = class_balanced_focal(zeros(1, 4, 2), labels, alphas, progress=0.5, **PLAIN)
    assert number(loss) == pytest.approx(6.4 * LN2)
    args = (zeros(1, 4, 2), labels, alphas)
    loss, grad = loss_and_grad(class_balanced_focal, *args, is_class_wise=True, **PLAIN)
    assert loss == pytest.approx(6 * LN2)
    close(grad, [[[-0.6, 0.4], [-0.6, 0.4], [0.6, 0.4], [0, 0]]])


def test_equalization_loss():
    # Classes 1 and 2 are tail. Label 0 trains its own column only, label 1 columns 0 and 1,
    # background all three, or 1 + 1/2 + 1/2.
    labels, tail = [[0, 1, 3, -1]], [False, True, True]
    loss, grad = loss_and_grad(equalization_loss, zeros(1, 4, 3), labels, tail, **PLAIN)
    assert loss == pytest.approx(6 * LN2)
    close(grad, [[[-0.5, 0, 0], [0.5, -0.5, 0], [0.5, 0.5, 0.5], [0, 0, 0]]])
    args = (zeros(1, 4, 3), labels, tail)
    loss, grad = loss_and_grad(equalization_loss, *args, tail_background=0.5, **PLAIN)
    assert loss == pytest.approx(5 * LN2)
    close(grad, [[[-0.5, 0, 0], [0.5, -0.5, 0], [0.5, 0.25, 0.25], [0, 0, 0]]])


def test_tail():
    # Of 20 image-class pairs class 1 has 1; with classes 3 and 4 it is 5, with class 2 it is 10.
    counts = [10, 1, 5, 2, 2]
    assert [tail_ratio(counts, t) for t in (1, 2, 3, 6, 11)] == [0, 0.05, 0.25, 0.5, 1]
    assert tail_classes(counts, 0.04) == [False] * 5
    assert tail_classes(counts, 0.05) == [False, True, False, False, False]
    # Classes of the same frequency are on the same side of any threshold.
    assert tail_classes(counts, 0.2) == [False, True, False, False, False]
    assert tail_classes(counts, 0.25) == [False, True, False, True, True]
    assert tail_classes(counts, 0.99) == [False, True, True, True, True]
    assert tail_classes(counts, 1.0) == [True] * 5


def test_by_kind():
    # Image 1 has twice the weights of image 0. K = 2, so label 2 is background.
    tables = {"own": [2, 3], "other": [5, 7], "background": [11, 13], "row": [1, 10, 100]}
    tables = {name: [row, [2 * w for w in row]] for name, row in tables.items()}
    expected = [[[2, 7], [50, 30], [1100, 1300], [0, 0]], [[8, 28], [4400, 5200]]]
    assert by_kind([[0, 1, 2, -1], [0, 2]], 2, **tables) == expected
    # The rivals in these terms.
    labels, table = [[0, 1, -1, 3, 2]], [[2.0, 3.0, 5.0]]
    assert class_wise(labels, table) == by_kind(labels, 3, own=table, other=table, background=table)
    assert sample_wise(labels, table[0]) == by_kind(labels, 3, row=[[*table[0], 1.0]])
    tail, zeroed, halved = [False, True, True], [[1, 0, 0]], [[1, 0.5, 0.5]]
    assert equalization(labels, tail) == by_kind(labels, 3, other=zeroed)
    weights = equalization(labels, tail, tail_background=0.5)
    assert weights == by_kind(labels, 3, other=zeroed, background=halved)


def test_quality_focal():
    # Column 0, IoU 3/4 at p = 1/2: (1/4)^2 ln 2. Its other column and background: (1/2)^2 ln 2.
    labels, weights = [[0, 2, -1]], [[[2, 3], [5, 7], [9, 9]]]
    loss, grad = loss_and_grad(quality_focal, zeros(1, 3, 2), labels, [0.75])
    assert loss == pytest.approx((1 / 16 + 3 / 4) * LN2)
    # (p - y)^2 CE has the gradient 2 (p - y) p (1 - p) CE + (p - y)^3.
    own, other = -LN2 / 8 - 1 / 64, LN2 / 4 + 1 / 8
    close(grad, [[[own, other], [other, other], [0, 0]]])
    loss, grad = loss_and_grad(quality_focal, zeros(1, 3, 2), labels, [0.75], weights)
    assert loss == pytest.approx((2 / 16 + (3 + 5 + 7) / 4) * LN2)
    close(grad, [[[2 * own, 3 * other], [5 * other, 7 * other], [0, 0]]])
    # p = 3/4: a right score costs nothing; IoU 1/2: (1/4)^2 (ln(4/3) / 2 + ln 4 / 2).
    loss, grad = loss_and_grad(quality_focal, zeros(1, 1, 1) + LN3, [[0]], [0.75])
    assert loss == pytest.approx(0, abs=1e-15) and grad.item() == pytest.approx(0, abs=1e-15)
    loss = quality_focal(zeros(1, 1, 1) + LN3, [[0]], [0.5])
    assert number(loss) == pytest.approx((2 * LN2 - LN3 / 2) / 16)


def test_quality_focal_of_perfect_boxes_is_focal_loss():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 2, 2), [[0, 2], [1, -1]]
    loss, grad = loss_and_grad(quality_focal, logits, labels, [1.0, 1.0])
    expected, expected_grad = loss_and_grad(focal_loss, logits, labels, focal_alpha=-1)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(grad, expected_grad)


def test_iou_balanced_focal_over_class_weights():
    # Class weights 2 and 1, own terms 2 ln 2 and ln 2, IoU 1/2 and 1, eta 1: the ratio is
    # (2 + 1) / (2 / 2 + 1) = 3/2, where unweighted terms had 2 / (1/2 + 1) = 4/3. So w is 3/4 and
    # 3/2: 1.5 ln 2 each, in sum what it was. The other columns (1 and 2) and background stay.
    labels = [[0, 2], [-1, 1]]
    weights = class_wise(labels, [[2, 1]] * 2)
    args = (zeros(2, 2, 2), labels, [0.5, 1.0], weights)
    loss, grad = loss_and_grad(iou_balanced_focal, *args, iou_eta=1.0, **PLAIN)
    assert loss == pytest.approx((3 + 3 + 3) * LN2)
    close(grad, [[[-0.75, 0.5], [1, 0.5]], [[0, 0], [1, -0.75]]])


def test_softmax():
    # Three equal scores cost ln 3. Weights 1/2 and 3, background 1: 4.5 ln 3.
    labels, table = [[0, 1, 2, -1]], [[0.5, 3]]
    loss, grad = loss_and_grad(softmax, zeros(1, 4, 3), labels, table)
    assert loss == pytest.approx(4.5 * LN3)
    third = torch.tensor([[[-2, 1, 1], [1, -2, 1], [1, 1, -2], [0, 0, 0]]]).double() / 3
    scale = torch.tensor([[[0.5], [3], [1], [0]]])
    torch.testing.assert_close(grad, scale * third)
    # IoU 1/2 and 1, eta 1: (0.5 + 3) / (0.25 + 3) = 14/13, so the weights 7/13 and 14/13.
    args = (zeros(1, 4, 3), labels, table)
    loss, grad = loss_and_grad(softmax, *args, ious=[0.5, 1.0], iou_eta=1.0)
    assert loss == pytest.approx(4.5 * LN3)
    scale = torch.tensor([[[3.5 / 13], [42 / 13], [1], [0]]], dtype=torch.float64)
    torch.testing.assert_close(grad, scale * third)
    # Each image has its own table: 0.5 and 4.
    loss = softmax(zeros(2, 1, 3), [[0], [0]], [[0.5, 3], [4, 3]])
    assert number(loss) == pytest.approx(4.5 * LN3)


def test_nothing_to_sum():
    logits = zeros(2, 1, 2)
    for loss_fn in (focal_loss, lambda x, y: iou_balanced_focal(x, y, []), softmax):
        loss, grad = loss_and_grad(loss_fn, logits, [[-1], [-1]])
        assert loss == 0 and (grad == 0).all()
    assert loss_and_grad(focal_loss, zeros(2, 0, 2), [[], []])[0] == 0
