"""Labels that are none: the same error from every loss of class labels."""

import pytest
import torch

from iou_balanced import losses as L
from iou_balanced.losses import checks

K = 4
POS_IOU = torch.tensor([0.5, 0.7])
LOSSES = {
    "focal": lambda x, y: L.sigmoid_focal_loss(x[..., :K], y),
    "module focal": lambda x, y: L.SigmoidFocalLoss()(x[..., :K], y),
    "balance-oriented focal": lambda x, y: L.balance_oriented_focal_loss(
        x[None, :, :K], y[None], torch.ones(1, K)
    ),
    "IoU-balanced focal": lambda x, y: L.iou_balanced_focal_loss(x[..., :K], y, POS_IOU),
    "module IoU-balanced focal": lambda x, y: L.IoUBalancedFocalLoss()(x[..., :K], y, POS_IOU),
    "quality focal": lambda x, y: L.quality_focal_loss(x[..., :K], y, POS_IOU),
    "cross entropy": lambda x, y: L.SoftmaxCrossEntropyLoss()(x, y),
    "IoU-balanced cross entropy": lambda x, y: L.iou_balanced_cross_entropy(x, y, POS_IOU),
    "focal, levels": lambda x, y: L.sigmoid_focal_loss([x[None, :3, :K], x[None, 3:, :K]], y[None]),
    "cross entropy, levels": lambda x, y: L.SoftmaxCrossEntropyLoss()(
        [x[None, :3], x[None, 3:]], y[None]
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("value", [255, K + 1, -2, -100])
def test_out_of_range(name, value, dtype):
    labels = torch.tensor([0, K, -1, 2, value], dtype=dtype)
    message = (
        rf"^Expected argument `gt_labels` to be in -1\.\.4 \(-1 ignored, 0\.\.3 foreground, 4 "
        rf"background\), but got {value}: .* the 255 .* other frameworks to -1$"
    )
    with pytest.raises(ValueError, match=message):
        LOSSES[name](torch.randn(5, K + 1), labels)


@every_loss
def test_the_whole_range_is_allowed(name):
    for labels in ([0, K, -1, K - 1, K], [-1, -1, K, 0, 1]):
        assert LOSSES[name](torch.randn(5, K + 1), torch.tensor(labels)).isfinite()


@every_loss
@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.int8])
def test_other_integers_say_how_to_convert_them(name, dtype):
    """They are class indices, and no one-hot targets."""
    labels = torch.tensor([0, K, 1, K, K]).to(dtype)
    with pytest.raises(ValueError, match=rf"got dtype {dtype}: give gt_labels\.long\(\)$") as e:
        LOSSES[name](torch.randn(5, K + 1), labels)
    assert "one-hot" not in str(e.value)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_one_hot_targets(name, dtype):
    with pytest.raises(ValueError, match=rf"never one-hot targets, but got dtype {dtype}"):
        LOSSES[name](torch.randn(5, K + 1), torch.zeros(5, dtype=dtype))


def test_a_gpu_is_not_waited_for(monkeypatch):
    """Labels elsewhere than on the CPU are not looked at, but by those who ask for it."""
    logits, labels = (torch.empty(5, *s, device="meta") for s in ((K,), ()))
    checks.check_labels(logits, labels.long(), K)
    looked = []
    monkeypatch.setattr(checks, "check_label_values", lambda *args: looked.append(args))
    checks.check_labels(logits, labels.long(), K)
    assert not looked
    checks.check_labels(torch.empty(5, K), torch.zeros(5, dtype=torch.int64), K)
    assert len(looked) == 1


def test_no_labels_are_no_error():
    checks.check_label_values(torch.zeros(0, dtype=torch.int64), K)
