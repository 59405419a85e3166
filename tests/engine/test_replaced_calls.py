"""One override puts a loss of the family in the place of another, with its paper's settings."""

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf

from iou_balanced.engine.config import apply_overrides
from iou_balanced.losses import (
    CorrelationLoss,
    EqualizedFocalLoss,
    IoUAwareBCELoss,
    IoUBalancedFocalLoss,
    IoUBalancedPenaltyReducedFocalLoss,
    MatchabilityAwareLoss,
    PenaltyReducedFocalLoss,
    QualityFocalLoss,
    SigmoidFocalLoss,
    TaskAlignedBCELoss,
    VarifocalLoss,
)

TARGET = "model.cls_loss._target_=iou_balanced.losses."


def config_with(loss):
    return OmegaConf.create({"model": {"cls_loss": loss}}, flags={"allow_objects": True})


def cls_loss_after(loss, *overrides):
    return instantiate(apply_overrides(config_with(loss), list(overrides)).model.cls_loss)


@pytest.mark.parametrize(
    "loss",
    [VarifocalLoss, MatchabilityAwareLoss, IoUAwareBCELoss, TaskAlignedBCELoss, QualityFocalLoss],
)
def test_settings_of_the_old_loss_are_not_taken_for_those_of_the_new(loss):
    old = L(IoUBalancedFocalLoss)(eta=1.5, alpha=0.4, gamma=1.0, across_processes=False)
    made = cls_loss_after(old, TARGET + loss.__name__)
    assert type(made) is loss
    assert made.arguments() == {**loss().arguments(), "across_processes": False}


def test_heat_maps_and_labels_share_no_exponents():
    heat = L(PenaltyReducedFocalLoss)(alpha=2.0, beta=4.0, reduction="mean")
    made = cls_loss_after(heat, TARGET + "EqualizedFocalLoss")
    assert (made.alpha, made.gamma, made.reduction) == (0.25, 2.0, "mean")
    assert (
        cls_loss_after(L(SigmoidFocalLoss)(alpha=0.4), TARGET + "PenaltyReducedFocalLoss").alpha
        == 2
    )
    # Within either family they stay.
    heat.beta = 3.0
    assert cls_loss_after(heat, TARGET + "IoUBalancedPenaltyReducedFocalLoss").beta == 3
    focal = L(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)
    made = cls_loss_after(focal, TARGET + "EqualizedFocalLoss")
    assert type(made) is EqualizedFocalLoss and (made.alpha, made.gamma) == (0.4, 1.5)
    assert IoUBalancedPenaltyReducedFocalLoss.of_heatmaps and PenaltyReducedFocalLoss.of_heatmaps


def test_settings_beside_it_count():
    old = L(SigmoidFocalLoss)(alpha=0.25, gamma=2.0)
    made = cls_loss_after(old, "model.cls_loss.gamma=1.0", TARGET + "VarifocalLoss")
    assert (made.alpha, made.gamma) == (0.75, 1.0)


def test_the_same_loss_keeps_its_settings():
    made = cls_loss_after(L(VarifocalLoss)(gamma=1.0), TARGET + "VarifocalLoss")
    assert made.gamma == 1.0


def test_correlation_loss_takes_the_loss_that_stands_there():
    old = L(SigmoidFocalLoss)(alpha=0.4, gamma=1.5)
    made = cls_loss_after(old, TARGET + "CorrelationLoss", "model.cls_loss.kind=spearman")
    assert type(made) is CorrelationLoss and made.kind == "spearman"
    assert (made.loss.alpha, made.loss.gamma) == (0.4, 1.5)
    inner = "model.cls_loss.loss._target_=iou_balanced.losses.VarifocalLoss"
    made = cls_loss_after(old, TARGET + "CorrelationLoss", inner)
    assert type(made.loss) is VarifocalLoss and made.loss.alpha == 0.75
