"""FoveaBox's losses: by hand, against a naive computation, and over two processes."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.config import LazyCall
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import nn
from torchvision.ops import box_iou, sigmoid_focal_loss

from iou_balanced.losses import GIoULoss
from iou_balanced.modeling import LossNormalizer

from ...processes import run_in_two_processes
from ..detector_mixin import (
    NUM_CLASSES,
    build,
    gradients,
    make_input,
    training_step,
    without_boxes,
)
from .foveabox_models import BASE_SIZES, STRIDES, balanced, labels_of, small_foveabox


def naive_losses(model, batch):
    """FoveaBox's losses on one-hot targets, without any of the package but the labels."""
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    logits, deltas = model.head([features[f] for f in model.head_in_features])
    logits, deltas = (
        torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1)
        for levels in (logits, deltas)
    )
    _, labels, boxes = labels_of(model, batch, images.tensor.shape[-2:])
    labels, boxes = torch.stack(labels), torch.stack(boxes)
    points, sizes = [], []
    for stride, size, name in zip(STRIDES, BASE_SIZES, model.head_in_features, strict=True):
        height, width = features[name].shape[-2:]
        points += [
            ((x + 0.5) * stride, (y + 0.5) * stride) for y in range(height) for x in range(width)
        ]
        sizes += [size] * (height * width)
    one_hot = F.one_hot(labels, NUM_CLASSES + 1)[..., :-1].float()
    loss_cls = sigmoid_focal_loss(logits, one_hot, alpha=0.4, gamma=1.5, reduction="sum")
    loss_box, count = deltas.sum() * 0, 0
    for n, r in (labels < NUM_CLASSES).nonzero().tolist():
        (x, y), (x1, y1, x2, y2) = points[r], boxes[n, r].tolist()
        ratios = [distance / sizes[r] for distance in (x - x1, y - y1, x2 - x, y2 - y)]
        target = torch.tensor([math.log(min(max(ratio, 1 / 16), 16)) for ratio in ratios])
        loss_box = loss_box + F.smooth_l1_loss(deltas[n, r], target, beta=0.11, reduction="sum")
        count += 1
    return {
        "loss_cls": loss_cls / (count + len(batch)),
        "loss_box_reg": loss_box / max(count, 1),
    }, count


@pytest.mark.parametrize(
    "make_batch",
    [
        lambda: [make_input(), make_input([[4, 4, 90, 90]], [1]), without_boxes()],
        lambda: [make_input([[3, 40, 105, 52], [30, 30, 36, 34]], [0, 1])],
        lambda: [without_boxes(), without_boxes()],
    ],
    ids=["some", "odd shapes", "none"],
)
def test_plain_losses_equal_a_naive_computation(make_batch):
    model, batch = build(small_foveabox()), make_batch()
    expected, count = naive_losses(model, batch)
    sum(expected.values()).backward()
    expected_gradients = gradients(model)
    losses = training_step(model, batch)
    assert losses.keys() == expected.keys() and (count > 0) == (losses["loss_box_reg"] > 0)
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name], rtol=1e-5, atol=1e-7)
    for name, grad in gradients(model).items():
        scale = expected_gradients[name].abs().max().item()
        torch.testing.assert_close(
            grad, expected_gradients[name], rtol=1e-4, atol=1e-5 * scale + 1e-12, msg=name
        )


class Spy(nn.Module):
    """Keeps what a detector calls its loss with."""

    needs_pos_iou = True

    def forward(self, pred, target, pos_iou):
        self.seen = pred, target, pos_iou
        return pred.sum()


def losses_by_hand(deltas, gt_boxes, gt_labels, **config):
    """Two images and three points of one level, (50, 50), (58, 50), (66, 50), base size 16."""
    model = small_foveabox()
    model.update(config)
    model = build(model)
    centers = torch.tensor([[50.0, 50], [58, 50], [66, 50]])
    with EventStorage() as storage:
        losses = model.losses(
            [Boxes(torch.cat([centers - 8, centers + 8], dim=1))],
            [torch.ones(2, 3, NUM_CLASSES)],
            list(gt_labels),
            [deltas],
            list(gt_boxes),
        )
    return model, losses, storage.latest()


def test_pos_iou_is_that_with_the_real_box_and_not_with_the_clamped_targets():
    deltas = torch.zeros(2, 3, 4)  # 16 px to each side: [34, 34, 66, 66] at the first point
    # 0.4 px to the left of the first point, 15.6 to its right, 16 up and down: the target's left
    # is 1 px. The IoU is 16 * 32 / 32^2 = 0.5; with the target's box it would be 0.5188.
    # 400 px to the right of the last point, [82 - 32, 34, 82, 66] regressed; 16 px else: 32 of
    # the real box's 416 px are met, 0.0769; with the target's 256 px it would be 0.1176.
    gt_boxes = torch.zeros(2, 3, 4)
    gt_boxes[0, 0] = torch.tensor([49.6, 34, 65.6, 66])
    gt_boxes[1, 2] = torch.tensor([50.0, 34, 466, 66])
    gt_labels = torch.tensor([[2, 3, 3], [3, 3, 0]])
    spy = LazyCall(Spy)()
    model, _, _ = losses_by_hand(deltas, gt_boxes, gt_labels, cls_loss=spy, box_loss=spy)
    expected = torch.tensor([0.5, 32 / 416])
    assert torch.equal(model.cls_loss.seen[2], model.box_loss.seen[2])
    torch.testing.assert_close(model.box_loss.seen[2], expected)
    regressed = torch.tensor([[34.0, 34, 66, 66], [50, 34, 82, 66]])
    torch.testing.assert_close(
        box_iou(regressed, torch.stack([gt_boxes[0, 0], gt_boxes[1, 2]])).diag(), expected
    )
    # While the targets are the clamped ones.
    log16 = math.log(16)
    targets = torch.tensor([[-log16, 0, math.log(15.6 / 16), 0], [0, 0, log16, 0]])
    torch.testing.assert_close(model.box_loss.seen[1], targets)


def test_each_loss_has_its_own_divisor():
    deltas, gt_boxes = torch.ones(2, 3, 4), torch.tensor([40.0, 40, 70, 60]).expand(2, 3, 4)
    spy = LazyCall(Spy)()
    gt_labels = torch.tensor([[2, 3, 1], [3, 3, 0]])
    _, losses, latest = losses_by_hand(deltas, gt_boxes, gt_labels, cls_loss=spy, box_loss=spy)
    # 3 positives with 4 deltas of 1; 18 logits of 1; 2 images.
    assert losses["loss_box_reg"] == pytest.approx(12 / 3)
    assert losses["loss_cls"] == pytest.approx(18 / 5)
    assert latest["num_pos_anchors"][0] == 1.5
    # Without positives the sum of an empty box loss is 0, whatever it is divided by.
    gt_labels = torch.full((2, 3), 3)
    _, losses, _ = losses_by_hand(deltas, gt_boxes, gt_labels, cls_loss=spy, box_loss=spy)
    assert losses["loss_box_reg"] == 0 and losses["loss_cls"] == pytest.approx(18 / 2)
    # With a moving average each has its own: 0.5 * 10 + 0.5 * 3, and 0.5 * 10 + 0.5 * 5.
    normalizer = LazyCall(LossNormalizer)(momentum=0.5, initial=10)
    gt_labels = torch.tensor([[2, 3, 1], [3, 3, 0]])
    model, losses, _ = losses_by_hand(
        deltas, gt_boxes, gt_labels, cls_loss=spy, box_loss=spy, loss_normalizer=normalizer
    )
    assert losses["loss_box_reg"] == pytest.approx(12 / 6.5)
    assert losses["loss_cls"] == pytest.approx(18 / 7.5)
    assert model.loss_normalizer.average == 6.5 and model.cls_normalizer.average == 7.5


def test_no_gradient_reaches_the_box_head_through_the_classification_loss():
    model = build(balanced(measure_iterations=1))
    with EventStorage() as storage:
        model([make_input()])["loss_cls"].backward()
        assert storage.latest()["w_loc"][0] == pytest.approx(model.box_loss.w_loc)
    assert gradients(model)["head.bbox_pred.weight"] is None
    assert gradients(model)["head.cls_score.weight"].abs().max() > 0


def test_a_loss_on_boxes():
    # The box [34, 34, 66, 66] regressed for [34, 34, 66, 50] has IoU and GIoU 0.5; for itself 1.
    deltas = torch.zeros(2, 3, 4, requires_grad=True)
    gt_boxes = torch.zeros(2, 3, 4)
    gt_boxes[0, 0] = torch.tensor([34.0, 34, 66, 50])
    gt_boxes[1, 0] = torch.tensor([34.0, 34, 66, 66])
    gt_labels = torch.tensor([[2, 3, 3], [0, 3, 3]])
    _, losses, _ = losses_by_hand(deltas, gt_boxes, gt_labels, box_loss=LazyCall(GIoULoss)())
    assert losses["loss_box_reg"].item() == pytest.approx((0.5 + 0) / 2)
    losses["loss_box_reg"].backward()
    # The lower side has to come up, and nothing else moves the first box as much.
    assert deltas.grad[0, 0, 3] > 0 and deltas.grad[0, 0].argmax() == 3
    assert (deltas.grad[0, 1:] == 0).all()


# Two processes with two images and one, against one process with all three.


def batch_of(step):
    torch.manual_seed(step)
    parts = [
        [make_input(), make_input([[4, 4, 90, 90]], [1]), make_input([[20, 20, 60, 60]], [0])],
        [make_input(), without_boxes(), without_boxes()],
        [without_boxes(), without_boxes(), without_boxes()],
    ]
    return parts[step]


def train(rank=None):
    """Gradients of three steps, averaged over the processes as DistributedDataParallel does."""
    model, steps = build(balanced(measure_iterations=1)), []
    for step in range(3):
        part = {None: slice(None), 0: slice(2), 1: slice(2, 3)}[rank]
        training_step(model, batch_of(step)[part])
        grads = gradients(model)
        if rank is not None:
            for grad in grads.values():
                dist.all_reduce(grad)
                grad /= 2
        steps.append({name: grad.clone() for name, grad in grads.items()})
        torch.optim.SGD(model.parameters(), lr=0.01).step()
    return steps, model.box_loss.w_loc


def test_two_processes_train_like_one(tmp_path):
    expected, w_loc = train()
    for steps, rank_w_loc in run_in_two_processes(train, tmp_path):
        assert rank_w_loc == pytest.approx(w_loc)
        for step, (grads, expected_grads) in enumerate(zip(steps, expected, strict=True)):
            for name, grad in expected_grads.items():
                scale = grad.abs().max().item()
                torch.testing.assert_close(
                    grads[name], grad, rtol=1e-4, atol=1e-4 * scale + 1e-12, msg=f"{step} {name}"
                )
