"""What losses keep of the classes: resumes, parts of a batch, processes."""

import pytest
import torch

from iou_balanced.losses import (
    ClassStatistics,
    EqualizationLossV2,
    EqualizedFocalLoss,
    SeesawLoss,
)

from ..processes import run_in_two_processes

K = 3
MAKERS = {"equalized": EqualizedFocalLoss, "v2": EqualizationLossV2, "seesaw": SeesawLoss}
# Labels of both processes in each of two iterations; the second one's have no positives at first.
LABELS = [[[0, 0, 1, K], [K, K, K, -1]], [[2, K, 0, 1], [1, 1, K, 0]]]


def scores(module, iteration, rank):
    width = K + 1 if isinstance(module, SeesawLoss) else K
    generator = torch.Generator().manual_seed(2 * iteration + rank)
    return torch.randn(4, width, generator=generator).requires_grad_()


def run(module, iterations, ranks):
    """Gradients of each iteration's batch, over the parts of these processes."""
    grads = []
    for i in iterations:
        x = torch.cat([scores(module, i, rank) for rank in ranks]).detach().requires_grad_()
        labels = torch.tensor([LABELS[i][rank] for rank in ranks]).flatten()
        grads += torch.autograd.grad(module(x, labels), x)
    return grads


def work(rank):
    modules = {name: make() for name, make in MAKERS.items()}
    alone = {name: make(across_processes=False) for name, make in MAKERS.items()}
    return {
        "grads": {name: run(x, range(2), [rank]) for name, x in modules.items()},
        "alone": {name: run(x, range(2), [rank]) for name, x in alone.items()},
        "sums": {name: x.statistics.sums for name, x in modules.items()},
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two_processes(work, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("name", MAKERS)
def test_two_processes_are_one_with_the_whole_batch(results, name):
    whole = MAKERS[name]()
    grads = run(whole, range(2), range(2))
    for i, expected in enumerate(grads):
        torch.testing.assert_close(torch.cat([r["grads"][name][i] for r in results]), expected)
    for r in results:
        torch.testing.assert_close(r["sums"][name], whole.statistics.sums)
    for rank in range(2):
        expected = run(MAKERS[name](), range(2), [rank])
        torch.testing.assert_close(results[rank]["alone"][name], expected)


@pytest.mark.parametrize("name", MAKERS)
def test_a_resumed_run_goes_on_with_them(name, tmp_path):
    expected = run(MAKERS[name](), range(2), range(2))
    first, second = MAKERS[name](), MAKERS[name]()
    assert set(first.statistics.resume_state_dict().values()) == {None}
    run(first, range(1), range(2))
    assert first.statistics.resume_state_dict()["of"] == type(first).__name__
    torch.save(first.statistics.resume_state_dict(), tmp_path / "state")
    second.statistics.load_resume_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert second.statistics.resume_state_dict() == first.statistics.resume_state_dict()
    torch.testing.assert_close(run(second, range(1, 2), range(2))[0], expected[1])
    assert not first.state_dict()  # fine-tuning starts afresh


def test_statistics_of_other_classes_are_refused():
    state = ClassStatistics("positive", "negative", num_classes=4)
    state.add(torch.ones(2, 4))
    state = state.resume_state_dict()
    with pytest.raises(ValueError, match=r"interrupted run has.*of 4 classes.*of 3: resume with"):
        ClassStatistics("positive", "negative", num_classes=3).load_resume_state_dict(state)
    with pytest.raises(ValueError, match=r"\['negative', 'positive'\].*keeps \['negative', 'sam"):
        ClassStatistics("samples", "negative").load_resume_state_dict(state)
    # Where nobody has said K yet, the first batch shows it.
    late = EqualizedFocalLoss()
    late.statistics.load_resume_state_dict(state)
    with pytest.raises(ValueError, match=r"statistics of 3 classes, as the scores have, but .* 4"):
        late(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="statistics of 5 classes"):
        SeesawLoss(num_classes=4).set_num_classes(5)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("other", MAKERS)
def test_statistics_of_another_loss_are_refused(name, other):
    """Those of equalized focal loss and equalization loss v2 have the same names."""
    first, second = MAKERS[name](), MAKERS[other]()
    run(first, range(1), range(2))
    state = first.statistics.resume_state_dict()
    if type(first) is type(second):
        second.statistics.load_resume_state_dict(state)
        return
    with pytest.raises(ValueError, match=f"of {type(first).__name__}, .* {type(second).__name__}"):
        second.statistics.load_resume_state_dict(state)
    assert not second.statistics.sums.any()


@pytest.mark.parametrize("of", [None, 1, SeesawLoss])
def test_their_loss_is_given_by_name(of):
    with pytest.raises(ValueError, match="`of` to be the name of a loss"):
        ClassStatistics("samples", of=of)


def test_a_batch_that_failed_half_way_does_not_count():
    statistics = ClassStatistics("samples")
    with pytest.raises(RuntimeError), statistics.whole_batch():
        statistics.add(torch.ones(1, K))
        raise RuntimeError
    assert statistics.num_classes == K and not statistics.sums.any()
    with statistics.whole_batch():
        statistics.add(torch.ones(1, K))
        statistics.add(torch.ones(1, K))
        assert not statistics.sums.any()
    assert statistics.sums.tolist() == [[2.0] * K]
    statistics.add(torch.ones(1, K))  # a batch of its own again
    assert statistics.sums.tolist() == [[3.0] * K]


def test_a_state_of_before_the_first_batch_is_a_new_beginning():
    statistics = ClassStatistics("samples", num_classes=K)
    statistics.add(torch.ones(1, K))
    statistics.load_resume_state_dict({"samples": None})
    assert not statistics.sums.any()


def test_a_batch_that_is_not_finite_does_not_count():
    module = EqualizedFocalLoss()
    labels = torch.tensor([0, 2])
    module(torch.zeros(2, 2, requires_grad=True), labels)
    before = module.statistics.sums.clone()
    module(torch.tensor([[float("nan"), 0.0], [0.0, 0.0]], requires_grad=True), labels)
    assert before.any() and torch.equal(module.statistics.sums, before)
