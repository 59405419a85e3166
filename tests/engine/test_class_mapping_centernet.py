"""train.init_classes for CenterNet: the rows of the heat map's last layer."""

import torch

from iou_balanced.modeling import CenterNetHead

from .test_class_mapping import SHARED, SOURCE, TARGET, apply, randomize


def head(num_classes):
    return CenterNetHead(in_channels=8, num_classes=num_classes, head_channels=8).eval()


def test_a_heat_map_is_the_same_for_shared_classes():
    source, target = randomize(head(len(SOURCE))), head(len(TARGET))
    before = apply(source, target)
    x = torch.randn(2, 8, 5, 7)
    theirs, ours = source(x), target(x)
    for i, j in SHARED:
        assert torch.equal(target.heatmap[-1].weight[i], source.heatmap[-1].weight[j])
        torch.testing.assert_close(ours.heatmap[:, i], theirs.heatmap[:, j], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours.offset, theirs.offset) and torch.equal(ours.size, theirs.size)
    taken = {i for i, _ in SHARED}
    fresh = [i for i in range(len(TARGET)) if i not in taken]
    last = target.heatmap[-1]
    assert fresh and torch.equal(last.weight[fresh], before["heatmap.3.weight"][fresh])
    assert torch.equal(last.bias[fresh], before["heatmap.3.bias"][fresh])  # the prior


def test_in_a_detector():
    source = torch.nn.ModuleDict({"head": randomize(head(len(SOURCE)))})
    target = torch.nn.ModuleDict({"head": head(len(TARGET))})
    apply(source, target)
    i, j = SHARED[0]
    assert torch.equal(target["head"].heatmap[-1].weight[i], source["head"].heatmap[-1].weight[j])
