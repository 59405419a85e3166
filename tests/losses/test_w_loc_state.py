"""The state of a measured w_loc: resumes and micro-batches; and arguments that are refused."""

import math

import pytest
import torch

from iou_balanced.losses import IoUBalancedGIoULoss, IoUBalancedSmoothL1Loss, SmoothL1Loss
from iou_balanced.losses.w_loc import FAILED_WINDOWS

from .test_w_loc import P, at, auto, paper, ratio


def state_after(module, ious):
    for iou in ious:
        module(*at(iou))
    return module.resume_state_dict()


class TestResume:
    @pytest.mark.parametrize("loss", [IoUBalancedSmoothL1Loss, IoUBalancedGIoULoss])
    @pytest.mark.parametrize("kwargs", [{"measure_from": 2}, {"max_weight": 8.0}, {}])
    def test_broken_off_anywhere_it_gives_the_value_of_the_unbroken_run(
        self, loss, kwargs, tmp_path
    ):
        def make():
            return loss(weight="auto", measure_iterations=3, **kwargs)

        def run(module, seeds):
            for seed in seeds:
                generator = torch.Generator().manual_seed(seed)
                corner = torch.rand(2, P, 2, generator=generator)
                pred, target = torch.cat([corner, corner + 1], dim=2)
                module(
                    pred,
                    target,
                    (0.1 if seed < 3 else 0.5) + torch.rand(P, generator=generator) / 4,
                )
            return module

        expected = run(make(), range(9))
        assert expected.w_loc is not None
        for stop in range(9):
            first, second = run(make(), range(stop)), make()
            torch.save(first.resume_state_dict(), tmp_path / "state")
            second.load_resume_state_dict(torch.load(tmp_path / "state", weights_only=True))
            assert second.resume_state_dict() == first.resume_state_dict()
            assert run(second, range(stop, 9)).w_loc == expected.w_loc
            assert not first.state_dict()  # fine-tuning measures its own

    def test_a_run_that_gave_up_stays_so(self, caplog):
        state = state_after(paper(), [0.01] * FAILED_WINDOWS)
        module = paper()
        module.load_resume_state_dict(state)
        caplog.clear()
        module(*at(0.5))
        assert module.w_loc is None and not caplog.text

    def test_before_the_beginning_there_is_nothing(self):
        """So that a detector can tell a fresh loss from one whose state came back."""
        for module in (auto(), auto(measure_from=3)):
            assert module.resume_state_dict() == {"measured_weight": None, "measurement": None}
            module(*at(0.5))
            assert module.resume_state_dict()["measurement"] is not None

    def test_checkpoints_of_before_there_were_windows(self):
        module = auto()
        module.load_resume_state_dict({"measured_weight": 2.5})
        module(*at(0.5))
        assert module.w_loc == 2.5

    def test_a_number_has_no_state(self):
        assert IoUBalancedSmoothL1Loss(weight=2.0).resume_state_dict() == {}
        module = IoUBalancedSmoothL1Loss(weight=2.0)
        module.load_resume_state_dict({"measured_weight": 3.0})
        assert module.w_loc == 2.0


class TestMicroBatches:
    @pytest.mark.parametrize("kwargs", [{"measure_iterations": 1}, {"measure_iterations": 3}])
    def test_they_are_measured_as_the_batch_that_they_are(self, kwargs):
        whole, parts = auto(**kwargs), auto(**kwargs)
        for _ in range(3):
            pred, target = (torch.randn(9, 4) for _ in range(2))
            pos_iou = torch.rand(9)
            whole(pred, target, pos_iou)
            with parts.whole_batch():
                for rows in (slice(0, 6), slice(6, 6), slice(6, 9)):
                    loss = parts(pred[rows], target[rows], pos_iou[rows])
                    if whole.w_loc is None:  # Eq. 7 of its own
                        expected = SmoothL1Loss(beta=1 / 9)(pred[rows], target[rows])
                        torch.testing.assert_close(loss, expected)
            assert (parts.w_loc is None) == (whole.w_loc is None)
        assert parts.w_loc == pytest.approx(whole.w_loc, rel=1e-12)

    def test_they_pass_as_one_iteration(self):
        module = auto(measure_from=2, measure_iterations=1)
        for _ in range(2):
            with module.whole_batch():
                module(*at(0.5))
                module(*at(0.5))
        assert module.w_loc is None
        module(*at(0.5))
        assert module.w_loc is not None

    def test_a_batch_that_failed_half_way_does_not_count(self):
        module = paper()
        with pytest.raises(RuntimeError), module.whole_batch():
            module(*at(0.5))
            raise RuntimeError
        assert module.resume_state_dict() == auto().resume_state_dict()
        module(*at(0.8))
        assert module.w_loc == pytest.approx(ratio(0.8))

    def test_a_number_knows_no_parts(self):
        module = IoUBalancedSmoothL1Loss(weight=2.0)
        with module.whole_batch():
            assert module(*at(1.0)).item() == pytest.approx(2 * 4 * P * (1 - 1 / 18))


class TestRefusals:
    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"normalize": True}, r"`weight` to be a number with normalize=True"),
            ({"weight": "automatic"}, r"`weight` to be a number or 'auto', but got 'automatic'"),
            ({"weight": -1}, r"`weight` to be at least 0, but got -1"),
            ({"weight": math.inf}, r"`weight` to be finite, but got inf"),
            ({"measure_from": -1}, r"`measure_from` to be a whole number from 0 on, but got -1"),
            ({"measure_from": 1.5}, r"`measure_from` to be a whole number from 0 on, but got 1.5"),
            ({"measure_iterations": 0}, r"`measure_iterations` to be .* from 1 on, but got 0"),
            ({"measure_iterations": True}, r"`measure_iterations` to be .*, but got True"),
            ({"max_weight": 0.5}, r"`max_weight` to be at least 1, .* but got 0.5"),
            ({"max_weight": math.nan}, r"`max_weight` to be at least 0, but got nan"),
            ({"max_weight": math.inf}, r"`max_weight` to be finite, but got inf"),
            (
                {"weight": 3.0, "measure_from": 100},
                r"`weight` to be 'auto' with measure_from, .* its measurement, but got 3.0",
            ),
            ({"weight": 3.0, "max_weight": 5.0}, r"`weight` to be 'auto' with .* but got 3.0"),
            ({"normalize": "maybe"}, r"`normalize` to be True or False, but got 'maybe'"),
            ({"across_processes": 2}, r"`across_processes` to be True or False, but got 2"),
        ],
    )
    def test_refusals(self, kwargs, message):
        for loss in (IoUBalancedSmoothL1Loss, IoUBalancedGIoULoss):
            with pytest.raises(ValueError, match=f"^Expected argument {message}"):
                loss(**{"weight": "auto", **kwargs})

    @pytest.mark.parametrize("measure", [{}, {"measure_from": 5}])
    def test_lam_0_has_nothing_to_measure(self, measure):
        module = auto(lam=0, **measure)
        assert module.w_loc == 1 and module(*at(0.0)[:2]).item() > 0
