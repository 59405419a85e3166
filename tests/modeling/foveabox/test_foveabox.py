"""FoveaBox as a whole; its targets and its losses have files of their own."""

import math

import pytest
import torch
from torch import nn

from ..detector_mixin import NUM_CLASSES, DetectorMixin, build, make_input, without_boxes
from .foveabox_models import balanced, explicit, labels_of, small_foveabox


class TestFoveaBox(DetectorMixin):
    config, stock_config = staticmethod(balanced), staticmethod(small_foveabox)


class TestPlainFoveaBox(DetectorMixin):
    config, stock_config = staticmethod(explicit), staticmethod(small_foveabox)


def test_defaults_are_the_published_settings():
    assert repr(build(small_foveabox())) == repr(build(explicit()))


def test_head_is_retinanets_with_one_prediction_a_point():
    head = build(small_foveabox()).head
    logits, deltas = head([torch.zeros(2, 32, 4, 6)] * 5)
    assert logits[0].shape == (2, NUM_CLASSES, 4, 6) and deltas[0].shape == (2, 4, 4, 6)
    assert torch.allclose(logits[0].sigmoid(), torch.tensor(0.01), atol=1e-3)


def test_labels_and_boxes_of_each_image():
    model = build(small_foveabox())
    # P3 has 12 x 16 cells. [12, 12, 52, 52] of class 2: cells 3 and 4 of both axes; P4 too.
    batch = [make_input([[12, 12, 52, 52]], [2]), without_boxes(), make_input([[0, 0, 16, 8]], [0])]
    anchors, labels, boxes = labels_of(model, batch)
    num_points = 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2 + 1
    assert [len(x) for x in labels] == [num_points] * 3
    assert all(x.shape == (num_points, 4) and x.dtype == torch.float32 for x in boxes)
    assert all(x.dtype == torch.int64 for x in labels)
    positive = labels[0] != NUM_CLASSES
    expected = [16 * row + column for row in (3, 4) for column in (3, 4)]
    expected += [192 + 8 * row + column for row in (1, 2) for column in (1, 2)]
    assert positive.nonzero()[:, 0].tolist() == expected
    assert (labels[0][positive] == 2).all()
    assert torch.equal(boxes[0][positive], torch.tensor([[12.0, 12, 52, 52]]).expand(8, 4))
    assert (labels[1] == NUM_CLASSES).all()
    # From 4.8 to 11.2 and from 2.4 to 5.6 px: column ceil(0.1) = 1 to floor(0.9) = 0, so none.
    assert (labels[2] == NUM_CLASSES).all()
    # The squares are those of the base size around the points.
    tensor = torch.cat([x.tensor for x in anchors])
    assert torch.equal(tensor[0], torch.tensor([-4.0, -4, 12, 12]))  # (4, 4), 16
    assert torch.equal(tensor[17], torch.tensor([4.0, 4, 20, 20]))  # (12, 12), second row
    assert torch.equal(tensor[192], torch.tensor([-8.0, -8, 24, 24]))  # (8, 8), 32


class FixedHead(nn.Module):
    """Predicts what it was given."""

    def __init__(self, logits, deltas):
        super().__init__()
        self.predictions = logits, deltas

    def forward(self, features):
        logits, deltas = self.predictions
        assert [x.shape[-2:] for x in features] == [x.shape[-2:] for x in logits]
        return [x.clone() for x in logits], deltas


def test_inference_on_predictions_by_hand():
    model = build(small_foveabox()).eval()
    sizes = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
    logits = [torch.full((1, NUM_CLASSES, *size), -10.0) for size in sizes]
    deltas = [torch.zeros(1, 4, *size) for size in sizes]
    # P3, row 5 and column 6: (52, 44). 16 * (1, 0.5, 2, 1) px: [36, 36, 84, 60], class 1.
    logits[0][0, 1, 5, 6] = 2.0
    deltas[0][0, :, 5, 6] = torch.tensor([1, 0.5, 2, 1]).log()
    # Its neighbour (60, 44) has [36, 36, 85, 60] for the same class, which NMS removes.
    logits[0][0, 1, 5, 7] = 1.0
    deltas[0][0, :, 5, 7] = torch.tensor([24 / 16, 0.5, 25 / 16, 1]).log()
    # The same box as class 2 stays, and so does a score of 0.06, but not one of 0.04.
    logits[0][0, 2, 5, 6] = math.log(0.06 / 0.94)
    logits[1][0, 0, 0, 0] = math.log(0.04 / 0.96)
    # P4, row 2 and column 3: (56, 40). 32 px to each side: [24, 8, 88, 72].
    logits[1][0, 0, 2, 3] = 0.0
    # P5, the point (112, 80): 64 px to each side, cut at the image: [48, 16, 112, 96].
    logits[2][0, 0, 2, 3] = -1.0
    model.head = FixedHead(logits, deltas)
    with torch.no_grad():
        (output,) = model([{"image": torch.zeros(3, 96, 112)}])
    found = output["instances"]
    assert found.pred_classes.tolist() == [1, 0, 0, 2]
    scores = torch.tensor([2.0, 0.0, -1.0]).sigmoid().tolist()
    torch.testing.assert_close(found.scores, torch.tensor([*scores, 0.06]))
    expected = [[36, 36, 84, 60], [24, 8, 88, 72], [48, 16, 112, 96], [36, 36, 84, 60]]
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor(expected).float())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base_sizes": [16, 32]}, r"`base_sizes` to have an entry for each of the 5 levels .*p7"),
        ({"scale_ranges": [[1, 64]]}, r"`scale_ranges` to have an entry for each .* \[\(1.0, 64"),
        ({"base_sizes": [16, 32, 0, 128, 256]}, "`base_sizes` to be positive, but got"),
        ({"scale_ranges": [[64, 1]] * 5}, r"`scale_ranges` to hold \(low, high\) with 0 <= low"),
        ({"sigma": 0.0}, r"`sigma` to be in \(0, 1\], but got 0.0"),
        ({"sigma": 1.5}, r"`sigma` to be in \(0, 1\], but got 1.5"),
    ],
)
def test_bad_arguments(change, message):
    config = small_foveabox()
    config.update(change)
    with pytest.raises(ValueError, match=message):
        build(config)
