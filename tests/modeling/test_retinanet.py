import pytest
import torch
from detectron2.config import LazyCall
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import nn
from torchvision.ops import box_iou

from iou_balanced.losses import IoUBalancedFocalLoss, SigmoidFocalLoss, SmoothL1Loss
from iou_balanced.modeling import BalancedRetinaNet, balance

from .detector_mixin import (
    DetectorMixin,
    build,
    gradients,
    make_input,
    small_retinanet,
    training_step,
    without_boxes,
)


def balanced():
    return balance(small_retinanet())


def plain(beta=None):
    return balance(small_retinanet(), eta=None, lam=None, beta=beta)


class TestRetinaNet(DetectorMixin):
    config, stock_config = staticmethod(balanced), staticmethod(small_retinanet)


class TestPlainRetinaNet(DetectorMixin):
    config, stock_config = staticmethod(plain), staticmethod(small_retinanet)


class TestRetinaNetWithBatchNorm(DetectorMixin):
    config = staticmethod(lambda: balance(small_retinanet("BN")))
    stock_config = staticmethod(lambda: small_retinanet("BN"))


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_plain_losses_equal_the_stock_detectors(beta):
    stock_config = small_retinanet()
    stock_config.smooth_l1_beta = beta
    ours, stock = build(plain(beta)), build(stock_config)
    ours.load_state_dict(stock.state_dict())
    batches = [
        [make_input(), make_input()],
        [without_boxes(), make_input([[4, 4, 90, 90]], [1])],
        [without_boxes()],
        [make_input(), without_boxes()],
    ]
    # Several steps: the moving average of the normaliser and the parameters go along.
    for batch in batches:
        losses, expected = training_step(ours, batch), training_step(stock, batch)
        assert losses.keys() == expected.keys()
        for name in losses:
            torch.testing.assert_close(losses[name], expected[name])
        expected_gradients = gradients(stock)
        for name, grad in gradients(ours).items():
            # Rounding, relative to the largest entry of the tensor.
            scale = expected_gradients[name].abs().max().item()
            torch.testing.assert_close(
                grad, expected_gradients[name], rtol=1e-4, atol=1e-5 * scale + 1e-12, msg=name
            )
        for model in (ours, stock):
            torch.optim.SGD(model.parameters(), lr=0.01).step()


def test_defaults_are_the_stock_losses():
    config = small_retinanet()
    config._target_ = BalancedRetinaNet
    for key in ["focal_loss_alpha", "focal_loss_gamma"]:
        del config[key]
    losses = training_step(build(config), batch := [make_input()])
    expected = training_step(build(small_retinanet()), batch)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name])


@pytest.mark.parametrize(
    "eta, lam, decodes", [(None, None, 0), (0, 0, 0), (1.5, None, 1), (0, 1, 1)]
)
def test_boxes_are_decoded_only_where_a_loss_needs_them(monkeypatch, eta, lam, decodes):
    calls, original = [], Box2BoxTransform.apply_deltas
    monkeypatch.setattr(
        Box2BoxTransform,
        "apply_deltas",
        lambda self, deltas, boxes: calls.append(len(deltas)) or original(self, deltas, boxes),
    )
    model = build(balance(small_retinanet(), eta=eta, lam=lam))
    training_step(model, [make_input()])
    # Once, and only the positives.
    assert len(calls) == decodes and all(0 < n < 200 for n in calls)


def test_the_balanced_losses_change_the_gradients_not_the_first_value():
    # Eq. 4 keeps the sum of the positives, and "auto" that of the first localization loss.
    plain_model = build(plain(1 / 9))
    model = build(balance(small_retinanet(), measure_iterations=1))
    batch = [make_input(), make_input()]
    expected, losses = training_step(plain_model, batch), training_step(model, batch)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name])
    before, after = gradients(plain_model), gradients(model)
    for name in ["head.cls_score.weight", "head.bbox_pred.weight"]:
        assert (before[name] - after[name]).norm() > 0.01 * before[name].norm(), name
    assert model.box_loss.w_loc > 1


class Spy(nn.Module):
    """Keeps what a detector calls its loss with."""

    needs_pos_iou = True

    def forward(self, pred, target, pos_iou):
        self.seen = pred, target, pos_iou
        return pred.sum()


def test_what_the_losses_are_called_with():
    # Two images, two levels of three and two anchors, by hand: which are positives, and for
    # which box. Every anchor's IoU is another one, so that no other order gives the same list.
    config = plain()
    config.cls_loss = config.box_loss = LazyCall(Spy)()
    model = build(config)
    corner = torch.rand(5, 2) * 40
    anchors = torch.cat([corner, corner + 10 + torch.rand(5, 2) * 30], dim=1)
    gt_labels = torch.tensor([[2, 3, 0, -1, 1], [3, 1, -1, 0, 3]])
    shift = torch.randn(2, 5, 4) * 3
    gt_boxes = anchors + shift
    logits, deltas = torch.randn(2, 5, 3), (torch.randn(2, 5, 4) * 0.2).requires_grad_()
    with EventStorage() as storage:
        losses = model.losses(
            [Boxes(anchors[:3]), Boxes(anchors[3:])],
            [logits[:, :3], logits[:, 3:]],
            list(gt_labels),
            [deltas[:, :3], deltas[:, 3:]],
            list(gt_boxes),
        )
        assert storage.latest()["num_pos_anchors"][0] == 2.5
    expected_iou, expected_deltas, expected_targets = [], [], []
    for image in range(2):
        for anchor in range(5):
            if gt_labels[image, anchor] not in (0, 1, 2):
                continue
            d, a = deltas[image, anchor].detach(), anchors[anchor]
            # R-CNN's encoding, by hand.
            size = a[2:] - a[:2]
            center, new_size = (a[:2] + a[2:]) / 2 + d[:2] * size, size * d[2:].exp()
            box = torch.cat([center - new_size / 2, center + new_size / 2])
            expected_iou.append(box_iou(box[None], gt_boxes[image, anchor][None]).item())
            expected_deltas.append(d)
            t = gt_boxes[image, anchor]
            t_size = t[2:] - t[:2]
            offset = ((t[:2] + t[2:]) / 2 - (a[:2] + a[2:]) / 2) / size
            expected_targets.append(torch.cat([offset, (t_size / size).log()]))
    seen_logits, seen_labels, pos_iou = model.cls_loss.seen
    assert torch.equal(seen_logits, logits) and torch.equal(seen_labels, gt_labels)
    torch.testing.assert_close(pos_iou, torch.tensor(expected_iou))
    assert len(set(pos_iou.tolist())) == 5
    seen_deltas, seen_targets, box_pos_iou = model.box_loss.seen
    assert torch.equal(box_pos_iou, pos_iou)
    assert seen_deltas.requires_grad and not pos_iou.requires_grad
    assert torch.equal(seen_deltas, torch.stack(expected_deltas))
    torch.testing.assert_close(seen_targets, torch.stack(expected_targets))
    # The moving average starts at 100: 0.9 * 100 + 0.1 * 5.
    torch.testing.assert_close(losses["loss_cls"], logits.sum() / 90.5)
    torch.testing.assert_close(losses["loss_box_reg"], seen_deltas.sum() / 90.5)


def test_no_gradient_reaches_the_box_head_through_the_classification_loss():
    model = build(balanced())
    with EventStorage():
        model([make_input()])["loss_cls"].backward()
    assert gradients(model)["head.bbox_pred.weight"] is None
    assert gradients(model)["head.cls_score.weight"].abs().max() > 0


def test_a_loss_of_ones_own():
    config = balanced()
    config.cls_loss = LazyCall(SigmoidFocalLoss)(gamma=1.0)
    model = build(config)
    assert model.cls_loss.gamma == 1.0
    config.cls_loss = LazyCall(IoUBalancedFocalLoss)(eta=2.0)
    config.box_loss = LazyCall(SmoothL1Loss)(beta=0.2)
    model = build(config)
    assert model.cls_loss.eta == 2.0 and model.box_loss.beta == 0.2


def test_unusable_ground_truth_does_not_disturb_inference():
    model = build(balanced()).eval()
    with torch.no_grad():
        assert "instances" in model([make_input([[5, 5, 5, 5]], [9])])[0]
