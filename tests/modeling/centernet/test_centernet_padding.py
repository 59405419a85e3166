"""CenterNet's images of different sizes in one batch: what pads them gives no detections."""

import pytest
import torch
from torch import nn

from iou_balanced.modeling.centernet.head import CenterNetPredictions

from .test_centernet_batches import PAD, AsPainted, assert_same, detect, paint, painted_model


class ExcitedByPadding(nn.Module):
    """Finds the painted objects, and boxes of 4 x 4 cells wherever the batch is padded."""

    def __init__(self, logit):
        super().__init__()
        self.values = (logit, 0.5, 4.0)

    def forward(self, features):
        (x,) = features
        padded = (x == 0).all(dim=1, keepdim=True)
        maps = zip(self.values, AsPainted()([x - 20]), strict=True)
        return CenterNetPredictions(*(torch.where(padded, v, m) for v, m in maps))


@pytest.mark.parametrize(("logit", "topk"), [(2.0, 10**5), (6.0, 100)])
def test_padding_gives_no_detections(logit, topk):
    # The canvas of the first image, 64 x 64, ends with its last column.
    sizes = [(40, 63), (97, 130)]
    batch = [paint(PAD, size, [[10, 5, 40, 31]], [0]) for size in sizes]
    model = painted_model(PAD, max_detections_per_image=topk)
    model.pixel_mean.fill_(-20.0)  # a canvas is 20 and more in the network, the padding is 0
    model.head = ExcitedByPadding(logit)
    for x, result in zip(batch, detect(model, batch), strict=True):
        assert_same(result, *detect(model, [x]))


def test_without_no_grad():
    """As a notebook calls it: the maps are part of a graph then."""
    model = painted_model(PAD)
    model.head.scale = nn.Parameter(torch.ones(()))
    batch = [paint(PAD, size, [[10, 5, 40, 31]], [0]) for size in ((40, 63), (97, 130))]
    expected = detect(model, batch)
    painted = model.head.forward

    def forward(features):
        return CenterNetPredictions(*(x * model.head.scale for x in painted(features)))

    model.head.forward = forward
    for result, of_graph in zip(expected, model(batch), strict=True):
        assert_same(of_graph["instances"], result)
