import pytest
import torch
import torch.distributed as dist

from iou_balanced.modeling import LossNormalizer, balance

from ..processes import run_in_two_processes
from .detector_mixin import (
    build,
    gradients,
    make_input,
    small_retinanet,
    training_step,
    without_boxes,
)


def feed(normalizer, *counts):
    return [normalizer(torch.tensor(count)) for count in counts]


def test_moving_average_by_hand():
    # 0.9 * 100 + 0.1 * 20 = 92; 0.9 * 92 + 0.1 * 50 = 87.8.
    assert feed(LossNormalizer(), 20, 50) == pytest.approx([92, 87.8])
    # 0.5 * 10 + 0.5 * 4 = 7; 0.5 * 7 + 0.5 * 1 = 4.
    assert feed(LossNormalizer(momentum=0.5, initial=10), 4, 1) == pytest.approx([7, 4])


def test_without_a_start_value_the_first_batch_is_the_start():
    # 0.9 * 20 + 0.1 * 50 = 23.
    assert feed(LossNormalizer(initial=None), 20, 50) == pytest.approx([20, 23])


def test_without_momentum_it_is_the_number_itself():
    assert feed(LossNormalizer(momentum=0), 20, 50, 3) == [20, 50, 3]


def test_no_positives_count_as_one():
    assert feed(LossNormalizer(momentum=0), 0, 0) == [1, 1]
    assert feed(LossNormalizer(), 0) == pytest.approx([90.1])


def test_goes_on_after_a_resume_but_is_not_in_the_checkpoint():
    whole, first, second = (LossNormalizer() for _ in range(3))
    expected = feed(whole, 20, 50, 80)
    assert second.resume_state_dict() == LossNormalizer().resume_state_dict()
    feed(first, 20, 50)
    assert not first.state_dict()
    second.load_resume_state_dict(first.resume_state_dict())
    assert feed(second, 80) == expected[2:]


@pytest.mark.parametrize("momentum", [1, 1.5, -0.1, float("nan")])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match=rf"`momentum` to be in \[0, 1\), but got {momentum}"):
        LossNormalizer(momentum=momentum)


def test_repr():
    assert repr(LossNormalizer(momentum=0.5)) == (
        "LossNormalizer(momentum=0.5, initial=100.0, across_processes=True)"
    )


# Two processes with half of the batch each, against one with all of it.


def batches():
    """Three batches of two images; in one the second process has no boxes, in one nobody has."""
    torch.manual_seed(3)
    return [
        [make_input(), make_input([[4, 4, 90, 90]], [1])],
        [make_input(), without_boxes()],
        [without_boxes(), without_boxes()],
    ]


def train(parts, average_over=1):
    """Gradients of every step, averaged over the processes as DistributedDataParallel does."""
    model = build(balance(small_retinanet(), measure_iterations=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps = []
    for part in parts:
        training_step(model, part)
        grads = gradients(model)
        for grad in grads.values():
            if average_over > 1:
                dist.all_reduce(grad)
                grad /= average_over
        steps.append({name: grad.clone() for name, grad in grads.items()})
        optimizer.step()
    return steps, model.box_loss.w_loc, model.loss_normalizer.average


def work(rank):
    alone = LossNormalizer(momentum=0, across_processes=False)
    together = LossNormalizer(momentum=0)
    counts = [feed(x, 6 * rank, 4)[:2] for x in (alone, together)]
    return counts, train([[batch[rank]] for batch in batches()], average_over=2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two_processes(work, tmp_path_factory.mktemp("processes"))


def test_counts_over_two_processes(results):
    # 0 and 6 positives, then 4 and 4. Alone: max(0, 1), 6, then 4. Together half of 6 and of 8,
    # because gradients are averaged over the processes; an empty process adds nothing.
    assert [counts for counts, _ in results] == [[[1, 4], [3, 4]], [[6, 4], [3, 4]]]


def test_two_processes_train_like_one(results):
    expected, w_loc, average = train(batches())
    for _, (steps, rank_w_loc, rank_average) in results:
        assert rank_w_loc == pytest.approx(w_loc) and rank_average == pytest.approx(average)
        for step, (grads, expected_grads) in enumerate(zip(steps, expected, strict=True)):
            for name, grad in expected_grads.items():
                scale = grad.abs().max().item()
                torch.testing.assert_close(
                    grads[name], grad, rtol=1e-4, atol=1e-4 * scale + 1e-12, msg=f"{step} {name}"
                )
