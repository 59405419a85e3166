"""With debugging on, values that make no sense are named with their row; off, nothing is done."""

import math

import pytest
import torch

from iou_balanced import losses
from iou_balanced.losses import value_checks
from iou_balanced.losses.debug import VARIABLE, set_debug

K = 3
NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def debugging():
    set_debug(True)
    yield
    set_debug(None)


def logits(columns=K):
    return torch.zeros(2, 4, columns)


def labels():
    return torch.tensor([[0, 1, K, -1], [K, 2, K, K]])  # 3 positives


def pos_iou():
    return torch.tensor([0.5, 0.0, 1.0])


CLASSIFICATION = {
    losses.SigmoidFocalLoss(): (K, False),
    losses.IoUBalancedFocalLoss(eta=1.5): (K, True),
    losses.QualityFocalLoss(): (K, True),
    losses.SoftmaxCrossEntropyLoss(): (K + 1, False),
    losses.IoUBalancedCrossEntropyLoss(): (K + 1, True),
}
PARAMETERS = [(loss, *rest) for loss, rest in CLASSIFICATION.items()]
IDS = [type(loss).__name__ for loss in CLASSIFICATION]


def call(loss, scores, gt_labels, iou, takes_iou, **kwargs):
    if isinstance(scores, torch.Tensor) and getattr(loss, "is_softmax", False):
        scores = [scores]  # a whole batch comes by level
    return loss(scores, gt_labels, *([iou] if takes_iou else []), **kwargs)


@pytest.mark.parametrize(("loss", "columns", "takes_iou"), PARAMETERS, ids=IDS)
class TestClassification:
    def test_good_values_pass(self, loss, columns, takes_iou):
        assert call(loss, logits(columns), labels(), pos_iou(), takes_iou).isfinite()

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_logits(self, loss, columns, takes_iou, value):
        scores = logits(columns)
        scores[1, 2, 0] = scores[1, 3, 1] = value
        message = (
            rf"`pred_logits(\[0\])?` to be finite, but got {value:g} at row \[1, 2, 0\], and 2 of "
        )
        with pytest.raises(ValueError, match=message):
            call(loss, scores, labels(), pos_iou(), takes_iou)

    def test_logits_of_levels(self, loss, columns, takes_iou):
        levels = [logits(columns)[:, :3], logits(columns)[:, 3:].clone()]
        levels[1][0, 0, 0] = NAN
        with pytest.raises(
            ValueError, match=r"`pred_logits\[1\]` to be finite, but got nan at row"
        ):
            call(loss, levels, labels(), pos_iou(), takes_iou)

    @pytest.mark.parametrize("value", [-2, K + 1, 255])
    def test_labels(self, loss, columns, takes_iou, value):
        gt_labels = labels()
        gt_labels[1, 3] = value
        message = rf"`gt_labels` to be in -1\.\.3 \(.*, but got {value} at row \[1, 3\], and 1 of 8"
        with pytest.raises(ValueError, match=message):
            call(loss, logits(columns), gt_labels, pos_iou(), takes_iou)

    @pytest.mark.parametrize("value", [1e6, -0.1, NAN, 1.01])
    def test_iou(self, loss, columns, takes_iou, value):
        if not takes_iou:
            return
        iou = pos_iou()
        iou[1] = value
        with pytest.raises(
            ValueError, match=r"`pos_iou` to be in \[0, 1\], but got .* at row \[1\]"
        ):
            call(loss, logits(columns), labels(), iou, takes_iou)

    def test_class_weights(self, loss, columns, takes_iou):
        weight = torch.ones(2, K)
        weight[0, 1] = -1
        if isinstance(loss, losses.QualityFocalLoss):
            return  # takes none
        with pytest.raises(
            ValueError, match=r"`class_weight` to be at least 0, but got -1 at row \["
        ):
            call(loss, logits(columns), labels(), pos_iou(), takes_iou, class_weight=weight)


@pytest.mark.parametrize(
    "loss",
    [
        losses.SmoothL1Loss(beta=0.1),
        losses.GIoULoss(),
        losses.IoUBalancedSmoothL1Loss(beta=0.1),
        losses.IoUBalancedCIoULoss(weight="auto"),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_boxes(loss):
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5]])
    iou = [torch.tensor([0.5, 0.7])] if loss.needs_pos_iou else []
    assert loss(boxes, boxes + 1, *iou).isfinite()
    for place in (0, 1):
        arguments = [boxes.clone(), boxes + 1]
        arguments[place][1, 2] = INF
        name = ("pred", "target")[place]
        with pytest.raises(
            ValueError, match=rf"`{name}` to be finite, but got inf at row \[1, 2\]"
        ):
            loss(*arguments, *iou)
    if iou:
        with pytest.raises(
            ValueError, match=r"`pos_iou` to be in \[0, 1\], but got 2 at row \[0\]"
        ):
            loss(boxes, boxes + 1, torch.tensor([2.0, 0.5]))


@pytest.mark.parametrize("function", [losses.giou_loss, losses.diou_loss, losses.ciou_loss])
def test_functions_of_boxes(function):
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    with pytest.raises(ValueError, match=r"`gt_boxes` to be finite, but got nan at row \[0, 3\]"):
        function(boxes, torch.tensor([[0.0, 0, 4, NAN]]))


@pytest.mark.parametrize(
    "loss", [losses.PenaltyReducedFocalLoss(), losses.IoUBalancedPenaltyReducedFocalLoss()]
)
def test_heat_maps(loss):
    scores, heatmap = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    heatmap[0, 1, 1, 1] = 1
    iou = [torch.tensor([0.5])] if loss.needs_pos_iou else []
    assert loss(scores, heatmap, *iou).isfinite()
    heatmap[0, 0, 2, 1] = 1.5
    with pytest.raises(
        ValueError, match=r"`gt_heatmap` to be in \[0, 1\], but got 1\.5 at row \[0"
    ):
        loss(scores, heatmap, *iou)


def test_nothing_is_looked_at_when_it_is_off(monkeypatch):
    set_debug(None)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(value_checks, "_check", None)
    monkeypatch.setattr(value_checks, "_check_all", None)
    loss = losses.IoUBalancedFocalLoss()
    iou = torch.tensor([0.5, 0.7, 1.0])
    loss(logits(), labels(), iou)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(TypeError):
        loss(logits(), labels(), iou)


def test_the_environment_switches_it_on(monkeypatch):
    set_debug(None)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(ValueError, match="`pos_iou` to be in"):
        losses.QualityFocalLoss()(logits(), labels(), torch.tensor([0.5, 1e6, 1.0]))


def test_names_and_signatures_stay():
    assert losses.sigmoid_focal_loss.__name__ == "sigmoid_focal_loss"
    assert "pred_logits" in losses.sigmoid_focal_loss.__doc__
    import inspect

    assert "alpha" in inspect.signature(losses.sigmoid_focal_loss).parameters


def test_the_same_numbers_on_and_off():
    torch.manual_seed(0)
    scores = torch.randn(2, 4, K, requires_grad=True)
    values = []
    for on in (True, False):
        set_debug(on)
        loss = losses.IoUBalancedFocalLoss()(scores, labels(), pos_iou())
        (grad,) = torch.autograd.grad(loss, scores)
        values.append((loss.item(), grad.tolist()))
    assert values[0] == values[1]
