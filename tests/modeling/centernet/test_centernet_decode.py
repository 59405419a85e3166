"""CenterNet's decoding by hand, against a loop, and there and back from its targets."""

import numpy as np
import pytest
import torch

from iou_balanced.losses import elementwise_box_iou
from iou_balanced.modeling.centernet.decode import (
    decode,
    decode_at,
    find_peaks,
    merge_flipped,
    values_at,
)
from iou_balanced.modeling.centernet.targets import center_targets


def maps(scores, *, channels=((0.0, 0.0), (1.0, 1.0))):
    """A heat map (1, K, H, W) and constant offset and size maps."""
    scores = torch.tensor(scores)
    scores = scores.reshape(1, -1, *scores.shape[-2:])
    pair = [torch.tensor(c)[None, :, None, None].expand(1, 2, *scores.shape[2:]) for c in channels]
    return scores, *pair


def test_a_box_by_hand():
    # Row 1, column 2, class 1. Centre (2 + 0.25, 1 + 0.5) cells, 3 x 2 cells: x from 0.75 to
    # 3.75, y from 0.5 to 2.5; times 4 px.
    heatmap, offset, size = torch.zeros(1, 2, 3, 5), torch.zeros(1, 2, 3, 5), torch.ones(1, 2, 3, 5)
    heatmap[0, 1, 1, 2] = 0.75
    offset[0, :, 1, 2] = torch.tensor([0.25, 0.5])
    size[0, :, 1, 2] = torch.tensor([3.0, 2.0])
    boxes, scores, classes = decode(heatmap, offset, size, topk=1)
    assert boxes.tolist() == [[[3, 2, 15, 10]]]
    assert scores.tolist() == [[0.75]] and classes.tolist() == [[1]]
    assert classes.dtype == torch.int64
    boxes, _, _ = decode(heatmap, offset, size, topk=1, stride=8)
    assert boxes.tolist() == [[[6, 4, 30, 20]]]


def test_boxes_and_scores_are_not_clipped():
    # Centre 0, 10 cells: from -5 to 5. A size below 0 is turned around: from 1 to -1.
    heatmap, offset, size = maps([[1.5]], channels=((0.0, 0.0), (10.0, -2.0)))
    boxes, scores, _ = decode(heatmap, offset, size)
    assert boxes.tolist() == [[[-20, 4, 20, -4]]] and scores.tolist() == [[1.5]]


@pytest.mark.parametrize("shape", [(2, 3, 17, 12), (1, 2, 1, 9), (2, 1, 5, 1), (1, 1, 1, 1)])
def test_peaks_are_those_of_max_pooling(shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3).round().sigmoid()
    heatmap = values.clone().requires_grad_()  # as of a model in testing without `no_grad`
    scores, classes, cells = find_peaks(heatmap, topk=values[0].numel())
    assert torch.equal(heatmap, values)
    found = torch.zeros_like(values)
    images = torch.arange(len(values))[:, None].expand_as(classes)
    found[images, classes, cells[..., 0], cells[..., 1]] = scores.detach()
    highest = torch.nn.functional.max_pool2d(values, 3, stride=1, padding=1)
    assert torch.equal(found, torch.where(values == highest, values, 0))


def test_peaks_of_plateaus_and_of_each_class():
    scores, _, _ = maps(
        [
            # 0.5 is beside 0.9 (diagonally): no peak. The two 0.7 are a plateau: both are.
            [[0.9, 0.1, 0.0, 0.7], [0.2, 0.5, 0.0, 0.7], [0.0, 0.0, 0.0, 0.0]],
            # Another class's values do not matter: 0.4 is a peak at the place of 0.5.
            [[0.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.3]],
        ]
    )
    scores, classes, cells = find_peaks(scores, topk=6)
    assert scores[0].tolist() == pytest.approx([0.9, 0.7, 0.7, 0.4, 0.3, 0])
    assert classes[0, :5].tolist() == [0, 0, 0, 1, 1]
    assert cells[0, 0].tolist() == [0, 0] and cells[0, 3:5].tolist() == [[1, 1], [2, 3]]
    assert sorted(cells[0, 1:3].tolist()) == [[0, 3], [1, 3]]


def test_saturated_neighbours_are_both_peaks():
    # sigmoid(20) is 1 in float32, as is sigmoid(18): one object, two detections.
    scores = torch.tensor([[[[20.0, 18.0, -5.0]]]]).sigmoid()
    found, _, cells = find_peaks(scores, topk=3)
    assert found[0, :2].tolist() == [1, 1] and found[0, 2] == 0
    assert sorted(cells[0, :2, 1].tolist()) == [0, 1]


def loop_detections(heatmap, offset, size, topk, stride):
    """One image: the best (score, class, box) by comparing each element with its neighbours."""
    found = []
    classes, height, width = heatmap.shape
    for k, y, x in np.ndindex(classes, height, width):
        around = heatmap[k, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        if heatmap[k, y, x] >= around.max():
            cx, cy = x + offset[0, y, x], y + offset[1, y, x]
            w, h = size[0, y, x], size[1, y, x]
            box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            found.append((heatmap[k, y, x], k, [stride * v for v in box]))
    return sorted(found, key=lambda x: -x[0])[:topk]


def test_batch_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    heatmap = torch.rand(3, 4, 9, 7, generator=generator, dtype=torch.float64)
    offset = torch.rand(3, 2, 9, 7, generator=generator, dtype=torch.float64)
    size = torch.rand(3, 2, 9, 7, generator=generator, dtype=torch.float64) * 5
    boxes, scores, classes = decode(heatmap, offset, size, topk=15, stride=8)
    assert boxes.shape == (3, 15, 4) and boxes.dtype == scores.dtype == torch.float64
    for i in range(3):
        found = loop_detections(*(x[i].numpy() for x in (heatmap, offset, size)), 15, 8)
        assert len(found) == 15
        assert scores[i].tolist() == [x for x, _, _ in found]
        assert classes[i].tolist() == [x for _, x, _ in found]
        expected = torch.tensor(np.array([x for _, _, x in found]))
        torch.testing.assert_close(boxes[i], expected)


@pytest.mark.parametrize("num_images", [0, 2])
def test_maps_smaller_than_topk(num_images):
    # 3 classes of 2 x 2 elements: 12 detections at most, each class has one peak here.
    heatmap = torch.rand(num_images, 3, 2, 2) + 0.1
    boxes, scores, classes = decode(heatmap, heatmap[:, :2], heatmap[:, :2], topk=100)
    assert boxes.shape == (num_images, 12, 4)
    assert scores.shape == classes.shape == (num_images, 12)
    assert scores.count_nonzero(dim=1).tolist() == [3] * num_images
    assert classes[:, :3].sort(dim=1).values.tolist() == [[0, 1, 2]] * num_images


def test_half_precision_is_decoded_in_float32():
    # x1 = 4 (255 + 0.3125 - 1) = 1017.25 and x2 = 1025.25, neither of which float16 has: its
    # steps are 0.5 and 1 there.
    heatmap, offset = torch.zeros(1, 1, 1, 256), torch.full((1, 2, 1, 256), 0.3125)
    heatmap[..., 255], size = 0.5, torch.full_like(offset, 2.0)
    boxes, scores, _ = decode(heatmap.half(), offset.half(), size.half(), topk=1)
    assert boxes.dtype == scores.dtype == torch.float32
    assert boxes.tolist() == [[[1017.25, -2.75, 1025.25, 5.25]]]


def perfect_maps(targets):
    """Maps (offset, size) that say the targets where the objects are, and nonsense elsewhere."""
    num_images, _, height, width = targets.heatmap.shape
    y, x = targets.cells.unbind(1)
    result = []
    for values in (targets.offset, targets.size):
        maps = torch.full((num_images, 2, height, width), 77.0)
        maps[targets.image_index, :, y, x] = values
        result.append(maps)
    return result


def test_there_and_back():
    generator = torch.Generator().manual_seed(3)
    height, width, stride, num_classes = 32, 48, 4, 5
    gt_boxes, gt_classes = [], []
    for count in (20, 0, 33, 1):
        # Distinct cells, each at least 2 cells from the border; boxes within [0, W - 1].
        cells = torch.randperm((height - 4) * (width - 4), generator=generator)[:count]
        cells = torch.stack([cells % (width - 4), cells // (width - 4)], dim=1) + 2
        center = cells + torch.rand(count, 2, generator=generator) * 0.98 + 0.01
        room = torch.minimum(center, torch.tensor([width - 1.0, height - 1.0]) - center)
        half = room * (0.02 + 0.98 * torch.rand(count, 2, generator=generator))
        gt_boxes.append(torch.cat([center - half, center + half], dim=1) * stride)
        gt_classes.append(torch.randint(num_classes, (count,), generator=generator))
    targets = center_targets(gt_boxes, gt_classes, num_classes, (height, width), stride)
    assert len(targets.cells) == 54
    torch.testing.assert_close(targets.boxes, torch.cat(gt_boxes), rtol=0, atol=1e-4)

    boxes, scores, classes = decode(targets.heatmap, *perfect_maps(targets), 100, stride)
    for i, (expected, labels) in enumerate(zip(gt_boxes, gt_classes, strict=True)):
        count = len(expected)
        # Perfect scores for the objects, and no other peak: flanks of Gaussians are none.
        assert scores[i].tolist() == [1.0] * count + [0.0] * (100 - count)
        if count == 0:
            continue
        found = torch.cat([classes[i, :count, None], boxes[i, :count]], dim=1)
        wanted = torch.cat([labels[:, None], expected], dim=1)
        distance = torch.cdist(wanted, found, p=float("inf"))
        assert distance.amin(dim=1).max() < 1e-3
        assert distance.argmin(dim=1).unique().numel() == count

    # The box at each centre, as the detector decodes it for the IoU.
    at = [values_at(m, targets.image_index, targets.cells) for m in perfect_maps(targets)]
    assert torch.equal(at[0], targets.offset) and torch.equal(at[1], targets.size)
    iou = elementwise_box_iou(decode_at(targets.cells, *at, stride), targets.boxes)
    torch.testing.assert_close(iou, torch.ones(54), rtol=0, atol=1e-3)


def test_gradient_of_decoded_boxes():
    generator = torch.Generator().manual_seed(0)
    cells, images = torch.tensor([[0, 2], [1, 1], [0, 2]]), torch.tensor([1, 0, 1])
    offset, size = (
        torch.rand(2, 2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )

    def boxes(offset, size):
        return decode_at(cells, *(values_at(m, images, cells) for m in (offset, size)), 4)

    assert torch.autograd.gradcheck(boxes, (offset, size))
    boxes(offset, size)[:, 0].sum().backward()
    # x1 = 4 (x + offset - width / 2): 4 and -2 for each object, two of them in one cell.
    expected = torch.zeros(2, 2, 2, 3, dtype=torch.float64)
    expected[1, 0, 0, 2], expected[0, 0, 1, 1] = 8, 4
    assert torch.equal(offset.grad, expected) and torch.equal(size.grad, -expected / 2)


def test_flip_test_by_hand():
    # One image and its mirror image. The columns of the second are turned around.
    pair = torch.tensor([[0.0, 0.25, 0.5], [1.0, 0.75, 0.25]]).reshape(2, 1, 1, 3)
    offset, size = pair.expand(2, 2, 1, 3), 2 * pair.expand(2, 2, 1, 3)
    heatmap, merged_offset, merged_size = merge_flipped(pair, offset, size)
    assert heatmap.tolist() == [[[[0.125, 0.5, 0.75]]]]
    assert merged_size.tolist() == [[[[0.25, 1.0, 1.5]], [[0.25, 1.0, 1.5]]]]
    assert torch.equal(merged_offset, offset[:1])


def test_flip_test_of_mirrored_maps_changes_nothing():
    heatmap, offset, size = torch.rand(3, 4, 5, 6), torch.rand(3, 2, 5, 6), torch.rand(3, 2, 5, 6)
    both = [torch.cat([x, x.flip(3)]) for x in (heatmap, offset, size)]
    for result, own in zip(merge_flipped(*both), (heatmap, offset, size), strict=True):
        assert torch.equal(result, own)


def test_bad_arguments():
    heatmap, pair = torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4)
    cases = [
        ((heatmap[0], pair, pair), r"`heatmap_scores` .* of shape \(3, 4, 4\)"),
        ((heatmap.long(), pair, pair), r"`heatmap_scores` to be float .* torch.int64"),
        ((heatmap, pair[..., :3], pair), r"`offset` .* \(1, 2, 4, 4\) .* but got \(1, 2, 4, 3\)"),
        ((heatmap, pair, heatmap), r"`size` .* but got \(1, 3, 4, 4\)"),
        ((heatmap, pair, pair, 0), "`topk` to be at least 1, but got 0"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            decode(*arguments)
    with pytest.raises(ValueError, match="as many mirror images, but got 1 together"):
        merge_flipped(heatmap, pair, pair)
    two, three = torch.zeros(5, 2), torch.zeros(5, 3)
    for arguments in [(two, two, two[:3]), (three, three, three)]:
        with pytest.raises(ValueError, match=r"same shape \(\.\.\., 2\), but got"):
            decode_at(*arguments)
