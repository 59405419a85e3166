"""`weight="auto"`: w_loc measured over a window of iterations (Eq. 5-7 of arXiv 1908.05641)."""

import logging
import math

import pytest
import torch

from iou_balanced.losses import (
    IoUBalancedSmoothL1Loss,
    SmoothL1Loss,
    iou_balanced_smooth_l1_loss,
)
from iou_balanced.losses.localization import MEASURE_ITERATIONS
from iou_balanced.losses.w_loc import FAILED_WINDOWS

P = 5
POS_IOU = torch.tensor([0.9, 0.05, 0.6, 0.3, 1.0], dtype=torch.float64)


def auto(**kwargs):
    return IoUBalancedSmoothL1Loss(weight="auto", **kwargs)


def paper(**kwargs):
    """The paper's way: the first iteration decides."""
    return auto(measure_iterations=1, **kwargs)


def example(dtype=torch.float64):
    return 0.3 * torch.randn(P, 4, dtype=dtype), 0.1 * torch.randn(P, 4, dtype=dtype)


def at(iou, size=P):
    """Boxes whose plain loss is 4 * size (L1) or 4 * size * (1 - 1/18), all with the same IoU."""
    return torch.ones(size, 4), torch.zeros(size, 4), torch.full((size,), iou)


def ratio(iou, lam=1.5):
    return iou**-lam


def grad_of(loss_fn, pred, *args, **kwargs):
    pred = pred.clone().requires_grad_()
    loss = loss_fn(pred, *args, **kwargs)
    return loss.detach(), torch.autograd.grad(loss.sum(), pred)[0]


class TestPapersWay:
    def test_measured_once_and_by_hand(self, caplog):
        # beta = 0: plain terms 1 and 2, so with IoU 1/4, 1 and lam = 1/2 the ratio is
        # (1 + 2) / (1/2 * 1 + 1 * 2) = 1.2.
        module = paper(lam=0.5, beta=0.0)
        pred = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 2.0]])
        assert module.w_loc is None
        with caplog.at_level(logging.INFO):
            loss = module(pred, torch.zeros(2, 4), torch.tensor([0.25, 1.0]))
        assert module.w_loc == pytest.approx(1.2)
        assert loss.item() == pytest.approx(3)
        assert "w_loc = 1.2000 keeps the sum of the localization loss at this" in caplog.text
        caplog.clear()
        # Fixed from here on: 1.2 * (1 * 1 + 1/2 * 2).
        loss = module(pred, torch.zeros(2, 4), torch.tensor([1.0, 0.25]))
        assert loss.item() == pytest.approx(2.4) and module.w_loc == pytest.approx(1.2)
        assert not caplog.text

    def test_waits_for_positives(self):
        module = paper()
        pred, target = example(torch.float32)
        assert module(pred[:0], target[:0], torch.zeros(0)) == 0 and module.w_loc is None
        loss = module(pred, target, POS_IOU.float())
        torch.testing.assert_close(loss, SmoothL1Loss(beta=1 / 9)(pred, target))
        assert module.w_loc > 1

    def test_gradient_is_that_of_the_number(self):
        pred, target = example()
        module = paper()
        loss, grad = grad_of(module, pred, target, POS_IOU)
        expected = grad_of(iou_balanced_smooth_l1_loss, pred, target, POS_IOU, weight=module.w_loc)
        assert torch.equal(loss, expected[0]) and torch.equal(grad, expected[1])


class TestWindow:
    def test_the_median_of_the_iterations(self, caplog):
        module = auto(measure_iterations=3)
        for iou in (0.5, 0.7):
            module(*at(iou))
            assert module.w_loc is None
        module(*at(0.0, size=0))  # no positives: it does not count
        assert module.w_loc is None and not caplog.text
        loss = module(*at(0.9))
        assert module.w_loc == pytest.approx(ratio(0.7))
        # In force with the call that ends the window.
        assert loss.item() == pytest.approx(4 * P * (1 - 1 / 18) * ratio(0.7) * 0.9**1.5)
        assert "in the median of 3 iterations, which had 1.171 to 2.828 (lam = 1.5)" in caplog.text
        caplog.clear()
        module(*at(0.2))
        assert module.w_loc == pytest.approx(ratio(0.7)) and not caplog.text

    def test_eq_7_while_it_is_measured(self):
        module, eq7 = auto(), IoUBalancedSmoothL1Loss(normalize=True)
        for _ in range(MEASURE_ITERATIONS - 1):
            pred, target = example()
            loss, grad = grad_of(module, pred, target, POS_IOU)
            expected, expected_grad = grad_of(eq7, pred, target, POS_IOU)
            torch.testing.assert_close(loss, SmoothL1Loss(beta=1 / 9)(pred, target))
            assert torch.equal(loss, expected) and torch.equal(grad, expected_grad)
        assert module.w_loc is None
        module(pred, target, POS_IOU)
        assert module.w_loc > 1

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_in_half_precision_too(self, dtype):
        module = auto(measure_iterations=2)
        pred, target = (x.to(getattr(torch, dtype)) for x in example(torch.float32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(3):
                assert module(pred, target, POS_IOU.float()).dtype == torch.float32
        plain = SmoothL1Loss(beta=1 / 9)(pred, target)
        expected = plain / IoUBalancedSmoothL1Loss()(pred, target, POS_IOU.float())
        assert module.w_loc == pytest.approx(expected.item(), rel=1e-6)

    def test_a_later_moment(self):
        module = auto(measure_from=2, measure_iterations=1)
        for iou in (0.2, 0.3):
            loss = module(*at(iou))
            assert loss.item() == pytest.approx(4 * P * (1 - 1 / 18)) and module.w_loc is None
        module(*at(0.8))
        assert module.w_loc == pytest.approx(ratio(0.8))

    def test_the_numbers_are_looked_at_only_while_a_window_is_open(self, monkeypatch):
        """A look at a number of a GPU waits for all that it has to do."""
        looks, tolist = [], torch.Tensor.tolist
        monkeypatch.setattr(torch.Tensor, "tolist", lambda x: looks.append(1) or tolist(x))
        for name in ("item", "__float__", "__bool__"):
            monkeypatch.setattr(torch.Tensor, name, lambda x: looks.append(1))
        module, counts = auto(measure_from=3, measure_iterations=2), []
        for _ in range(8):
            module(*at(0.5))
            counts.append(len(looks))
        assert counts == [0, 0, 0, 1, 2, 2, 2, 2]
        refused = auto(measure_iterations=1)
        for _ in range(FAILED_WINDOWS):
            refused(*at(1e-3))
        before = len(looks)
        refused(*at(0.5))
        assert refused.w_loc is None and len(looks) == before

    def test_a_loss_that_is_not_finite_is_seen_and_not_measured(self):
        module = auto(measure_iterations=3)
        for bad in (math.nan, math.inf):
            pred, target, pos_iou = at(0.5)
            pred[0, 0] = bad
            assert not module(pred, target, pos_iou).isfinite()
        pred, target, pos_iou = at(0.5)
        pos_iou[0] = math.nan
        assert module(pred, target, pos_iou).isnan()
        assert module.resume_state_dict()["measurement"] is None
        for _ in range(3):
            module(*at(0.5))
        assert module.w_loc == pytest.approx(ratio(0.5))


class TestBounds:
    @pytest.mark.parametrize("kwargs", [{}, {"measure_iterations": 1}, {"measure_iterations": 3}])
    def test_an_absurd_first_batch_decides_nothing(self, kwargs):
        # (1e-7)^1.5: a ratio of 3.2e10.
        module = auto(**kwargs)
        plain = SmoothL1Loss(beta=1 / 9)
        pred, target, _ = at(0.5, size=8)
        first = module(pred, target, torch.full((8,), 1e-7))
        assert first.item() == pytest.approx(plain(pred, target).item())
        for _ in range(12):
            loss = module(*at(0.5, size=8))
            assert loss.item() == pytest.approx(plain(pred, target).item(), rel=1e-5)
        assert module.w_loc == pytest.approx(ratio(0.5))

    def test_a_batch_with_nearly_all_of_the_loss_decides_nothing(self):
        # It has a hundred times the loss of each of the others, so that the ratio of the sums over
        # the window would be near (100 + 2) / (0.354 + 0.465), 125.
        module = auto(measure_iterations=3)
        pred, target, pos_iou = at(1e-7)
        module(100 * pred, target, pos_iou)
        module(*at(0.5))
        module(*at(0.6))
        assert module.w_loc == pytest.approx(ratio(0.5))

    def test_without_any_overlap_it_is_the_plain_loss(self):
        module = auto(measure_iterations=1)
        pred, target = example(torch.float32)
        loss, grad = grad_of(module, pred, target, torch.zeros(P))
        expected, expected_grad = grad_of(SmoothL1Loss(beta=1 / 9), pred, target)
        assert module.w_loc is None
        assert torch.equal(loss, expected) and torch.equal(grad, expected_grad)

    @pytest.mark.parametrize(("iou", "taken"), [(0.1358, True), (0.1356, False)])
    def test_the_bound(self, iou, taken):
        # 20^(-1 / 1.5) = 0.1357.
        module = paper()
        module(*at(iou))
        assert (module.w_loc is not None) == taken
        module = paper(max_weight=30.0)
        module(*at(iou))
        assert module.w_loc == pytest.approx(ratio(iou))
        module = paper(max_weight=1.0)  # the least that makes sense
        module(*at(1.0))
        assert module.w_loc == 1

    def test_measured_again_and_said_once(self, caplog):
        module = auto(measure_iterations=2, measure_from=1)
        for _ in range(7):
            module(*at(0.01))
        assert module.w_loc is None
        (text,) = (r.getMessage() for r in caplog.records)
        assert text.startswith("w_loc = 1000.0000 would keep the sum")
        for part in (
            "is far too large (above max_weight = 20)",
            "measured again over the next 2 iterations with positives, up to 9 times",
            "till then every iteration keeps its own sum (Eq. 7)",
            "Give w_loc as a number (weight; the paper's are 1.6 to 3.6), measure it later",
            "(measure_from), or take Eq. 7 for good (normalize=True with weight=1)",
        ):
            assert part in text
        for _ in range(2):
            module(*at(0.5))
        assert module.w_loc == pytest.approx(ratio(0.5))

    def test_eq_7_for_good_in_the_end(self, caplog):
        module = auto(measure_iterations=2)
        for _ in range(2 * FAILED_WINDOWS):
            assert "THE REST" not in caplog.text
            module(*at(0.01))
        assert "No w_loc was found in 10 measurements of 2 iterations each" in caplog.text
        assert "the last was 1000.0000, above max_weight = 20. THE REST OF THE TR" in caplog.text
        caplog.clear()
        for _ in range(4):
            loss = module(*at(0.5))
            assert loss.item() == pytest.approx(4 * P * (1 - 1 / 18))
        assert module.w_loc is None and not caplog.text
