import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from iou_balanced.losses import GIoULoss, IoUBalancedFocalLoss, IoUBalancedGIoULoss
from iou_balanced.modeling import BalancedFCOS, HeadGroupNorm, balance
from iou_balanced.modeling.positives import Positives, regression_loss

from .detector_mixin import (
    NUM_CLASSES,
    DetectorMixin,
    build,
    gradients,
    make_input,
    training_step,
    without_boxes,
)


def small_fcos():
    """The model zoo's FCOS with ResNet-18, 32 channels and 3 classes."""
    model = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
    model.backbone.bottom_up.stages.depth = 18
    del model.backbone.bottom_up.stages.stride_in_1x1
    model.backbone.out_channels = 32
    model.backbone.top_block.in_channels = 32  # from P5
    model.head.input_shape = [ShapeSpec(channels=32)] * 5
    model.head.conv_dims = [48]
    model.head.norm = ""  # v0.6 fails with the GN of the zoo
    model.num_classes = NUM_CLASSES
    model.pixel_std = [57.375, 57.120, 58.395]
    return model


def balanced():
    return balance(small_fcos())


def plain():
    return balance(small_fcos(), eta=None, lam=None)


class TestFCOS(DetectorMixin):
    config, stock_config = staticmethod(balanced), staticmethod(small_fcos)


class TestPlainFCOS(DetectorMixin):
    config, stock_config = staticmethod(plain), staticmethod(small_fcos)


def test_the_zoos_model_as_it_stands():
    """v0.6's own head fails at "GN"; balance() gives it the same layers."""
    model = balance(model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model)
    assert isinstance(instantiate(model.head.norm), HeadGroupNorm)
    with torch.device("meta"):
        norms = [m for m in instantiate(model).head.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {(m.num_groups, m.num_channels) for m in norms} == {(32, 256)}


def test_balance_gives_iou_balanced_losses_on_the_same_kind():
    model = balanced()
    assert model._target_ is BalancedFCOS
    assert model.cls_loss._target_ is IoUBalancedFocalLoss
    assert model.box_loss._target_ is IoUBalancedGIoULoss
    assert (model.cls_loss.alpha, model.cls_loss.gamma, model.cls_loss.eta) == (0.25, 2.0, 1.5)
    # Eq. 7: the first boxes overlap nothing, so that IoU^lam alone would leave no gradient, and a
    # w_loc that kept the first sum would be in the thousands.
    box_loss = model.box_loss
    assert (box_loss.lam, box_loss.weight, box_loss.normalize) == (1.5, 1.0, True)
    for kwargs, expected in [
        ({"weight": 1.0}, (1.0, False)),
        ({"weight": "auto"}, ("auto", False)),
        ({"weight": "auto", "normalize": True}, (1.0, True)),
        ({"weight": 2.0, "normalize": True}, (2.0, True)),
        ({"normalize": False}, (1.0, False)),
    ]:
        box_loss = balance(small_fcos(), **kwargs).box_loss
        assert (box_loss.weight, box_loss.normalize) == expected, kwargs
    assert model.loss_normalizer.initial == 300  # the stock detector's


def test_plain_losses_equal_the_stock_detectors():
    ours, stock = build(plain()), build(small_fcos())
    ours.load_state_dict(stock.state_dict())
    # v0.6 takes no image without boxes.
    for batch in [[make_input(), make_input()], [make_input([[4, 4, 90, 90]], [1])]]:
        losses, expected = training_step(ours, batch), training_step(stock, batch)
        assert losses.keys() == expected.keys()
        for name in losses:
            torch.testing.assert_close(losses[name], expected[name])
        expected_gradients = gradients(stock)
        for name, grad in gradients(ours).items():
            scale = expected_gradients[name].abs().max().item()
            torch.testing.assert_close(
                grad, expected_gradients[name], rtol=1e-4, atol=1e-5 * scale + 1e-12, msg=name
            )
        for model in (ours, stock):
            torch.optim.SGD(model.parameters(), lr=0.01).step()


def test_defaults_are_the_stock_losses():
    config = small_fcos()
    config._target_ = BalancedFCOS
    for key in ("focal_loss_alpha", "focal_loss_gamma"):
        config.pop(key, None)
    model, stock = build(config), build(small_fcos())
    assert isinstance(model.box_loss, GIoULoss)
    losses, expected = (
        training_step(m, batch) for m in (model, stock) if (batch := [make_input()])
    )
    assert losses.keys() == expected.keys()


def test_the_first_gradients_of_the_box_branch_do_not_vanish():
    batch = [make_input(), make_input()]
    norms = []
    for config in (plain(), balanced()):
        model = build(config)
        training_step(model, batch)
        norms.append(gradients(model)["head.bbox_pred.weight"].norm().item())
    assert norms[1] > 0.1 * norms[0] > 0


def test_labels_are_the_stock_ones_and_an_image_without_boxes_is_background():
    model = build(plain())
    anchors = model.anchor_generator(
        [torch.zeros(1, 1, 96 // s + 1, 112 // s + 1) for s in (8, 16, 32, 64, 128)]
    )
    instances = [make_input()["instances"], without_boxes()["instances"]]
    instances.append(make_input([[4, 4, 90, 90]], [1])["instances"])
    labels, boxes = model.label_anchors(anchors, instances)
    num_anchors = sum(map(len, anchors))
    for index in (0, 2):
        (expected,), (expected_boxes,) = FCOS.label_anchors(model, anchors, [instances[index]])
        expected_boxes = getattr(expected_boxes, "tensor", expected_boxes)
        assert torch.equal(labels[index], expected) and (expected < NUM_CLASSES).any()
        assert torch.equal(boxes[index], expected_boxes)
    assert labels[1].tolist() == [NUM_CLASSES] * num_anchors
    assert boxes[1].shape == (num_anchors, 4) and labels[1].dtype == torch.int64


def test_by_hand():
    # One level of stride 8, two points at (4, 4) and (12, 4); the object (0, 0, 16, 8) is theirs.
    # Deltas are distances to the sides over the stride: (0.5, 0.5, 1.5, 0.5) would be exact at the
    # first point. Predicted (0.5, 0.5, 0.5, 0.5): the box (0, 0, 8, 8), IoU 64 / 128 = 1/2, and
    # GIoU = IoU, because the ground truth encloses it. At the second point the exact box: IoU 1.
    # Centerness of both: sqrt(4/12 * 4/4) = 0.577.
    config = balance(small_fcos(), eta=None, lam=1.0, weight=1.0)
    config.loss_normalizer.momentum = 0.0
    model = build(config)
    square = torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])
    deltas = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [1.5, 0.5, 0.5, 0.5]]], requires_grad=True)
    gt_boxes = torch.tensor([[0.0, 0, 16, 8]] * 2)
    logits = torch.zeros(1, 2, NUM_CLASSES, requires_grad=True)
    centerness = torch.zeros(1, 2, 1, requires_grad=True)
    with EventStorage() as storage:
        losses = model.losses(
            [Boxes(square)], [logits], [torch.tensor([1, 1])], [deltas], [gt_boxes], [centerness]
        )
        assert storage.latest()["num_pos_anchors"][0] == 2 and storage.latest()["w_loc"][0] == 1
    # Weight IoU: 1/2 * (1 - 1/2) + 1 * 0, over 2 positives.
    assert losses["loss_fcos_loc"].item() == pytest.approx(0.125)
    # Binary cross entropy at logit 0 is log 2, whatever the target.
    assert losses["loss_fcos_ctr"].item() == pytest.approx(0.6931, abs=1e-4)
    losses["loss_fcos_ctr"].backward()
    # (sigmoid(0) - 0.5774) / 2 positives.
    torch.testing.assert_close(centerness.grad.flatten(), torch.full((2,), (0.5 - 3**-0.5) / 2))
    assert deltas.grad is None


def test_training_is_possible_from_v06_without_any_box():
    model = build(balanced())
    losses = training_step(model, [without_boxes(), without_boxes()])
    assert losses["loss_fcos_loc"] == 0 and losses["loss_fcos_ctr"] == 0
    assert losses["loss_fcos_cls"] > 0
    empty = Instances((10, 10))
    empty.gt_boxes, empty.gt_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0, dtype=torch.int64)
    assert model.label_anchors([Boxes(torch.zeros(0, 4))], [empty])[0][0].numel() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_boxes_are_decoded_in_float32_under_amp(dtype):
    # Far from the origin, where half precision resolves no pixels.
    center = torch.tensor([1284.0, 996.0]) + 8 * torch.arange(4.0)[:, None]
    anchors = torch.cat([center - 4, center + 4], dim=1)
    deltas = (0.8 + torch.rand(4, 4)).to(dtype)
    gt_boxes = anchors + torch.tensor([-5.0, -4.0, 6.0, 7.0])
    transform = build(plain()).box2box_transform
    box_loss, cls_loss = IoUBalancedGIoULoss(), IoUBalancedFocalLoss()
    seen = []
    for values in (deltas, deltas.float()):
        values = values.requires_grad_()
        loss, pos_iou = regression_loss(
            cls_loss, box_loss, transform, Positives(values, anchors, gt_boxes)
        )
        assert loss.dtype == pos_iou.dtype == torch.float32
        seen.append((loss, pos_iou))
    for half, single in zip(*seen, strict=True):
        assert torch.equal(half, single)
