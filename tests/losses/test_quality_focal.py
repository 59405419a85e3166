"""Quality focal loss; with class weights and levels see `test_class_weights`."""

import pytest
import torch

from iou_balanced.losses import QualityFocalLoss, quality_focal_loss, sigmoid_focal_loss

from .test_class_weights import LABELS, example


def test_quality_focal_with_perfect_boxes_is_focal_loss():
    logits = example()
    ours = quality_focal_loss(logits, LABELS, torch.ones(9), beta=2.0)
    assert ours.item() == pytest.approx(
        sigmoid_focal_loss(logits, LABELS, alpha=-1, gamma=2.0).item(), rel=1e-12
    )


def test_quality_focal_by_hand():
    """One row of class 0, IoU 0.6, scores 1/2: (0.1^2 + 0.5^2) ln 2 = 0.26 ln 2.

    Derivative in the own column: 2 * 0.1 * -1 * 1/4 * ln 2 + 0.01 * -0.1 = -0.05 ln 2 - 0.001;
    in the other: 2 * 0.5 * 1/4 * ln 2 + 0.25 * 0.5 = 0.25 ln 2 + 0.125.
    """
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss = QualityFocalLoss()(logits, torch.tensor([0]), torch.tensor([0.6]).double())
    loss.backward()
    ln2 = 0.6931471805599453
    assert loss.item() == pytest.approx(0.26 * ln2, rel=1e-7)
    assert logits.grad[0].tolist() == pytest.approx([-0.05 * ln2 - 0.001, 0.25 * ln2 + 0.125])


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_quality_focal_gradcheck(beta):
    target = torch.tensor([0.2, 0.5, 1.0, 0.0, 0.3, 0.8, 0.9, 0.4, 0.6]).double()
    assert torch.autograd.gradcheck(
        lambda x: quality_focal_loss(x, LABELS, target, beta=beta), example().requires_grad_()
    )


def test_quality_focal_at_its_target_has_no_gradient():
    """|p - y| = 0: of a power below 1 too the derivative is 0, not NaN."""
    for beta in (0.5, 1.0, 2.0):
        logits = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
        quality_focal_loss(logits, torch.tensor([0]), torch.tensor([0.5]), beta=beta).backward()
        assert logits.grad.item() == 0
