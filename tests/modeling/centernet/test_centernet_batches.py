"""CenterNet's test images in batches, on canvases of several sizes, with and without flip test.

Images of a batch are padded below and to the right to the largest of them, with 0 after
normalisation. What is beyond a convolution's reach of the padding is as in the image alone.
"""

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import LazyCall as L
from detectron2.modeling import Backbone
from torch import nn

from iou_balanced.data import CenterFit, CenterPad
from iou_balanced.modeling import CenterNet, CenterNetHead
from iou_balanced.modeling.centernet.head import CenterNetPredictions

from ..detector_mixin import NUM_CLASSES, build
from .test_centernet import small_centernet

PAD, FIT = CenterPad(divisor=32), CenterFit(size=(96, 128))
# (height, width): of 96 x 128, 64 x 96 and 128 x 96 pixels on CenterPad's canvas.
SIZES = [(71, 101), (33, 65), (97, 75)]
# Boxes XYXY and classes; the first image has objects at all its sides, the last one beyond them.
OBJECTS = [
    ([[0, 0, 20, 30], [61, 40, 101, 71], [30.5, 20, 50, 41.25]], [1, 0, 1]),
    ([[45, 3, 65, 33]], [0]),
    ([[-6, 10, 30, 60], [50, 70, 80, 110], [31, 2, 43, 9]], [1, 1, 0]),
]


class Cells(Backbone):
    """The mean over each cell of 4 x 4 pixels, and a `layer` on top."""

    size_divisibility = 32

    def __init__(self, channels, layer=None):
        super().__init__()
        self.layer = nn.Identity() if layer is None else layer
        self._out_features = ["p2"]
        self._out_feature_channels, self._out_feature_strides = {"p2": channels}, {"p2": 4}

    def forward(self, x):
        return {"p2": self.layer(F.avg_pool2d(x, 4))}


class AsPainted(nn.Module):
    """Takes the channels for the maps of two classes, offset and size; 0 is a score of 0.00005."""

    def forward(self, features):
        (x,) = features
        return CenterNetPredictions(x[:, :2] - 10, x[:, 2:4], x[:, 4:])


def paint(canvas, size, boxes, classes):
    """The model's input for an image of 6 channels, in which `AsPainted` finds these objects."""
    transform = canvas.transform_for(*size)
    image = torch.zeros(6, *transform.output_size)
    corners = transform.apply_coords(np.array(boxes, dtype=np.float64).reshape(-1, 2))
    for i, (x0, y0, x1, y1) in enumerate(corners.reshape(-1, 4)):
        x, y = (x0 + x1) / 8, (y0 + y1) / 8  # the centre, in cells
        cell = image[:, int(y) * 4 : int(y) * 4 + 4, int(x) * 4 : int(x) * 4 + 4]
        cell[classes[i]] = 15 - i  # scores of 0.99 to 0.95, the first object's the best
        values = [x % 1, y % 1, (x1 - x0) / 4, (y1 - y0) / 4]
        cell[2:] = torch.tensor(values, dtype=torch.float32)[:, None, None]
    return {"image": image, "height": size[0], "width": size[1]}


def painted_model(canvas, layer=None, **settings):
    return CenterNet(
        backbone=Cells(6, layer),
        head=AsPainted(),
        num_classes=2,
        canvas=canvas,
        test_score_thresh=0.5,
        pixel_mean=[0.0] * 6,
        pixel_std=[1.0] * 6,
        **settings,
    ).eval()


def detect(model, batch):
    with torch.no_grad():
        return [x["instances"] for x in model(batch)]


def by_place(instances):
    """Class by class in an order of the boxes; which of equal scores comes first is not defined."""
    place = instances.pred_boxes.tensor.double() @ torch.tensor([1, 0.3, 7, 0.1]).double()
    return instances[(place + 1e4 * instances.pred_classes).argsort()]


def assert_same(actual, expected, at_least=1):
    assert actual.image_size == expected.image_size and len(actual) == len(expected) >= at_least
    actual, expected = by_place(actual), by_place(expected)
    assert torch.equal(actual.pred_classes, expected.pred_classes)
    torch.testing.assert_close(actual.scores, expected.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        actual.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-4, atol=1e-3
    )


def photos(canvas, sizes, seed=0):
    """Random test images, as the mapper puts them on the canvas."""
    rng, batch = np.random.default_rng(seed), []
    for height, width in sizes:
        aug_input = T.AugInput(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if canvas is not None:
            aug_input.apply_augmentations([canvas])
        pixels = torch.from_numpy(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
        batch.append({"image": pixels.float(), "height": height, "width": width})
    return batch


def as_trained(model):
    """Boxes of two cells, and statistics without which BatchNorm leaves the padding at 0.

    All peaks are taken, so that the padding's, which only a batch has, take no place of others.
    """
    model.max_detections_per_image = 10**5
    nn.init.constant_(model.head.size[-1].bias, 2.0)
    model.head.heatmap[-1].weight.data.mul_(20)  # clear differences
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for x, low in [(module.running_mean, -0.5), (module.running_var, 0.5)]:
                x.copy_(low + torch.rand(x.shape, generator=generator))
    return model.eval()


def deep_model():
    config = small_centernet()
    config.canvas = L(CenterPad)(divisor=32)
    return as_trained(build(config))


def shallow_model(mirror_symmetric=False, **settings):
    """Cells, two 3x3 convolutions with BatchNorm and 1x1 ones: it sees two cells far."""
    torch.manual_seed(5)
    conv = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    model = CenterNet(
        backbone=Cells(16, conv),
        head=CenterNetHead(
            in_channels=16, num_classes=NUM_CLASSES, head_channels=16, regression_std=0.05
        ),
        num_classes=NUM_CLASSES,
        pixel_mean=[123.675, 116.280, 103.530],
        pixel_std=[58.395, 57.120, 57.375],
        **settings,
    )
    if mirror_symmetric:
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 4:
                    p.copy_((p + p.flip(3)) / 2)
    return as_trained(model)


# The first image alone, all of them in both orders, and one of them twice.
BATCHES = [[0], [0, 1, 2], [2, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("flip_test", [False, True], ids=["", "flip"])
@pytest.mark.parametrize("canvas", [PAD, FIT], ids=["pad", "fit"])
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_boxes_come_back_to_each_image(batch, canvas, flip_test):
    """With flip test too: an object is one cell, and the mirror image has it in the same one."""
    inputs = [paint(canvas, SIZES[i], *OBJECTS[i]) for i in batch]
    if canvas is PAD and len(batch) > 1:
        assert len({x["image"].shape for x in inputs}) > 1
    results = detect(painted_model(canvas, flip_test=flip_test), inputs)
    for i, result in zip(batch, results, strict=True):
        (height, width), (boxes, classes) = SIZES[i], OBJECTS[i]
        assert result.image_size == (height, width)
        assert result.pred_classes.tolist() == classes
        sides = torch.tensor([width, height, width, height])
        expected = torch.minimum(torch.tensor(boxes).float().clamp(min=0), sides)
        torch.testing.assert_close(result.pred_boxes.tensor, expected, rtol=0, atol=1e-4)
        logits = torch.tensor([5.0, 4.0, 3.0])[: len(classes)]
        torch.testing.assert_close(result.scores, logits.sigmoid())


def test_images_of_one_canvas_size():
    """Nothing is padded then: the whole network, whatever it sees, gives the same."""
    model, batch = deep_model(), photos(PAD, [(131, 165), (150, 191), (128, 160)])
    assert {x["image"].shape for x in batch} == {(3, 160, 192)}
    for x, result in zip(batch, detect(model, batch), strict=True):
        assert_same(result, *detect(model, [x]), at_least=10)


def test_the_largest_image_does_not_see_the_others():
    model, largest = deep_model(), photos(PAD, [(131, 190)])
    (alone,) = detect(model, largest)
    for others in ([(71, 101)], [(33, 65), (97, 75)]):
        smaller = photos(PAD, others, seed=1)
        assert_same(detect(model, largest + smaller)[0], alone, at_least=10)
        assert_same(detect(model, smaller + largest)[-1], alone, at_least=10)


@pytest.mark.parametrize("flip_test", [False, True], ids=["", "flip"])
def test_beyond_the_reach_of_the_padding(flip_test):
    """Two cells of convolutions and one of the peaks: the mirrored batch is padded to the left."""
    model, batch = shallow_model(canvas=PAD, flip_test=flip_test), photos(PAD, SIZES)
    for x, result in zip(batch, detect(model, batch), strict=True):
        (alone,) = detect(model, [x])
        # Where its centre is, can be told of a box that the image's sides do not cut.
        size = torch.tensor([x["width"], x["height"]])
        kept = []
        for found in (alone, result):
            low, high = found.pred_boxes.tensor.split(2, dim=1)
            whole = ((low > 0) & (high < size)).all(dim=1)
            inside = ((low + high) / 2 < size - 4 * 4).all(dim=1)
            kept.append(found[whole & inside])
        assert_same(kept[1], kept[0], at_least=5)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("canvas", [PAD, FIT, None], ids=["pad", "fit", "no canvas"])
def test_flip_test_of_a_mirror_symmetric_network(canvas, batch):
    """It changes nothing, because the network gives the mirror image's maps as mirror images."""
    inputs = photos(canvas, [SIZES[i] for i in batch])
    plain, flipped = (
        shallow_model(mirror_symmetric=True, canvas=canvas, flip_test=flip)
        for flip in (False, True)
    )
    for a, b in zip(detect(plain, inputs), detect(flipped, inputs), strict=True):
        assert_same(b, a, at_least=10)


class Ghosts(nn.Module):
    """Half of what is in a cell also in the second one to its left; 0 and padding stay 0."""

    def forward(self, x):
        kernel = x.new_tensor([[[[0, 0, 1, 0, 0.5]]]]).expand(6, 1, 1, 5)
        return F.conv2d(x, kernel, padding=(0, 2), groups=6)


def test_flip_test_of_a_network_that_is_not_symmetric():
    """Each image is averaged with its own mirror image, wherever the padding of that one is.

    An object of size s and offset o in cell x has a ghost in cell x - 2, with half of its logit,
    offset and size, in the image, and in cell x + 2, to the other side, in the mirror image. The
    ghosts are in one of the two maps only, so that their size is the mean of s / 2 and 0, and their
    score that of half the logit's and a background's; the offset is the image's own, o / 2 and 0.
    """
    boxes = [[30.5, 20, 50, 41.25], [20, 3, 60, 33], [22, 10, 40, 60]]
    batch = [paint(PAD, size, [box], [1]) for size, box in zip(SIZES, boxes, strict=True)]
    model = painted_model(PAD, Ghosts(), flip_test=True)
    model.test_score_thresh = 1e-3
    for size, box, result in zip(SIZES, boxes, detect(model, batch), strict=True):
        corner = torch.tensor(PAD.transform_for(*size).src_rect[:2])  # of the canvas, in the image
        low, high = torch.tensor(box).view(2, 2)
        center = (low + high) / 2 - corner
        cell = center // 4
        centers = [center]
        for side, offset in [(-2, center / 4 - cell), (2, torch.zeros(2))]:
            centers.append((cell + torch.tensor([side, 0]) + offset / 2) * 4)
        centers = torch.stack(centers) + corner
        half = torch.stack([high - low, (high - low) / 4, (high - low) / 4]) / 2
        expected = torch.cat([centers - half, centers + half], dim=1)
        assert len(result) == 3 and result.pred_classes.tolist() == [1, 1, 1]
        # The two ghosts have the same score.
        order = [0, *(1 + result.pred_boxes.tensor[1:, 0].argsort()).tolist()]
        torch.testing.assert_close(result.pred_boxes.tensor[order], expected, rtol=0, atol=1e-4)
        own, ghost, nothing = torch.tensor([15 - 10, 15 / 2 - 10, -10]).sigmoid()
        scores = torch.stack([own, (ghost + nothing) / 2, (ghost + nothing) / 2])
        torch.testing.assert_close(result.scores, scores)
