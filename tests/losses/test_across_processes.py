"""Two CPU processes give the gradients of one process that has the whole batch."""

import pytest
import torch

from iou_balanced.losses import (
    ClassWeights,
    CorrelationLoss,
    IoUBalancedCrossEntropyLoss,
    IoUBalancedFocalLoss,
    IoUBalancedPenaltyReducedFocalLoss,
    IoUBalancedSmoothL1Loss,
    SmoothL1Loss,
    VarifocalLoss,
)

from ..processes import run_in_two_processes

K, ROWS = 3, 8
TABLE = torch.tensor([0.3, 1.0, 2.5])


class Weighted(torch.nn.Module):
    """A classification loss with class weights, which come before Eq. 4."""

    def __init__(self, loss, class_weight):
        super().__init__()
        self.loss, self.class_weight = loss, class_weight

    def forward(self, pred, target, pos_iou):
        return self.loss(pred, target, pos_iou, class_weight=self.class_weight)


LOSSES = {
    "focal": lambda **kwargs: IoUBalancedFocalLoss(**kwargs),
    "cross_entropy": lambda **kwargs: IoUBalancedCrossEntropyLoss(**kwargs),
    "weighted focal": lambda **kwargs: Weighted(IoUBalancedFocalLoss(**kwargs), TABLE),
    "focal with weighted rows": lambda **kwargs: Weighted(
        IoUBalancedFocalLoss(**kwargs), ClassWeights(row=torch.cat([TABLE, torch.ones(1)]))
    ),
    "varifocal": lambda **kwargs: VarifocalLoss(eta=1.5, **kwargs),
    "correlation": lambda **kwargs: CorrelationLoss(weight=3.0, **kwargs),
    "weighted spearman": lambda **kwargs: Weighted(
        CorrelationLoss(weight=3.0, kind="spearman", strength=0.1, **kwargs), TABLE
    ),
    "heat map": lambda **kwargs: Weighted(IoUBalancedPenaltyReducedFocalLoss(**kwargs), TABLE),
    "eq7": lambda **kwargs: IoUBalancedSmoothL1Loss(normalize=True, **kwargs),
    "auto": lambda **kwargs: IoUBalancedSmoothL1Loss(
        weight="auto", **{"measure_iterations": 1, **kwargs}
    ),
}
# Rows of positives in the part of each process.
SPLITS = {"both": (5, 2), "second has none": (4, 0), "first has none": (0, 3), "none": (0, 0)}


def make_part(name, split, rank):
    """Predictions, targets and IoU of one process; the processes' IoUs are far from each other."""
    generator = torch.Generator().manual_seed(10 * rank + len(split))
    count = SPLITS[split][rank]
    pos_iou = torch.rand(count, generator=generator) * 0.4 + (0.6 if rank else 0.0)
    if name in ("eq7", "auto"):
        pred, target = torch.randn(2, count, 4, generator=generator)
        return pred, target, pos_iou
    if name == "heat map":
        heatmap = torch.rand(1, K, 2, 4, generator=generator) * 0.9
        heatmap.view(-1)[torch.randperm(heatmap.numel(), generator=generator)[:count]] = 1
        return torch.randn(1, K, 2, 4, generator=generator), heatmap, pos_iou
    labels = torch.full((ROWS,), K)
    labels[:count] = torch.randint(0, K, (count,), generator=generator)
    labels[-1] = -1
    width = K + 1 if name == "cross_entropy" else K
    return torch.randn(ROWS, width, generator=generator), labels, pos_iou


def step(loss_fn, pred, target, pos_iou):
    pred = pred.clone().requires_grad_()
    loss = loss_fn(pred, target, pos_iou)
    (grad,) = torch.autograd.grad(loss, pred)
    return loss.detach(), grad


def work(rank):
    """What one process does: every loss on its part of every split."""
    results = {}
    for name, make_loss in LOSSES.items():
        for split in SPLITS:
            part = make_part(name, split, rank)
            loss_fn = make_loss()
            results[name, split] = (*step(loss_fn, *part), getattr(loss_fn, "w_loc", None))
            alone = make_loss(across_processes=False)
            results[name, split, "alone"] = (*step(alone, *part), getattr(alone, "w_loc", None))
    # "auto" first sees a batch without any positives, then one where a single process has some.
    auto, weights = LOSSES["auto"](), []
    for split in ["none", "second has none", "both"]:
        step(auto, *make_part("auto", split, rank))
        weights.append(auto.w_loc)
    results["auto waits"] = weights
    # A window of three: the batch without positives does not count in it.
    auto, weights = LOSSES["auto"](measure_iterations=3), []
    for split in ["second has none", "none", "first has none", "both", "both"]:
        loss, _ = step(auto, *make_part("auto", split, rank))
        weights.append((auto.w_loc, loss.item(), auto.resume_state_dict()))
    results["auto window"] = weights
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two_processes(work, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_whole_batch(results, name, split):
    parts = [make_part(name, split, rank) for rank in range(2)]
    whole = LOSSES[name]()
    loss, grad = step(whole, *(torch.cat(x) for x in zip(*parts, strict=True)))
    values, grads, weights = zip(*(r[name, split] for r in results), strict=True)
    torch.testing.assert_close(sum(values), loss)
    torch.testing.assert_close(torch.cat(grads), grad)
    if name == "auto":
        assert weights[0] == weights[1] == pytest.approx(whole.w_loc)


@pytest.mark.parametrize("name", LOSSES)
def test_each_process_by_itself_where_asked(results, name):
    for rank in range(2):
        pred, target, pos_iou = make_part(name, "both", rank)
        # One process has no group, so that this is the answer without the other's positives.
        expected, expected_grad = step(LOSSES[name](), pred, target, pos_iou)
        value, grad, _ = results[rank][name, "both", "alone"]
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(grad, expected_grad)
        # And it is another one than that over both, or the tests above would prove nothing.
        assert not torch.allclose(results[rank][name, "both"][1], grad, rtol=0.05)


def test_auto_waits_for_the_first_positives_of_any_process(results):
    pred, target, pos_iou = make_part("auto", "second has none", 0)
    plain = SmoothL1Loss(beta=1 / 9)
    weighted = IoUBalancedSmoothL1Loss()(pred, target, pos_iou)
    expected = (plain(pred, target) / weighted).item()
    for r in results:
        before, first, later = r["auto waits"]
        assert before is None and first == later == pytest.approx(expected)


def test_auto_over_several_batches_is_the_same_in_both_processes(results):
    ratios = []
    for split in ["second has none", "first has none", "both"]:
        pred, target, pos_iou = map(
            torch.cat, zip(*(make_part("auto", split, rank) for rank in range(2)), strict=True)
        )
        plain = SmoothL1Loss(beta=1 / 9)(pred, target)
        ratios.append((plain / IoUBalancedSmoothL1Loss()(pred, target, pos_iou)).item())
    for r in results:
        weights = [w for w, _, _ in r["auto window"]]
        assert weights[:3] == [None] * 3
        assert weights[3] == weights[4] == pytest.approx(sorted(ratios)[1])
        # Half of the measurement: bit for bit the same, for a resume of either.
        assert r["auto window"][2][2] == results[0]["auto window"][2][2]
        assert r["auto window"][2][2]["measurement"]["ratios"] == pytest.approx(ratios[:2])
    # Eq. 7 till then: the sum over both processes is the plain one.
    for i, split in [(0, "second has none"), (2, "first has none")]:
        parts = [make_part("auto", split, rank)[:2] for rank in range(2)]
        plain = sum(SmoothL1Loss(beta=1 / 9)(*part).item() for part in parts)
        assert sum(r["auto window"][i][1] for r in results) == pytest.approx(plain)
