import math

import pytest
import torch
from detectron2.config import LazyCall as L
from torch import nn

from iou_balanced.losses import (
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    IoUBalancedSmoothL1Loss,
    SigmoidFocalLoss,
    SoftmaxCrossEntropyLoss,
)
from iou_balanced.modeling import balance
from iou_balanced.modeling.ssd.mining import mine_hard_negatives

from ..detector_mixin import NUM_CLASSES, build
from .ssd_models import losses_of, random_predictions, small_ssd


@pytest.mark.parametrize("ratio", [3.0, 1.5])
def test_plain_losses_by_a_loop(ratio):
    config = small_ssd()
    config.hard_negative_ratio = ratio
    anchors, labels, gt_boxes, logits, deltas = random_predictions()
    losses, scalars = losses_of(build(config), anchors, labels, gt_boxes, logits, deltas)

    cls, box, count = 0.0, 0.0, 0
    for n in range(2):
        negatives, positives = [], 0
        for r in range(40):
            label = labels[n, r].item()
            if label == -1:
                continue
            loss = -(logits[n, r] - logits[n, r].logsumexp(0))[label]
            if label == NUM_CLASSES:
                negatives.append(loss)
                continue
            cls, positives = cls + loss, positives + 1
            a, g = anchors[r], gt_boxes[n, r]
            size, gt_size = a[2:] - a[:2], g[2:] - g[:2]
            # The centre's distance over the size over 0.1, the sizes' log ratio over 0.2.
            center = ((g[2:] + g[:2]) / 2 - (a[2:] + a[:2]) / 2) / size / 0.1
            target = torch.cat([center, (gt_size / size).log() / 0.2])
            x = (deltas[n, r] - target).abs()
            box = box + torch.where(x < 1, x**2 / 2, x - 0.5).sum()
        negatives.sort(key=lambda loss: -loss.item())
        cls, count = cls + sum(negatives[: math.floor(ratio * positives)]), count + positives
    torch.testing.assert_close(losses["loss_cls"], cls / count)
    torch.testing.assert_close(losses["loss_box_reg"], box / count)
    assert scalars["num_pos_anchors"] == 2.5 and "w_loc" not in scalars
    inputs = (logits, deltas)
    ours = torch.autograd.grad(sum(losses.values()), inputs)
    theirs = torch.autograd.grad((cls + box) / count, inputs)
    torch.testing.assert_close(ours, theirs)
    # Positives and 3 (or 1) negatives for each: 3 + 9 and 2 + 6.
    rows = (ours[0] != 0).any(dim=2).sum(dim=1).tolist()
    assert rows == ([12, 8] if ratio == 3.0 else [3 + 4, 2 + 3])


class Reweighted(nn.Module):
    """A loss that gives background boxes another rank than cross entropy does."""

    reduction = "none"

    def forward(self, logits, labels):
        terms = SoftmaxCrossEntropyLoss(reduction="none")(logits, labels)
        return terms * torch.linspace(1, 0, len(terms)) ** 40


def test_negatives_are_mined_after_the_loss_has_weighted_them():
    config = small_ssd()
    config.cls_loss = L(Reweighted)()
    anchors, labels, gt_boxes, logits, deltas = random_predictions()
    losses, _ = losses_of(build(config), anchors, labels, gt_boxes, logits, deltas)
    terms = Reweighted()(logits.flatten(0, 1), labels.flatten()).view(2, 40)
    background = labels == NUM_CLASSES
    expected = sum(
        terms[n][~background[n]].sum() + terms[n][background[n]].sort().values[-k:].sum()
        for n, k in [(0, 9), (1, 6)]
    )
    torch.testing.assert_close(losses["loss_cls"], expected / 5)
    grad = torch.autograd.grad(losses["loss_cls"], logits)[0]
    assert grad[0, 20:].eq(0).all(dim=1).sum() == 19  # all but the positive: low weights


def test_balanced_losses_keep_the_sums_and_move_the_gradients():
    data = random_predictions()
    plain, _ = losses_of(build(small_ssd()), *data)
    model = build(balance(small_ssd(), measure_iterations=1))
    losses, scalars = losses_of(model, *data)
    assert isinstance(model.cls_loss, IoUBalancedCrossEntropyLoss)
    assert isinstance(model.box_loss, IoUBalancedSmoothL1Loss) and model.box_loss.beta == 1.0
    # Eq. 4 leaves the sum of the positives, the negatives are the same ones; "auto" is 1 / mean.
    for name in plain:
        torch.testing.assert_close(losses[name], plain[name])
    assert scalars["w_loc"] == model.box_loss.w_loc > 1
    logits, deltas = data[3:]
    for name, x in [("loss_cls", logits), ("loss_box_reg", deltas)]:
        before, after = (torch.autograd.grad(y[name], x)[0] for y in (plain, losses))
        positive = (data[1] >= 0) & (data[1] < NUM_CLASSES)
        assert torch.equal(before[~positive], after[~positive])
        assert (before - after).norm() > 0.01 * before.norm()


class TestMining:
    K = 2

    def mined(self, terms, labels, ratio=3.0):
        mask = mine_hard_negatives(torch.tensor(terms), torch.tensor(labels), self.K, ratio)
        assert mask.dtype == torch.bool and mask.shape == (len(terms), len(terms[0]))
        return [row.nonzero().flatten().tolist() for row in mask]

    def test_the_highest_of_each_image(self):
        terms = [[9.0, 1, 5, 2, 4, 3], [1.0, 2, 3, 4, 5, 9]]
        labels = [[0, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 1]]
        assert self.mined(terms, labels) == [[2, 4, 5], [2, 3, 4]]
        assert self.mined(terms, labels, ratio=1.0) == [[2], [4]]
        # floor(2.9 * 1)
        assert self.mined(terms, labels, ratio=2.9) == [[2, 4], [3, 4]]

    def test_each_image_counts_for_itself(self):
        terms = [[1.0] * 3 + [9.0] * 5, [1.0, 1, 1, 2, 3, 4, 5, 6]]
        labels = [[2] * 8, [0, 1, 2, 2, 2, 2, 2, 2]]
        # No positives, no negatives; and of two positives six, which is all that there are.
        assert self.mined(terms, labels) == [[], [2, 3, 4, 5, 6, 7]]
        assert self.mined(terms[:1], labels[:1]) == [[]]

    def test_fewer_background_boxes_than_wanted(self):
        assert self.mined([[1.0, 2, 3, 4]], [[0, 1, 2, 0]]) == [[2]]
        assert self.mined([[1.0, 2]], [[0, 1]]) == [[]]

    def test_ignored_boxes_are_never_mined(self):
        assert self.mined([[1.0, 9, 3, 2]], [[0, -1, 2, 2]], ratio=1.0) == [[2]]
        # Nor where all cost nothing.
        assert self.mined([[0.0] * 6], [[0, -1, -1, -1, 2, 2]]) == [[4, 5]]

    def test_equal_losses(self):
        (mined,) = self.mined([[7.0] + [1.0] * 6 + [2.0]], [[0] + [2] * 7], ratio=4.0)
        assert len(mined) == 4 and 7 in mined

    def test_no_images(self):
        assert mine_hard_negatives(torch.zeros(0, 4), torch.zeros(0, 4).long(), 2).shape == (0, 4)


class TestLossesThatCannotBeMined:
    @pytest.mark.parametrize("loss", [SigmoidFocalLoss, IoUBalancedFocalLoss])
    def test_a_sigmoid_loss(self, loss):
        config = small_ssd()
        config.cls_loss = L(loss)(reduction="none")
        message = rf"`cls_loss` to be a softmax loss, because .* background.*{loss.__name__}"
        with pytest.raises(ValueError, match=message):
            build(config)

    @pytest.mark.parametrize("loss", [SoftmaxCrossEntropyLoss, IoUBalancedCrossEntropyLoss])
    @pytest.mark.parametrize("reduction", ["sum", "mean"])
    def test_a_loss_that_is_a_sum(self, loss, reduction):
        config = small_ssd()
        config.cls_loss = L(loss)(reduction=reduction)
        with pytest.raises(ValueError, match=rf"'none'.* mined .*{loss.__name__}.*'{reduction}'"):
            build(config)

    def test_a_loss_with_other_terms(self):
        config = small_ssd()
        config.cls_loss = L(PerColumn)()
        message = r"one term a row, 80 in all, but PerColumn gave \(80, 4\)"
        with pytest.raises(ValueError, match=message):
            losses_of(build(config), *random_predictions())


class PerColumn(nn.Module):
    reduction = "none"

    def forward(self, logits, labels):
        return logits
