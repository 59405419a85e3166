import logging
import math

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from iou_balanced.modeling import LossNormalizer, SSDHead, balance

from ..detector_mixin import (
    DetectorMixin,
    build,
    gradients,
    make_input,
    training_step,
    without_boxes,
)
from .ssd_models import small_ssd

FAR = [[0, 0, 20, 20], [40, 40, 60, 60], [70, 70, 90, 90]]


def balanced():
    return balance(small_ssd())


class TestSSD(DetectorMixin):
    config, stock_config = staticmethod(balanced), staticmethod(small_ssd)


class TestPlainSSD(DetectorMixin):
    config = stock_config = staticmethod(small_ssd)


def test_labels_and_boxes_of_the_default_boxes():
    model = build(small_ssd())
    # Shifts of 0, 2 and 6 of 10 pixels from the first object: IoU 1, 8 / 12 and 4 / 16.
    first = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    second = torch.tensor([[6.0, 0, 16, 10], [40, 40, 90, 90]])
    instances = []
    for boxes, classes in [([[0, 0, 10, 10], [40, 40, 50, 50]], [2, 0]), ([], [])]:
        instances.append(Instances((96, 96)))
        instances[-1].gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances[-1].gt_classes = torch.tensor(classes, dtype=torch.int64)
    labels, boxes = model.label_anchors([Boxes(first), Boxes(second)], instances)
    # The second object, 10 x 10 of 50 x 50, is below the threshold: its best box all the same.
    assert [x.tolist() for x in labels] == [[2, 2, 3, 0], [3, 3, 3, 3]]
    assert boxes[0][[0, 1, 3]].tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [40, 40, 50, 50]]
    assert boxes[1].shape == (4, 4)


def test_an_image_without_objects_trains_nothing():
    # No positives, so no negatives either; and the other image's are as if it were alone.
    model = build(small_ssd())
    losses = training_step(model, [without_boxes()])
    assert all(x == 0 for x in losses.values())
    assert all(g is not None and not g.any() for g in gradients(model).values())
    model.eval()  # lest BatchNorm mixes the images
    model.training = True
    image = make_input()
    alone = training_step(model, [image])
    both = training_step(model, [without_boxes(), image])
    for name in alone:
        torch.testing.assert_close(both[name], alone[name])


class Fixed(nn.Module):
    """Default boxes of one level, whatever its map."""

    def __init__(self, boxes):
        super().__init__()
        self.boxes = torch.tensor(boxes, dtype=torch.float32)

    def forward(self, features):
        return [Boxes(self.boxes)]


class TestInference:
    def detect(self, scores, deltas=None, anchors=None, size=(100, 100), **change):
        """Boxes, scores and classes from (R, K) scores given to one level."""
        model = build(small_ssd()).eval()
        for name, value in change.items():
            assert hasattr(model, name)
            setattr(model, name, value)
        scores = torch.tensor(scores)
        rest = 1 - scores.sum(dim=1, keepdim=True)
        logits = torch.cat([scores, rest], dim=1).log() + 3.0  # softmax takes any constant
        deltas = torch.zeros(len(scores), 4) if deltas is None else torch.tensor(deltas)
        model.anchor_generator = Fixed(anchors)
        # One cell with R boxes: (1, R * C, 1, 1).
        predictions = [[x.reshape(1, -1, 1, 1)] for x in (logits, deltas.float())]
        (result,) = model.forward_inference(
            ImageList(torch.zeros(1, 3, *size), [size]), [None], predictions
        )
        assert result.image_size == size
        return result

    def test_scores_are_a_softmax_without_its_background(self):
        # 0.015 is below the threshold of 0.02; background has 0.3, 0.06 and 0.965.
        scores = [[0.5, 0.1, 0.1], [0.04, 0.9, 0.0], [0.02, 0.0, 0.015]]
        result = self.detect(scores, anchors=FAR, test_score_thresh=0.03)
        torch.testing.assert_close(result.scores, torch.tensor([0.9, 0.5, 0.1, 0.1, 0.04]))
        assert result.pred_classes.tolist()[:2] == [1, 0]
        assert result.pred_boxes.tensor[0].tolist() == FAR[1]
        assert len(self.detect(scores, anchors=FAR)) == 5  # 0.02 is not above 0.02
        assert len(self.detect(scores, anchors=FAR, max_detections_per_image=2)) == 2
        best = self.detect(scores, anchors=FAR, test_topk_candidates=1)
        assert best.scores.tolist() == pytest.approx([0.9])

    def test_boxes_are_decoded_with_the_variances(self):
        # Box (20, 20)-(60, 40) of 40 x 20 around (40, 30). Centre: + 0.1 * 5 * 40 and + 0.1 * -5 *
        # 20; sizes times exp(0.2 * 5 * ln 1.5): 60, and times exp(0.2 * 5 * ln 0.5): 10.
        deltas = [[5.0, -5.0, 5 * math.log(1.5), 5 * math.log(0.5)]]
        result = self.detect([[0.9, 0, 0]], deltas, [[20, 20, 60, 40]])
        torch.testing.assert_close(
            result.pred_boxes.tensor, torch.tensor([[60 - 30.0, 20 - 5, 60 + 30, 20 + 5]])
        )

    def test_nms_is_by_class_and_of_what_is_inside_the_image(self):
        # 60, 200 and 20 wide with the right 20 in common: IoU 60 / 200, 20 / 60 and 20 / 200, all
        # below 0.45. Inside the image all are (0, 0, 20, 40), and one of each class stays.
        anchors = [[-40, 0, 20, 40], [-180, 0, 20, 40], [0, 0, 20, 40]]
        result = self.detect([[0.9, 0, 0], [0.8, 0.15, 0], [0.7, 0, 0]], anchors=anchors)
        assert result.pred_classes.tolist() == [0, 1]
        assert result.pred_boxes.tensor.tolist() == [[0, 0, 20, 40]] * 2
        result = self.detect([[0.9, 0, 0], [0.8, 0, 0]], anchors=[[0, 0, 60, 40], [20, 0, 80, 40]])
        assert len(result) == 1  # 40 / 80 is above 0.45
        result = self.detect([[0.9, 0, 0], [0.8, 0, 0]], anchors=[[0, 0, 60, 40], [24, 0, 84, 40]])
        assert len(result) == 2  # 36 / 84 = 0.43 is not


def test_defaults_are_those_of_the_paper():
    config = small_ssd()
    del config.cls_loss, config.box_loss
    model = build(config)
    assert repr(model.cls_loss) == "SoftmaxCrossEntropyLoss(reduction='none')"
    assert repr(model.box_loss) == "SmoothL1Loss(beta=1, reduction='sum')"
    assert repr(model.loss_normalizer) == repr(LossNormalizer(momentum=0.0, initial=None))
    assert model.test_score_thresh == 0.02 and model.test_nms_thresh == 0.45
    assert model.max_detections_per_image == 200 and model.match_iou_thresh == 0.5
    for conv in (*model.head.cls_score, *model.head.bbox_pred):
        bound = (6 / (9 * (conv.in_channels + conv.out_channels))) ** 0.5
        assert 0.97 * bound < conv.weight.abs().max() <= bound and not conv.bias.any()


def test_training_that_goes_on_without_its_state_says_so_once(caplog):
    model = build(balance(small_ssd(), weight="auto"))
    with EventStorage(50), caplog.at_level(logging.WARNING):
        for _ in range(2):
            model([make_input()])
    assert sum("at iteration 50 without the state" in x.message for x in caplog.records) == 1


def test_the_head_gives_each_level_its_boxes():
    head = instantiate(small_ssd().head)
    maps = [torch.randn(2, c, 3, 2) for c in (24, 32, 32)]
    logits, deltas = head(maps)
    assert [x.shape[1] for x in logits] == [4 * 4, 4 * 4, 6 * 4]
    assert [x.shape[1] for x in deltas] == [4 * 4, 4 * 4, 6 * 4]
    assert all(x.shape[2:] == (3, 2) for x in (*logits, *deltas))


class TestArguments:
    def test_head_and_default_boxes_do_not_fit(self):
        config = small_ssd()
        config.anchor_generator.aspect_ratios[1] = [2, 3]
        with pytest.raises(ValueError, match=r"has, \[4, 6, 6\], but got \[4, 4, 6\]"):
            build(config)
        with pytest.raises(ValueError, match="each level, but got 1 and 2"):
            SSDHead(input_shape=[ShapeSpec(channels=4)], num_classes=2, num_anchors=[4, 4])

    @pytest.mark.parametrize("ratio", [0, -1.0, float("nan")])
    def test_hard_negative_ratio(self, ratio):
        config = small_ssd()
        config.hard_negative_ratio = ratio
        with pytest.raises(ValueError, match="`hard_negative_ratio` to be greater than 0, but got"):
            build(config)
