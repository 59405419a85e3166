"""Two processes give the gradients of one with the whole batch, in both stages of an R-CNN."""

import pytest
import torch

from ...processes import run_in_two_processes
from . import box_heads, test_rpn

NUM = 5  # proposals of a process, and anchors
# Labels of the proposals in the part of each process; the classes are 0..2 and background 3.
SPLITS = {
    "both": ([0, 3, 2, 1, 3], [3, 3, 1, 3, 3]),
    "second has none": ([0, 3, 2, 1, 3], [3] * NUM),
    "first has none": ([3] * NUM, [3, 2, 1, 3, 3]),
    "none": ([3] * NUM, [3] * NUM),
    # Images with fewer proposals than are to be sampled.
    "unequal": ([0, 3, 2, 1, 3, 3, 3, 3], [3, 1]),
    "no sample in the first": ([], [3, 2, 1]),
}


def box_head():
    return box_heads.make_layers(**box_heads.balanced_losses(weight="auto"))


def box_head_part(split, rank):
    torch.manual_seed(10 * rank + len(split))
    predictions = box_heads.random_predictions(len(SPLITS[split][rank]), agnostic=False)
    return predictions, [box_heads.random_proposals(SPLITS[split][rank])]


def box_head_step(layers, *parts):
    """Losses and gradients of these parts taken together."""
    predictions = tuple(_join([p[0][i] for p in parts]) for i in range(2))
    return box_heads.step(layers, predictions, [x for p in parts for x in p[1]])


def rpn():
    return test_rpn.make_rpn(**test_rpn.balanced_losses())


def rpn_part(split, rank):
    labels = torch.tensor(SPLITS[split][rank])[None]
    batch = test_rpn.make_batch((labels < 3).long(), seed=len(split))  # the same anchors
    torch.manual_seed(10 * rank + len(split))
    return torch.randn(1, NUM), torch.randn(1, NUM, 4) * 0.2, *batch[2:]


def rpn_step(model, *parts):
    logits, deltas, labels, gt_boxes = (torch.cat([p[i] for p in parts]) for i in (0, 1, 2, 4))
    predictions = logits.requires_grad_(), deltas.requires_grad_()
    losses, grads, _ = test_rpn.step(model, *predictions, labels, parts[0][3], gt_boxes)
    return losses, grads


def _join(tensors):
    return torch.cat(tensors).detach().requires_grad_()


STAGES = {
    "box head": (box_head, box_head_part, box_head_step),
    "rpn": (rpn, rpn_part, rpn_step),
}
# "auto" meets images without positives first, and then one process that has some.
ORDER = ["none", "second has none", "first has none", "both"]
# The RPN's divisor is the number that is to be sampled, of all images the same.
ORDERS = {"box head": [*ORDER, "unequal", "no sample in the first"], "rpn": ORDER}


def run(stage, ranks):
    """What these processes' parts give, split by split: losses, gradients, w_loc."""
    make, make_part, step = STAGES[stage]
    module, results = make(), []
    for split in ORDERS[stage]:
        losses, grads = step(module, *(make_part(split, rank) for rank in ranks))
        losses = {name: loss.detach() for name, loss in losses.items()}
        results.append((losses, grads, module.box_loss.w_loc))
    return results


def work(rank):
    return {stage: run(stage, [rank]) for stage in STAGES}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two_processes(work, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_equal_one_with_the_whole_batch(results, stage):
    whole = run(stage, [0, 1])
    for split, expected, *parts in zip(
        ORDERS[stage], whole, *(r[stage] for r in results), strict=True
    ):
        losses, grads, w_loc = expected
        assert (w_loc is None) == (split == "none")
        for part in parts:
            assert part[2] == (w_loc and pytest.approx(w_loc))
        # Data-parallel training averages the processes' gradients.
        for name in losses:
            mean = sum(part[0][name] for part in parts) / 2
            torch.testing.assert_close(mean, losses[name], msg=f"{split}: {name}")
        for i, grad in enumerate(grads):
            joined = torch.cat([part[1][i] for part in parts]) / 2
            torch.testing.assert_close(joined, grad, msg=split)
