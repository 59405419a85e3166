"""Losses with the IoU in their target, against their papers' formulas element by element."""

import inspect
import math

import pytest
import torch

from iou_balanced.losses import (
    ClassWeights,
    CorrelationLoss,
    IoUAwareBCELoss,
    MatchabilityAwareLoss,
    QualityFocalLoss,
    TaskAlignedBCELoss,
    VarifocalLoss,
    iou_aware_bce_loss,
    iou_ratio_weights,
    matchability_aware_loss,
    quality_focal_loss,
    task_aligned_bce_loss,
    varifocal_loss,
)
from iou_balanced.losses.debug import set_debug

LN2 = math.log(2)
K = 3
LABELS = torch.tensor([[0, 3, 0, -1, 2], [-1, 1, 3, 2, 0]])
POS_IOU = torch.tensor([0.9, 0.35, 0.0, 0.6, 1.0, 0.02], dtype=torch.float64)
OBJECTS = torch.tensor([7, 7, -2, 40, 3, 40])  # any numbers
SIZES = [2, 0, 3]


def example():
    torch.manual_seed(2)
    return torch.randn(2, 5, K, dtype=torch.float64) * 2


def cross_entropy(p, target):
    return -target * p.log() - (1 - target) * (1 - p).log()


def stopped(x, stop):
    return x.detach() if stop else x


def varifocal(p, q, _, *, alpha=0.75, gamma=2.0, iou_weighted=True, detached=False):
    if q == 0:
        return alpha * stopped(p, detached) ** gamma * cross_entropy(p, 0)
    return (q if q > 0 and (iou_weighted or q == 0) else 1) * cross_entropy(p, q)


def matchability(p, q, is_own, *, gamma=1.5, alpha=1.0, detached=True):
    if is_own:
        return cross_entropy(p, q**gamma)
    return alpha * stopped(p, detached) ** gamma * cross_entropy(p, 0)


def iou_aware(p, q, is_own, *, alpha=0.25, gamma=2.0, least_target=0.01, detached=False):
    if is_own:
        return cross_entropy(p, max(p.item() ** alpha * q.item() ** (1 - alpha), least_target))
    return stopped(p, detached) ** gamma * cross_entropy(p, 0)


def quality_focal(p, q, _, *, beta=2.0):
    return (p - q).abs() ** beta * cross_entropy(p, q)


MEMBERS = {
    "varifocal": (varifocal_loss, varifocal),
    "matchability": (matchability_aware_loss, matchability),
    "iou aware": (iou_aware_bce_loss, iou_aware),
    "quality focal": (quality_focal_loss, quality_focal),
}
CASES = [
    ("varifocal", {}),
    ("varifocal", {"detached": True, "alpha": 0.3, "gamma": 1.0}),
    ("varifocal", {"iou_weighted": False}),
    ("matchability", {}),
    ("matchability", {"detached": False, "gamma": 2.0, "alpha": 0.5}),
    ("iou aware", {}),
    ("iou aware", {"detached": True, "alpha": 1.0, "least_target": 0.3}),
    ("quality focal", {"beta": 1.5}),
]


def naive_elements(logits, element, weight=None, **settings):
    """{(image, row, class): loss}, of every element that is not ignored."""
    terms, ious = {}, iter(POS_IOU)
    for n, r in torch.cartesian_prod(torch.arange(2), torch.arange(5)).tolist():
        label = LABELS[n, r].item()
        if label < 0:
            continue
        iou = next(ious) if label < K else None
        for k in range(K):
            q = iou if k == label else torch.zeros((), dtype=torch.float64)
            term = element(logits[n, r, k].sigmoid(), q, k == label, **settings)
            terms[n, r, k] = term * (1 if weight is None else weight[n, k])
    return terms


def naive(logits, element, **settings):
    loss = sum(naive_elements(logits, element, **settings).values())
    return loss, torch.autograd.grad(loss, logits)[0]


def check(loss, reference, logits):
    value, grad = reference
    assert loss.item() == pytest.approx(value.item(), rel=1e-10)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name, settings", CASES)
def test_value_and_gradient_element_by_element(name, settings):
    function, element = MEMBERS[name]
    logits = example().requires_grad_()
    reference = naive(logits, element, **settings)
    check(function(logits, LABELS, POS_IOU, **settings), reference, logits)
    levels = list(logits.split(SIZES, dim=1))
    check(function(levels, LABELS, POS_IOU, **settings), reference, logits)


@pytest.mark.parametrize("name", MEMBERS)
def test_class_weights_come_to_every_element(name):
    function, element = MEMBERS[name]
    logits = example().requires_grad_()
    weight = torch.tensor([[0.2, 1.0, 3.0], [2.0, 0.5, 0.0]], dtype=torch.float64)
    check(
        function(logits, LABELS, POS_IOU, class_weight=weight),
        naive(logits, element, weight=weight),
        logits,
    )
    # A table for own elements alone: the rest as it was.
    own = ClassWeights(own=weight)
    plain = function(logits, LABELS, POS_IOU, reduction="none")
    weighted = function(logits, LABELS, POS_IOU, reduction="none", class_weight=own)
    is_own = torch.nn.functional.one_hot(LABELS.clamp(min=0), K + 1)[..., :K].bool()
    is_own &= (LABELS >= 0)[..., None]
    expected = torch.where(is_own, plain * weight[:, None], plain)
    torch.testing.assert_close(weighted, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", MEMBERS)
def test_iou_balanced_weights_keep_the_sum_of_own_elements(name):
    function, element = MEMBERS[name]
    logits = example().requires_grad_()
    terms = naive_elements(logits, element)
    own = [terms[n, r, k] for n, r, k in terms if LABELS[n, r] == k]
    weights = iou_ratio_weights(torch.stack(own).detach(), POS_IOU, 1.5)
    others = sum(x for place, x in terms.items() if LABELS[place[:2]] != place[2])
    expected = others + (torch.stack(own) * weights).sum()
    reference = (expected, torch.autograd.grad(expected, logits)[0])
    loss = function(logits, LABELS, POS_IOU, eta=1.5)
    check(loss, reference, logits)
    assert loss.item() == pytest.approx(sum(terms.values()).item(), rel=1e-10)


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.5, "beta": 2.0, "gamma": 1.0}])
def test_task_aligned_object_by_object(settings):
    alpha, beta, gamma = (settings.get(k, v) for k, v in dict(alpha=1, beta=6, gamma=2).items())
    logits = example().requires_grad_()
    places = [(n, r) for n in range(2) for r in range(5) if 0 <= LABELS[n, r] < K]
    scores = [logits[n, r, LABELS[n, r]].sigmoid().item() for n, r in places]
    metric = [s**alpha * u.item() ** beta for s, u in zip(scores, POS_IOU, strict=True)]
    target = {}
    for i, place in enumerate(places):
        same = [j for j in range(6) if OBJECTS[j] == OBJECTS[i]]
        largest = max(metric[j] for j in same) + 1e-7
        target[place] = metric[i] / largest * max(POS_IOU[j].item() for j in same)

    def element(p, target):
        return (target - p).abs() ** gamma * cross_entropy(p, target)

    terms = [
        element(logits[n, r, k].sigmoid(), target[n, r] if LABELS[n, r] == k else 0.0)
        for n in range(2)
        for r in range(5)
        for k in range(K)
        if LABELS[n, r] >= 0
    ]
    loss = sum(terms)
    reference = (loss, torch.autograd.grad(loss, logits)[0])
    ours = task_aligned_bce_loss(logits, LABELS, POS_IOU, pos_object=OBJECTS, **settings)
    check(ours, reference, logits)


def test_class_weights_of_task_aligned():
    x = example()
    weight = torch.tensor([[0.2, 1.0, 3.0], [2.0, 0.5, 0.0]], dtype=torch.float64)
    settings = dict(pos_object=OBJECTS, reduction="none")
    plain = task_aligned_bce_loss(x, LABELS, POS_IOU, **settings)
    weighted = task_aligned_bce_loss(x, LABELS, POS_IOU, class_weight=weight, **settings)
    torch.testing.assert_close(weighted, plain * weight[:, None], rtol=1e-10, atol=1e-14)


def one_row(loss_fn, iou, logits=(0.0, 0.0), labels=(0,), **more):
    """Value and gradient of rows of two classes."""
    x = torch.tensor(logits, dtype=torch.float64).reshape(-1, 2).requires_grad_()
    loss = loss_fn(x, torch.tensor(labels), torch.tensor(iou, dtype=torch.float64), **more)
    loss.backward()
    return loss.item(), x.grad.flatten().tolist()


def test_varifocal_by_hand():
    """Both scores 1/2, so that every cross entropy is ln 2; q = 0.6.

    Own: 0.6 ln 2, slope 0.6 (0.5 - 0.6) = -0.06. Other: 0.75 * 0.25 ln 2, slope
    0.75 (0.25 * 0.5 + 2 * 0.5 * 0.25 ln 2) = 0.09375 + 0.1875 ln 2; with p^2 a constant 0.09375.
    """
    value, grad = one_row(VarifocalLoss(), [0.6])
    assert value == pytest.approx(0.7875 * LN2)
    assert grad == pytest.approx([-0.06, 0.09375 + 0.1875 * LN2])
    assert one_row(VarifocalLoss(detached=True), [0.6])[1] == pytest.approx([-0.06, 0.09375])


def test_matchability_by_hand():
    """q = 0.64: the target is 0.64^1.5 = 0.512, and the own slope 0.5 - 0.512.

    Other: 0.5^1.5 ln 2 = 0.353553 ln 2, slope 0.353553 * 0.5.
    """
    value, grad = one_row(MatchabilityAwareLoss(), [0.64])
    assert value == pytest.approx((1 + 0.5**1.5) * LN2)
    assert grad == pytest.approx([-0.012, 0.5**2.5])


def test_iou_aware_bce_by_hand():
    """q = 0.0625: t = 0.5^0.25 * 0.125 = 0.105112. Own: ln 2, slope 0.5 - t.

    Other: 0.25 ln 2, slope 0.125 + 0.25 ln 2. With q = 0 the target is 0.01.
    """
    value, grad = one_row(IoUAwareBCELoss(), [0.0625])
    assert value == pytest.approx(1.25 * LN2)
    assert grad == pytest.approx([0.394888, 0.125 + 0.25 * LN2], rel=1e-5)
    assert one_row(IoUAwareBCELoss(), [0.0])[1][0] == pytest.approx(0.49)


def test_task_aligned_by_hand():
    """Two positives of one object, all scores 1/2, IoU 0.8 and 0.4.

    t = 0.5 * 0.8^6 = 0.131072 and 0.5 * 0.4^6 = 0.002048; scaled by 0.8 / 0.131072: 0.8 and
    0.0125. Own: (0.3^2 + 0.4875^2) ln 2; the two others 0.25 ln 2 each. Of two objects, both have
    their own IoU as target: 0.3^2 + 0.1^2.
    """
    loss, rows = TaskAlignedBCELoss(), dict(logits=[0.0] * 4, labels=(0, 1))
    value, _ = one_row(loss, [0.8, 0.4], pos_object=torch.tensor([5, 5]), **rows)
    assert value == pytest.approx((0.09 + 0.23765625 + 0.5) * LN2, rel=1e-5)
    value, _ = one_row(loss, [0.8, 0.4], pos_object=torch.tensor([5, 4]), **rows)
    assert value == pytest.approx((0.09 + 0.01 + 0.5) * LN2, rel=1e-4)


@pytest.mark.parametrize("value", [-0.2, 1.5, float("inf")])
@pytest.mark.parametrize("name", MEMBERS)
def test_iou_outside_of_its_range(name, value):
    bad = POS_IOU.clone()
    bad[3] = value
    with pytest.raises(ValueError, match=r"IoUs in \[0, 1\], but got .* for positive 3"):
        MEMBERS[name][0](example(), LABELS, bad)


def test_rounding_of_an_iou_is_no_error():
    exact, rounded = torch.ones(6), torch.ones(6) + 1e-6
    for function, _ in MEMBERS.values():
        assert function(example(), LABELS, rounded) == function(example(), LABELS, exact)


def test_a_nan_iou_stays_visible():
    bad = POS_IOU.clone()
    bad[2] = float("nan")
    for name in ("varifocal", "matchability", "quality focal"):
        assert MEMBERS[name][0](example(), LABELS, bad).isnan()


@pytest.mark.parametrize(
    "bad, message",
    [
        (None, r"`pos_object` .*shape \(6,\), but got None"),
        (OBJECTS[:4], r"`pos_object` .*shape \(6,\), but got \(4,\)"),
        (OBJECTS.double(), r"`pos_object` .*int64 or int32, but got dtype torch.float64"),
    ],
)
def test_bad_objects(bad, message):
    with pytest.raises(ValueError, match=message):
        task_aligned_bce_loss(example(), LABELS, POS_IOU, pos_object=bad)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: VarifocalLoss(gamma=-1), r"`gamma` to be at least 0, but got -1"),
        (lambda: VarifocalLoss(alpha=-0.1), r"`alpha` to be at least 0, but got -0.1"),
        (lambda: VarifocalLoss(detached="no"), r"`detached` to be True or False"),
        (lambda: MatchabilityAwareLoss(gamma=200), r"`gamma` to be at most 100"),
        (lambda: IoUAwareBCELoss(alpha=1.5), r"`alpha` to be in \[0, 1\], but got 1.5"),
        (lambda: TaskAlignedBCELoss(beta=None), r"`beta` to be at least 0, but got None"),
        (lambda: QualityFocalLoss(eta=-1), r"`eta` to be at least 0, but got -1"),
        (lambda: VarifocalLoss(reduction="total"), r"`reduction` to be one of"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_modules_are_their_functions():
    """Also after an attribute was set, as a config or a user does."""
    x = example()
    module = VarifocalLoss(alpha=0.5)
    module.gamma = 1.0
    expected = varifocal_loss(x, LABELS, POS_IOU, alpha=0.5, gamma=1.0)
    assert module(x, LABELS, POS_IOU) == expected
    assert repr(module).startswith("VarifocalLoss(alpha=0.5, gamma=1.0, iou_weighted=True")
    assert module.needs_pos_iou and module.takes_levels


SHARED = dict(eta=0.5, reduction="mean", across_processes=False, backend="eager")
SETTINGS = {
    VarifocalLoss: (varifocal_loss, dict(alpha=0.3, gamma=1.5, iou_weighted=False, detached=True)),
    MatchabilityAwareLoss: (matchability_aware_loss, dict(gamma=2.5, alpha=0.4, detached=False)),
    IoUAwareBCELoss: (
        iou_aware_bce_loss,
        dict(alpha=0.6, gamma=1.0, least_target=0.2, detached=True),
    ),
    QualityFocalLoss: (quality_focal_loss, dict(beta=1.5)),
    TaskAlignedBCELoss: (task_aligned_bce_loss, dict(alpha=0.5, beta=3.0, gamma=1.0)),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_module_hands_on_each_of_its_settings(kind):
    function, own = SETTINGS[kind]
    settings = {**own, **SHARED}
    assert set(settings) == set(inspect.signature(kind).parameters)
    module = kind(**settings)
    assert module.arguments() == settings
    x = example().requires_grad_()
    more = {"class_weight": torch.tensor([0.5, 2.0, 3.0])}
    if kind is TaskAlignedBCELoss:
        more["pos_object"] = OBJECTS
    loss = module(x, LABELS, POS_IOU, **more)
    expected = function(x, LABELS, POS_IOU, **more, **settings)
    assert loss == expected
    assert torch.equal(*(torch.autograd.grad(y, x)[0] for y in (loss, expected)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    """Scores of half precision, as AMP gives them; the arithmetic is that of float32."""
    half = example().to(dtype).requires_grad_()
    calls = [
        *(lambda f=f: f(half, LABELS, POS_IOU.float(), eta=1.0) for f, _ in MEMBERS.values()),
        lambda: task_aligned_bce_loss(half, LABELS, POS_IOU.float(), pos_object=OBJECTS),
        lambda: CorrelationLoss(kind="spearman")(half, LABELS, POS_IOU.float()),
    ]
    for call in calls:
        with torch.autocast("cpu", dtype=dtype):
            inside = call()
        outside = call()
        assert inside.dtype == torch.float32 and torch.equal(inside, outside)
        grads = [torch.autograd.grad(loss, half)[0] for loss in (inside, outside)]
        assert grads[0].dtype == dtype and torch.equal(*grads)


def test_values_are_not_looked_at_where_a_gpu_would_be_waited_for():
    """A tensor on "meta" stands for one that must not be read."""
    from iou_balanced.losses.checks import check_iou_values

    set_debug(False)
    try:
        check_iou_values(torch.empty(3, device="meta"))
    finally:
        set_debug(None)
