"""Every class weighting through every loss, against the loops of `paper_bofl`."""

import pytest
import torch

from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    ClassWeights,
    ConstantSchedule,
    Equalization,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
    balance_oriented_focal_loss,
    iou_balanced_cross_entropy,
    iou_balanced_focal_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
)
from iou_balanced.losses.fused import chunks

from ..losses import paper_bofl as paper

N, R, K = 3, 7, 4
# The last image has no positive, and the second no background.
LABELS = torch.tensor(
    [[0, 4, 4, -1, 2, 4, 0], [3, 1, -1, 0, 0, 2, 1], [4, 4, -1, 4, 4, 4, 4]], dtype=torch.int64
)
POS_IOU = torch.tensor([0.9, 0.1, 0.55, 0.7, 0.05, 1.0, 0.3, 0.6, 0.45], dtype=torch.float64)
COUNTS = [120, 7, 31, 60]
IMAGE_COUNTS = [[2, 0, 1, 0], [2, 2, 1, 1], [0, 0, 0, 0]]
GT_CLASSES = [torch.tensor([2, 0, 0]), torch.tensor([0, 1, 1, 0, 2, 3]), torch.zeros(0).long()]
SIZES = [4, 1, 2]


def example(columns=K):
    torch.manual_seed(3)
    return torch.randn(N, R, columns, dtype=torch.float64) * 2


def tables(*columns, images=True):
    torch.manual_seed(5)
    shape = (N,) if images else ()
    return [torch.rand(*shape, c, dtype=torch.float64) * 3 for c in columns]


def check(loss_fn, reference):
    """Value and gradient, of one tensor and of a list of levels."""
    check_levels(loss_fn, reference, [lambda x: x, lambda x: list(x.split(SIZES, dim=1))])


def check_levels(loss_fn, reference, forms=(lambda x: list(x.split(SIZES, dim=1)),)):
    value, grad = reference
    logits = example(grad.shape[-1]).requires_grad_()
    for given in [form(logits) for form in forms]:
        loss = loss_fn(given)
        (ours,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(ours, grad, rtol=1e-11, atol=1e-14)


KINDS = {
    "own": dict(own=K),
    "other": dict(other=K),
    "background": dict(background=K),
    "row": dict(row=K + 1),
    "own and other": dict(own=K, other=K),
    "all four": dict(own=K, other=K, background=K, row=K + 1),
}


@pytest.mark.parametrize("images", [True, False], ids=["NK", "K"])
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
class TestKindsOfElements:
    @pytest.fixture
    def weights(self, kinds, images):
        return ClassWeights(**dict(zip(kinds, tables(*kinds.values(), images=images), strict=True)))

    @pytest.fixture
    def elements(self, weights):
        by_image = {k: None if t is None else t.expand(N, -1) for k, t in weights._asdict().items()}
        return paper.by_kind(LABELS, K, **by_image)

    @pytest.mark.parametrize("alpha", [0.25, -1])
    def test_focal(self, weights, elements, alpha):
        check(
            lambda x: sigmoid_focal_loss(x, LABELS, alpha=alpha, class_weight=weights),
            paper.loss_and_grad(paper.focal_loss, example(), LABELS, elements, focal_alpha=alpha),
        )

    def test_iou_balanced_focal(self, weights, elements):
        check(
            lambda x: iou_balanced_focal_loss(x, LABELS, POS_IOU, class_weight=weights),
            paper.loss_and_grad(
                paper.iou_balanced_focal, example(), LABELS, POS_IOU, elements, iou_eta=1.5
            ),
        )

    def test_quality_focal(self, weights, elements):
        check(
            lambda x: quality_focal_loss(x, LABELS, POS_IOU, class_weight=weights),
            paper.loss_and_grad(paper.quality_focal, example(), LABELS, POS_IOU, elements),
        )

    @pytest.mark.parametrize("num_rows", [1, 2, 5])
    def test_chunks_do_not_show(self, weights, elements, num_rows, monkeypatch):
        monkeypatch.setattr(chunks, "_CHUNK", {"cpu": num_rows * K})
        self.test_iou_balanced_focal(weights, elements)

    def test_elementwise(self, weights, elements):
        terms = sigmoid_focal_loss(example(), LABELS, class_weight=weights, reduction="none")
        plain = sigmoid_focal_loss(example(), LABELS, reduction="none")
        torch.testing.assert_close(
            terms, plain * torch.tensor(elements, dtype=plain.dtype), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("gamma", [2.0, 0.0])
@pytest.mark.parametrize("whole_batch", [False, True])
@pytest.mark.parametrize("hat", ["base", "power"])
@pytest.mark.parametrize("progress, intensity", [(0.0, 1.0), (0.4, 1.0), (1.0, 1.0), (0.7, 0.05)])
def test_bofl(progress, intensity, hat, whole_batch, gamma):
    """Eq. 9 from the counts to the gradient; gamma 0 without alpha is sigmoid cross entropy."""
    schedule = FixedSchedule(progress)
    module = BalanceOriented(
        num_classes=K,
        eta=0.8,
        intensity=intensity,
        schedule=schedule,
        count_over="process" if whole_batch else "image",
        hat=hat,
        class_counts=COUNTS,
    ).double()
    module.set_class_counts(COUNTS)
    module.set_iteration(0, 1)
    alpha = 0.25 if gamma else -1
    check(
        lambda x: balance_oriented_focal_loss(
            x, LABELS, module(GT_CLASSES, LABELS), alpha=alpha, gamma=gamma
        ),
        paper.loss_and_grad(
            paper.bofl,
            example(),
            LABELS,
            COUNTS,
            IMAGE_COUNTS,
            eta=0.8,
            progress=progress,
            intensity=intensity,
            whole_batch=whole_batch,
            hat=hat,
            focal_alpha=alpha,
            gamma=gamma,
        ),
    )


class FixedSchedule(ConstantSchedule):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def progress(self, iteration, max_iter):
        return self.value


def in_float64(module):
    """With weights in float64, to compare them to the last digits."""
    module.double()
    module.set_class_counts(COUNTS, [90, 7, 25, 50])
    module.set_iteration(0, 1)
    return module


@pytest.mark.parametrize("progress", [0.3, 1.0])
@pytest.mark.parametrize("beta", [0.99, None])
@pytest.mark.parametrize("per_sample", [True, False])
def test_the_four_steps_of_class_balanced_loss(per_sample, beta, progress):
    module = in_float64(
        ClassBalanced(
            num_classes=K, beta=beta, per_sample=per_sample, schedule=FixedSchedule(progress)
        )
    )
    alphas = (
        paper.inverse_frequency_alphas(COUNTS)
        if beta is None
        else paper.effective_number_alphas(COUNTS, beta, normalize=True)
    )
    loss = SigmoidFocalLoss()
    check(
        lambda x: loss(x, LABELS, class_weight=module(None, LABELS)),
        paper.loss_and_grad(
            paper.class_balanced_focal,
            example(),
            LABELS,
            alphas,
            progress=progress,
            is_class_wise=not per_sample,
        ),
    )


@pytest.mark.parametrize("background_weight", [1.0, 0.5])
def test_equalization(background_weight):
    # Images by class, ascending: 7, 25, 50, 90 of 172; up to the second they are 18.6%.
    module = in_float64(
        Equalization(num_classes=K, tail_ratio=0.186, background_weight=background_weight)
    )
    loss = SigmoidFocalLoss()
    check(
        lambda x: loss(x, LABELS, class_weight=module(None, LABELS)),
        paper.loss_and_grad(
            paper.equalization_loss,
            example(),
            LABELS,
            [False, True, True, False],
            tail_background=background_weight,
        ),
    )


def balances():
    return {
        "bofl": BalanceOriented(num_classes=K, eta=0.8, schedule=FixedSchedule(1.0)),
        "cbl": ClassBalanced(num_classes=K),
        "eql": Equalization(num_classes=K, tail_ratio=0.186, background_weight=0.5),
    }


@pytest.mark.parametrize("name", balances())
def test_class_weights_come_before_the_iou(name):
    """Eq. 4's ratio runs over the weighted terms, so that it leaves their sum as it is."""
    module = in_float64(balances()[name])
    weights = module(GT_CLASSES, LABELS)
    loss = IoUBalancedFocalLoss(eta=1.5, reduction="none")
    pos = (LABELS >= 0) & (LABELS < K)
    own = (*pos.nonzero(as_tuple=True), LABELS[pos])
    balanced = loss(example(), LABELS, POS_IOU, class_weight=weights)
    weighted = SigmoidFocalLoss(reduction="none")(example(), LABELS, class_weight=weights)
    assert balanced[own].sum().item() == pytest.approx(weighted[own].sum().item(), rel=1e-12)
    ratio = balanced[own] / weighted[own] / POS_IOU**1.5
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-12, atol=0)


@pytest.mark.parametrize("iou_eta", [0, 1.5])
@pytest.mark.parametrize("images", [True, False])
def test_softmax_takes_the_weight_of_the_label(images, iou_eta):
    (table,) = tables(K, images=images)
    ious = POS_IOU if iou_eta else None
    check_levels(
        lambda x: iou_balanced_cross_entropy(x, LABELS, ious, eta=iou_eta, class_weight=table),
        paper.loss_and_grad(
            paper.softmax,
            example(K + 1),
            LABELS,
            table.expand(N, -1),
            ious=ious,
            iou_eta=iou_eta,
        ),
    )


def test_softmax_with_weights_of_rows():
    """CBL's table for rows, background last, is the same on softmax as its table for columns."""
    (table,) = tables(K)
    loss, logits = SoftmaxCrossEntropyLoss(), [example(K + 1)]
    row = ClassWeights(row=torch.cat([table, torch.ones(N, 1)], dim=1).double())
    by_row = loss(logits, LABELS, class_weight=row)
    assert by_row.item() == pytest.approx(
        loss(logits, LABELS, class_weight=table).item(), rel=1e-12
    )


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropyLoss(), IoUBalancedCrossEntropyLoss(eta=0)])
def test_softmax_refuses_weights_apart(loss):
    weights = in_float64(balances()["eql"])(None, LABELS)
    with pytest.raises(ValueError, match=r"one table, or one for rows.*\['other', 'background'\]"):
        loss([example(K + 1)], LABELS, class_weight=weights)


@pytest.mark.parametrize("kind", ClassWeights._fields)
def test_no_gradient_into_weights(kind):
    (table,) = tables(K + (kind == "row"))
    table.requires_grad_()
    logits = example().requires_grad_()
    sigmoid_focal_loss(logits, LABELS, class_weight=ClassWeights(**{kind: table})).backward()
    assert table.grad is None
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", ClassWeights._fields)
def test_bad_tables(kind):
    letters = r"\(K \+ 1,\) or \(N, K \+ 1\)" if kind == "row" else r"\(K,\) or \(N, K\)"
    with pytest.raises(ValueError, match=rf"`class_weight.{kind}` to have a shape {letters}"):
        sigmoid_focal_loss(
            example(), LABELS, class_weight=ClassWeights(**{kind: torch.ones(N + 1, K)})
        )
