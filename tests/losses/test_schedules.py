import math

import pytest

from iou_balanced.losses import ConstantSchedule, LinearSchedule, linear_schedule

from ..losses import paper_bofl as paper


class TestLinear:
    def test_by_hand(self):
        """T = 6, D = 1: (e - 1) / (6 - 1 - 1) from epoch 1 on."""
        values = [linear_schedule(e, 6, 1) for e in range(6)]
        assert values == [0, 0, 0.25, 0.5, 0.75, 1]

    @pytest.mark.parametrize("total, deferred", [(140, 5), (12, 3), (2, 0), (140, 0)])
    def test_against_the_paper(self, total, deferred):
        ours = [linear_schedule(e, total, deferred) for e in range(total)]
        assert ours == [paper.linear_lambda(e, total, deferred) for e in range(total)]
        assert ours[0] == 0 and ours[-1] == 1
        assert ours == sorted(ours)

    def test_other_readings(self):
        """T = 5, D = 1: e - 1 of 4, and e of 4."""
        assert [linear_schedule(e, 5, 1, reading="total") for e in range(5)] == [
            0, 0, 0.25, 0.5, 0.75
        ]  # fmt: skip
        assert [linear_schedule(e, 5, 1, reading="next") for e in range(5)] == [
            0, 0.25, 0.5, 0.75, 1
        ]  # fmt: skip

    @pytest.mark.parametrize("total, deferred", [(4, 3), (3, 3), (1, 0), (5, 9)])
    def test_deferral_has_to_end(self, total, deferred):
        for call in (
            lambda: linear_schedule(0, total, deferred),
            lambda: LinearSchedule(total_epochs=total, deferred_epochs=deferred),
            lambda: ConstantSchedule(total_epochs=total, deferred_epochs=deferred),
        ):
            with pytest.raises(ValueError, match=r"`total_epochs` to be greater than"):
                call()

    @pytest.mark.parametrize(
        "settings, name",
        [
            (dict(deferred_epochs=-1), "deferred_epochs"),
            (dict(reading="x"), "reading"),
            (dict(update="step"), "update"),
        ],
    )
    def test_bad_settings(self, settings, name):
        with pytest.raises(ValueError, match=f"`{name}`"):
            LinearSchedule(**settings)

    def test_negative_epoch(self):
        with pytest.raises(ValueError, match="`epoch` to be at least 0"):
            linear_schedule(-1, 12, 3)


class TestOverATraining:
    """12 epochs of 10 iterations."""

    def test_stays_within_an_epoch(self):
        schedule = LinearSchedule(total_epochs=12, deferred_epochs=3)
        values = [schedule.progress(i, 120) for i in range(120)]
        assert values == [paper.linear_lambda(i // 10, 12, 3) for i in range(120)]

    def test_each_iteration(self):
        schedule = LinearSchedule(total_epochs=12, deferred_epochs=3, update="iteration")
        values = [schedule.progress(i, 120) for i in range(120)]
        assert values == pytest.approx([paper.linear_lambda(i, 120, 30) for i in range(120)])
        assert values[30] == 0 < values[31]
        assert values[-1] == 1

    @pytest.mark.parametrize("max_iter", [120, 60, 240, 125, 90000])
    def test_epochs_follow_the_length(self, max_iter):
        """Half the iterations, as the linear scaling rule makes them, are as many epochs."""
        schedule = LinearSchedule(total_epochs=12, deferred_epochs=3)
        values = [schedule.progress(i, max_iter) for i in range(max_iter)]
        assert sorted(set(values)) == [k / 8 for k in range(9)]
        assert values[math.ceil(max_iter * 4 / 12) - 1] == 0 < values[math.ceil(max_iter * 4 / 12)]
        assert values[-1] == 1

    @pytest.mark.parametrize("max_iter", [1, 2, 5])
    @pytest.mark.parametrize("update", ["epoch", "iteration"])
    def test_shorter_than_its_epochs(self, max_iter, update):
        """A run of a few iterations, to try something out, has weights too."""
        for kind in (LinearSchedule, ConstantSchedule):
            schedule = kind(total_epochs=12, deferred_epochs=3, update=update)
            values = [schedule.progress(i, max_iter) for i in range(max_iter)]
            assert all(0 <= value <= 1 for value in values)

    @pytest.mark.parametrize("update", ["epoch", "iteration"])
    def test_constant(self, update):
        at_once = ConstantSchedule(total_epochs=12, update=update)
        assert {at_once.progress(i, 120) for i in range(120)} == {1.0}
        deferred = ConstantSchedule(total_epochs=12, deferred_epochs=3, update=update)
        values = [deferred.progress(i, 120) for i in range(120)]
        assert values == [0.0] * 30 + [1.0] * 90
        assert values == [paper.constant_lambda(i // 10, 3) for i in range(120)]

    def test_no_state(self):
        """A resumed run continues it, because nothing but the iteration counts."""
        schedule = LinearSchedule(total_epochs=12, deferred_epochs=3)
        before = schedule.progress(77, 120)
        schedule.progress(119, 120)
        assert schedule.progress(77, 120) == before
        assert not schedule.state_dict()
