"""Every member of the family in a model that is compiled, and with debugging on."""

import math

import pytest
import torch

from iou_balanced import losses
from iou_balanced.losses.debug import set_debug

K = 3
LABELS = torch.tensor([[0, 1, K, -1], [K, 2, K, K]])
POS_IOU = torch.tensor([0.5, 0.0, 1.0])  # 0: a positive that varifocal loss takes as a negative
MEMBERS = (
    losses.QualityFocalLoss,
    losses.VarifocalLoss,
    losses.MatchabilityAwareLoss,
    losses.IoUAwareBCELoss,
    losses.TaskAlignedBCELoss,
    losses.CorrelationLoss,
    losses.EqualizedFocalLoss,
    losses.EqualizationLossV2,
    losses.SeesawLoss,
)


def call(loss, logits, **kwargs):
    if getattr(loss, "is_softmax", False):
        logits = [torch.cat([logits, torch.zeros_like(logits[..., :1])], dim=-1)]  # by level
    if getattr(loss, "needs_pos_object", False):
        kwargs["pos_object"] = torch.tensor([0, 1, 1])
    return loss(logits, LABELS, *([POS_IOU] if loss.needs_pos_iou else []), **kwargs)


@pytest.mark.parametrize(
    "member",
    [losses.VarifocalLoss, losses.EqualizedFocalLoss, losses.EqualizationLossV2],
)
def test_torch_compile_of_the_model_around_it(member):
    # Traced, the own elements had another gradient.
    grads, sums = [], []
    for compiled in (False, True):
        loss = member()
        logits = torch.linspace(-2, 2, 8 * K).view(2, 4, K).requires_grad_()

        def model(x, loss=loss):
            return call(loss, 2 * x)

        (torch.compile(model, backend="eager") if compiled else model)(logits).backward()
        grads.append(logits.grad)
        sums.append(loss.statistics.sums if hasattr(loss, "statistics") else torch.ones(1))
    assert (grads[0][LABELS >= 0] != 0).any()
    torch.testing.assert_close(grads[1], grads[0])
    torch.testing.assert_close(sums[1], sums[0])


@pytest.mark.parametrize("member", MEMBERS)
def test_debugging_names_bad_values(member):
    set_debug(True)
    try:
        logits = torch.zeros(2, 4, K)
        logits[1, 2, 0] = math.nan
        with pytest.raises(
            ValueError, match=r"`pred_logits.* finite, but got nan at row \[1, 2, 0"
        ):
            call(member(), logits)
        with pytest.raises(ValueError, match=r"`class_weight` .* but got -1 at row \[1\]"):
            call(member(), torch.zeros(2, 4, K), class_weight=torch.tensor([1.0, -1.0, 1.0]))
    finally:
        set_debug(None)
