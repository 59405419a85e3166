"""CenterNet: the detector around its targets, head and decoding."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.utils.events import EventStorage

from iou_balanced.backbones import UpConvNeck
from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    Equalization,
    IoUBalancedGIoULoss,
    IoUBalancedPenaltyReducedFocalLoss,
    IoUBalancedSmoothL1Loss,
    PenaltyReducedFocalLoss,
    elementwise_box_iou,
)
from iou_balanced.modeling import CenterBoxTransform, CenterNet, CenterNetHead
from iou_balanced.modeling.centernet.head import CenterNetPredictions
from iou_balanced.modeling.centernet.targets import center_targets

from ..detector_mixin import (
    BOXES,
    CLASSES,
    NUM_CLASSES,
    DetectorMixin,
    build,
    check_finite,
    make_input,
    training_step,
    without_boxes,
)

WIDTHS = [16, 16, 20, 24, 32]


def small_centernet():
    stages = [
        L(ResNet.make_stage)(
            block_class=BasicBlock,
            num_blocks=1,
            stride_per_block=[1 if i == 0 else 2],
            in_channels=WIDTHS[i],
            out_channels=WIDTHS[i + 1],
            norm="BN",
        )
        for i in range(4)
    ]
    return L(CenterNet)(
        backbone=L(UpConvNeck)(
            bottom_up=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=16, norm="BN"),
                stages=stages,
                out_features=["res5"],
            ),
            in_feature="res5",
            channels=[32, 24, 16],
            deformable=False,
        ),
        head=L(CenterNetHead)(
            in_channels=16, num_classes="${..num_classes}", head_channels=16, regression_std=0.5
        ),
        num_classes=NUM_CLASSES,
        pixel_mean=[123.675, 116.280, 103.530],
        pixel_std=[58.395, 57.120, 57.375],
    )


def both_balanced():
    model = small_centernet()
    model.cls_loss = L(IoUBalancedPenaltyReducedFocalLoss)(eta=1.5)
    model.box_loss = L(IoUBalancedSmoothL1Loss)(lam=1.5, weight=2.0, beta=0.1)
    return model


class TestCenterNet(DetectorMixin):
    config = stock_config = staticmethod(small_centernet)


class TestIoUBalancedCenterNet(DetectorMixin):
    config, stock_config = staticmethod(both_balanced), staticmethod(small_centernet)


def targets_of(boxes, classes, size=(8, 10)):
    return center_targets(
        [torch.tensor(boxes, dtype=torch.float32).view(-1, 4)],
        [torch.tensor(classes, dtype=torch.int64)],
        NUM_CLASSES,
        size,
    )


def random_predictions(images=1, size=(8, 10)):
    torch.manual_seed(0)
    maps = [torch.randn(images, c, *size) for c in (NUM_CLASSES, 2, 2)]
    return CenterNetPredictions(*(x.requires_grad_() for x in maps))


def losses_of(model, predictions, targets):
    with EventStorage():
        return model.losses(predictions, targets)


def test_losses_by_hand():
    """Two objects: offset and size have L1 with 1 and 0.1, each averaged over two coordinates.

    Boxes 4..20 x 8..16 and 8..14 x 8..22 px have their centres (12, 12) and (11, 15), in cells
    (3, 3) and (2.75, 3.75): cells (3, 3) and (2, 3), offsets (0, 0) and (0.75, 0.75), sizes (4, 2)
    and (1.5, 3.5). With offset 0.5 and size 2 everywhere: offset 4 of 1/2 and 1/4 make
    2 * 0.5 + 2 * 0.25 = 1.5, size (2 + 0) + (0.5 + 1.5) = 4; (0.5 * 1.5 + 0.05 * 4) / 2 objects.
    """
    model = build(small_centernet())
    maps = [torch.zeros(1, NUM_CLASSES, 8, 10), torch.full((1, 2, 8, 10), 0.5)]
    predictions = CenterNetPredictions(*maps, torch.full((1, 2, 8, 10), 2.0))
    targets = targets_of([[4, 8, 20, 16], [8, 8, 14, 22]], [0, 2])
    losses = losses_of(model, predictions, targets)
    assert losses["loss_box_reg"].item() == pytest.approx((0.5 * 1.5 + 0.05 * 4) / 2)
    expected = PenaltyReducedFocalLoss()(maps[0], targets.heatmap) / 2
    assert losses["loss_cls"].item() == pytest.approx(expected.item())


def test_objects_that_share_a_centre():
    """Three objects with two centres: each count divides its own loss."""
    model = build(small_centernet())
    boxes = [[4, 8, 20, 16], [8, 4, 16, 20], [4, 8, 20, 16]]
    targets = targets_of(boxes, [0, 0, 1])
    predictions = random_predictions()
    losses = losses_of(model, predictions, targets)
    heat = PenaltyReducedFocalLoss()(predictions.heatmap, targets.heatmap)
    assert losses["loss_cls"].item() == pytest.approx(heat.item() / 2)
    regression = 0
    for i in range(3):
        y, x = targets.cells[i]
        offset, size = (m[0, :, y, x] for m in (predictions.offset, predictions.size))
        regression += 0.5 * (offset - targets.offset[i]).abs().sum()
        regression += 0.05 * (size - targets.size[i]).abs().sum()
    assert losses["loss_box_reg"].item() == pytest.approx(regression.item() / 3, rel=1e-5)


def test_iou_of_the_box_at_the_centre():
    """The weight of a centre is by the box decoded there; of several objects by the best one."""
    model = build(both_balanced())
    targets = targets_of([[4, 8, 20, 16], [8, 4, 16, 20], [20, 12, 36, 28]], [0, 0, 1])
    predictions = random_predictions()
    predictions.size.data += 3
    losses = losses_of(model, predictions, targets)
    ious = []
    for i in range(3):
        y, x = targets.cells[i]
        center = 4 * (torch.stack([x, y]) + predictions.offset[0, :, y, x])
        half = 2 * predictions.size[0, :, y, x]
        box = torch.cat([center - half, center + half])
        ious.append(elementwise_box_iou(box[None], targets.boxes[i][None]).detach())
    pos_iou = torch.stack([torch.maximum(ious[0], ious[1]), ious[2]]).flatten()
    expected = IoUBalancedPenaltyReducedFocalLoss(eta=1.5)(
        predictions.heatmap, targets.heatmap, pos_iou
    )
    assert losses["loss_cls"].item() == pytest.approx(expected.item() / 2, rel=1e-5)
    assert 0 < pos_iou.min() < pos_iou.max()


@pytest.mark.parametrize(
    "class_balance",
    [
        L(BalanceOriented)(schedule=None, class_counts=[60, 30, 10]),
        L(BalanceOriented)(schedule=None, class_counts=[60, 30, 10], counted="locations"),
        L(ClassBalanced)(class_counts=[60, 30, 10]),
        L(Equalization)(image_counts=[40, 25, 8], tail_ratio=0.45),
    ],
    ids=["bofl", "locations", "cbl", "eql"],
)
@pytest.mark.parametrize("config", [small_centernet, both_balanced])
def test_class_weights(config, class_balance):
    batch = [make_input(), make_input(BOXES[:1] * 2, [2, 2]), without_boxes()]
    plain = training_step(build(config()), batch)
    weighted = config()
    weighted.class_balance = class_balance
    weighted.class_balance.num_classes = NUM_CLASSES
    model = build(weighted)
    losses = training_step(model, batch)
    check_finite(model, losses)
    assert losses["loss_cls"].item() != pytest.approx(plain["loss_cls"].item(), rel=1e-4)
    assert losses["loss_box_reg"].item() == pytest.approx(plain["loss_box_reg"].item(), rel=1e-6)


def test_bofl_by_hand():
    """Counts of the image: classes 0 to 2 once each, so that each has 0.8 of its alpha."""
    config = small_centernet()
    config.class_balance = L(BalanceOriented)(
        num_classes=NUM_CLASSES, schedule=None, class_counts=[60, 30, 10]
    )
    model = build(config)
    targets, predictions = targets_of(BOXES, CLASSES, (24, 28)), random_predictions(1, (24, 28))
    weights = torch.tensor([[100 / 180, 100 / 90, 100 / 30]]) * 0.8
    expected = PenaltyReducedFocalLoss()(predictions.heatmap, targets.heatmap, class_weight=weights)
    losses = losses_of(model, predictions, targets)
    assert losses["loss_cls"].item() == pytest.approx(expected.item() / 3, rel=1e-5)


def test_losses_of_boxes():
    config = small_centernet()
    config.box_loss = L(IoUBalancedGIoULoss)(normalize=True)
    model = build(config)
    check_finite(model, training_step(model, [make_input(), without_boxes()]))


class TestBoxTransform:
    def test_round_trip(self):
        torch.manual_seed(0)
        corner = torch.randint(0, 20, (9, 2)).float() * 4
        cells = torch.cat([corner, corner + 4], dim=1)
        low = corner - torch.rand(9, 2) * 30
        boxes = torch.cat([low, low + 5 + torch.rand(9, 2) * 60], dim=1)
        transform = CenterBoxTransform()
        again = transform.apply_deltas(transform.get_deltas(cells, boxes), cells)
        torch.testing.assert_close(again, boxes)

    def test_weights(self):
        transform = CenterBoxTransform(weights=[1, 1, 2, 2])
        cell, box = torch.tensor([[8.0, 4, 12, 8]]), torch.tensor([[6.0, 2, 16, 10]])
        deltas = transform.get_deltas(cell, box)
        # Centre (11, 6) in the cell (2, 1): offset (0.75, 0.5), size (2.5, 2).
        assert deltas.tolist() == [[0.75, 0.5, 5.0, 4.0]]

    @pytest.mark.parametrize("bad", [[1, 1, 1], [1, 1, 0, 1]])
    def test_bad_weights(self, bad):
        with pytest.raises(ValueError, match="four positive numbers"):
            CenterBoxTransform(weights=bad)


def test_perfect_predictions_give_the_boxes_back():
    model = build(small_centernet()).eval()
    boxes = [[4, 8, 60, 70], [50, 30, 90, 62]]
    targets = targets_of(boxes, [0, 2], (24, 28))
    maps = [torch.full((1, NUM_CLASSES, 24, 28), -20.0), *torch.zeros(2, 1, 2, 24, 28)]
    maps[0][targets.heatmap == 1] = 20.0
    for i in range(2):
        y, x = targets.cells[i]
        maps[1][0, :, y, x], maps[2][0, :, y, x] = targets.offset[i], targets.size[i]
    images = model.preprocess_image([make_input()])
    (result,) = model.forward_inference(images, [], CenterNetPredictions(*maps))
    order = result.pred_classes[:2].argsort()
    torch.testing.assert_close(result.pred_boxes.tensor[:2][order], torch.tensor(boxes).float())
    assert result.scores[:2].min() > 0.999 and (result.scores[2:] < 0.001).all()


def test_flip_test_of_a_mirror_image():
    """Averaged with its mirror image, the maps of either are mirror images, up to the offset."""
    config = small_centernet()
    config.flip_test = True
    model = build(config).eval()
    image = torch.rand(3, 96, 96) * 255
    with torch.no_grad():
        first, second = (
            model([{"image": x, "height": 96, "width": 96}])[0]["instances"]
            for x in (image, image.flip(2))
        )
    torch.testing.assert_close(first.scores[:20], second.scores[:20], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("in_channels", "`head` to have in_channels=16, as the backbone has, but got 7"),
        ("num_classes", "`head` to have num_classes=3, as the model has, but got 7"),
    ],
)
def test_a_head_for_another_map_or_other_classes_is_refused(key, message):
    config = small_centernet()
    config.head[key] = 7
    with pytest.raises(ValueError, match=message):
        build(config)


def test_several_maps_are_refused():
    config = small_centernet()
    config.head_in_features = ["p2", "p3"]
    with pytest.raises(ValueError, match="`head_in_features` to be one map"):
        build(config)
