"""The modules that a detector takes as `class_balance`."""

import copy

import pytest
import torch

from iou_balanced.losses import (
    BalanceOriented,
    ClassBalanced,
    ClassWeights,
    ConstantSchedule,
    Equalization,
    LinearSchedule,
    inverse_frequency_weights,
)
from iou_balanced.losses.balance_oriented import count_labels
from iou_balanced.losses.class_tables import join_tables

from ..processes import run_in_two_processes

K = 3
INSTANCES, IMAGES = [60, 30, 10], [40, 25, 8]
GT_CLASSES = [torch.tensor([0, 0, 2]), torch.zeros(0).long()]
# Of the first image two positives of class 0 and one of class 2, of the second one of class 1.
GT_LABELS = torch.tensor([[0, 3, -1, 0, 2], [3, 3, 1, 3, -1]])


def ready(module, iteration=11, max_iter=12):
    module.set_class_counts(INSTANCES, IMAGES)
    module.set_iteration(iteration, max_iter)
    return module


MODULES = {
    "bofl": lambda **kw: BalanceOriented(
        num_classes=K, schedule=LinearSchedule(total_epochs=12, deferred_epochs=3), **kw
    ),
    "cbl": lambda **kw: ClassBalanced(num_classes=K, **kw),
    "eql": lambda **kw: Equalization(num_classes=K, tail_ratio=0.1, **kw),
}
every_module = pytest.mark.parametrize("name", MODULES)


class TestCounting:
    def test_labels(self):
        assert count_labels(GT_CLASSES, K).tolist() == [[2, 0, 1], [0, 0, 0]]
        assert count_labels(GT_LABELS, K).tolist() == [[2, 0, 1], [0, 1, 0]]
        assert count_labels([], K).shape == (0, K)
        assert count_labels([torch.zeros(0).long()], K).tolist() == [[0, 0, 0]]

    @pytest.mark.parametrize(
        "settings, counts",
        [
            (dict(), [[2, 0, 1], [0, 0, 0]]),
            (dict(count_over="process"), [[2, 0, 1], [2, 0, 1]]),
            (dict(count_over="batch"), [[2, 0, 1], [2, 0, 1]]),  # of one process
            (dict(counted="locations"), [[2, 0, 1], [0, 1, 0]]),
            (dict(counted="locations", count_over="process"), [[2, 1, 1], [2, 1, 1]]),
        ],
    )
    def test_over_what(self, settings, counts):
        module = ready(MODULES["bofl"](eta=0.5, **settings))
        weights = module(GT_CLASSES, GT_LABELS)
        alpha = inverse_frequency_weights(INSTANCES).float()
        torch.testing.assert_close(weights, alpha * 0.5 ** torch.tensor(counts))

    def test_instances_have_to_be_known(self):
        with pytest.raises(ValueError, match=r"`gt_classes`.*counted='locations'"):
            ready(MODULES["bofl"]())(None, GT_LABELS)
        ready(MODULES["bofl"](eta=1))(None, GT_LABELS)  # n does not matter
        ready(MODULES["bofl"](counted="locations"))(None, GT_LABELS)

    def test_lists_of_labels(self):
        """A box head has other numbers of proposals in each image."""
        module = ready(MODULES["bofl"](counted="locations"))
        as_list = module(None, [GT_LABELS[0], GT_LABELS[1, :3]])
        torch.testing.assert_close(as_list, module(None, GT_LABELS))


def count_on_each(rank):
    """Two images, one on each process."""
    module = ready(MODULES["bofl"](eta=0.5, count_over="batch"))
    gt_classes = [torch.tensor([0, 0, 2]), torch.tensor([0, 1])][rank]
    return module([gt_classes], GT_LABELS[rank : rank + 1]).tolist()


def test_counts_of_the_whole_batch(tmp_path):
    expected = inverse_frequency_weights(INSTANCES) * 0.5 ** torch.tensor([3, 1, 1])
    for weights in run_in_two_processes(count_on_each, tmp_path):
        assert weights[0] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("name", ["eta", "intensity", "both"])
def test_neutral_settings_are_the_identity(name):
    settings = dict(eta=1) if name == "eta" else dict(intensity=0)
    if name == "both":
        settings = dict(eta=1, intensity=0)
    weights = ready(MODULES["bofl"](**settings))(GT_CLASSES, GT_LABELS)
    if name == "eta":  # the weighting factor alone
        assert weights[0].tolist() == pytest.approx(inverse_frequency_weights(INSTANCES).tolist())
        assert weights[1].tolist() == weights[0].tolist()
    if name == "intensity":  # batch-wise balancing alone
        assert weights[0].tolist() == pytest.approx([0.64, 1, 0.8])
        assert weights[1].tolist() == [1, 1, 1]
    if name == "both":
        assert weights.eq(1).all()


@every_module
def test_full_weights_from_the_start_without_schedule(name):
    module = MODULES[name]() if name != "bofl" else BalanceOriented(num_classes=K, schedule=None)
    module.set_class_counts(INSTANCES, IMAGES)
    module(GT_CLASSES, GT_LABELS)  # it needs no iteration
    scheduled = MODULES[name]
    late = ConstantSchedule(total_epochs=12, deferred_epochs=3)
    module = (
        BalanceOriented(num_classes=K, schedule=late)
        if name == "bofl"
        else scheduled(schedule=late)
    )
    tables = [ready(module, i)(GT_CLASSES, GT_LABELS) for i in (0, 3)]
    tables = [[t for t in x if t is not None] if isinstance(x, tuple) else [x] for x in tables]
    assert all(table.eq(1).all() for table in tables[0])
    assert any(table.ne(1).any() for table in tables[1])


@every_module
def test_says_what_it_lacks(name):
    module = MODULES[name](schedule=LinearSchedule()) if name != "bofl" else MODULES[name]()
    with pytest.raises(RuntimeError, match=r"how frequent the classes are.*ClassBalanceHook"):
        module(GT_CLASSES, GT_LABELS)
    module.set_class_counts(INSTANCES, IMAGES)
    with pytest.raises(RuntimeError, match=r"does not know the iteration.*ClassBalanceHook"):
        module(GT_CLASSES, GT_LABELS)


@every_module
def test_is_no_part_of_a_checkpoint(name):
    """So that ours load into a stock detector, and evaluation needs no counts."""
    assert not ready(MODULES[name]()).state_dict()


@every_module
class TestResume:
    def test_same_counts(self, name):
        state = ready(MODULES[name]()).resume_state_dict()
        ready(MODULES[name]()).load_resume_state_dict(state)

    def test_other_counts(self, name):
        state = ready(MODULES[name]()).resume_state_dict()
        changed = MODULES[name]()
        changed.set_class_counts([60, 31, 10], [40, 26, 8])
        message = r"other class_counts .* of class 1 30 there and 31 here.*allow_other_counts=True"
        with pytest.raises(ValueError, match=message):
            changed.load_resume_state_dict(state)
        changed.allow_other_counts = True
        changed.load_resume_state_dict(state)
        assert changed.class_counts == [60, 31, 10]

    def test_counts_from_the_checkpoint_only(self, name):
        state = copy.deepcopy(ready(MODULES[name]()).resume_state_dict())
        module = MODULES[name]()
        module.load_resume_state_dict(state)
        assert module.class_counts == INSTANCES and module.image_counts == IMAGES
        assert torch.equal(module.alpha, ready(MODULES[name]()).alpha)

    def test_classes_are_named(self, name):
        state = MODULES[name]()
        state.set_class_counts(INSTANCES, IMAGES, ["cat", "dog", "owl"])
        changed = MODULES[name]()
        changed.set_class_counts([60, 31, 10], [40, 26, 8], ["cat", "dog", "owl"])
        with pytest.raises(ValueError, match=r"of class 'dog' 30 there and 31 here"):
            changed.load_resume_state_dict(state.resume_state_dict())
        changed.set_class_counts(INSTANCES, IMAGES, ["cat", "owl", "dog"])
        with pytest.raises(ValueError, match=r"other class_names.*'dog' there and 'owl' here"):
            changed.load_resume_state_dict(state.resume_state_dict())

    def test_another_length_is_said(self, name, caplog):
        """The schedule is stretched over more iterations: lambda steps back."""
        schedule = LinearSchedule(total_epochs=3, deferred_epochs=1)
        modules = [MODULES[name](), MODULES[name](), MODULES[name]()]
        for module in modules:
            module.schedule = schedule
        state = ready(modules[0], 2, 3).resume_state_dict()
        for module, length in zip(modules[1:], (3, 9), strict=True):
            module.load_resume_state_dict(state)
            ready(module, 3 if length == 9 else 2, length)
        (record,) = caplog.records
        assert "3 iterations and this one has 9" in record.getMessage()
        assert "lambda is 0 in the place of 1" in record.getMessage()

    def test_before_the_first_batch(self, name):
        MODULES[name]().load_resume_state_dict(MODULES[name]().resume_state_dict())


def test_intensity_that_would_turn_a_weight_negative():
    """100 and 1 instances: alpha 0.505, of which 3 times the distance to 1 is too much."""
    module = BalanceOriented(num_classes=2, schedule=None, intensity=3)
    with pytest.raises(ValueError, match=r"class 0 with alpha 0.505 has -0.485.*intensity of 3"):
        module.set_class_counts([100, 1])


class TestBadArguments:
    @pytest.mark.parametrize(
        "name, value, message",
        [
            ("eta", 1.2, r"`eta` to be in \[0, 1\]"),
            ("intensity", -1, "`intensity` to be at least 0"),
            ("floor", 0, "`floor` to be greater than 0"),
            ("count_over", "gpu", r"`count_over` to be one of \('image', 'process', 'batch'\)"),
            ("counted", "boxes", r"`counted` to be one of \('instances', 'locations'\)"),
            ("hat", "x", "`hat` to be one of"),
            ("class_counts", [1, 2], "`class_counts` .* 3 classes, but got 2"),
            ("class_counts", [1, 2, 0], r"classes \[2\] have none"),
        ],
    )
    def test_bofl(self, name, value, message):
        with pytest.raises(ValueError, match=message):
            BalanceOriented(num_classes=K, schedule=None, **{name: value})

    def test_cbl(self):
        with pytest.raises(ValueError, match=r"`beta` to be in \[0, 1\)"):
            ClassBalanced(num_classes=K, beta=1)

    @pytest.mark.parametrize("name", ["tail_ratio", "background_weight"])
    def test_eql(self, name):
        with pytest.raises(ValueError, match=rf"`{name}` to be in \[0, 1\]"):
            Equalization(num_classes=K, **{name: 2})

    def test_counts_that_it_needs(self):
        with pytest.raises(ValueError, match="`image_counts`"):
            MODULES["eql"]().set_class_counts(INSTANCES)
        with pytest.raises(ValueError, match="`class_counts`"):
            MODULES["cbl"]().set_class_counts(None, IMAGES)

    def test_floor(self):
        module = BalanceOriented(num_classes=K, schedule=None, floor=5, class_counts=[10, 10, 0])
        assert module.alpha.tolist() == pytest.approx([2 / 3, 2 / 3, 4 / 3])
        assert ClassBalanced(
            num_classes=K, beta=None, floor=5, class_counts=[10, 10, 0]
        ).alpha.tolist() == pytest.approx([2 / 3, 2 / 3, 4 / 3])


def test_given_in_the_config():
    assert (
        BalanceOriented(num_classes=K, schedule=None, class_counts=INSTANCES).class_counts
        == INSTANCES
    )
    assert ClassBalanced(num_classes=K, class_counts=INSTANCES).class_counts == INSTANCES
    assert Equalization(num_classes=K, image_counts=IMAGES).image_counts == IMAGES


@every_module
def test_repr_shows_the_settings(name):
    text = repr(MODULES[name]())
    for setting in {"bofl": ("eta=0.8", "LinearSchedule"), "cbl": ("beta=0.9999",)}.get(
        name, ("tail_ratio=0.1",)
    ):
        assert setting in text


@pytest.mark.parametrize(
    ("schedule", "progress"),
    [
        (None, 1),
        (LinearSchedule(total_epochs=10, deferred_epochs=2, update="iteration"), 1),
        # (e - D) / (T - D) in iterations: 79 of 80.
        (
            LinearSchedule(total_epochs=10, deferred_epochs=2, update="iteration", reading="total"),
            79 / 80,
        ),
    ],
)
def test_final_weights_are_those_of_the_last_iteration(schedule, progress):
    module = ClassBalanced(num_classes=2, beta=None, class_counts=[30, 10], schedule=schedule)
    assert module.last_progress(100) == pytest.approx(progress)
    # Eq. 5: 40 / (2 * 30) and 40 / (2 * 10).
    expected = [1 + progress * (2 / 3 - 1), 1 + progress]
    assert module.final_weights(100).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [dict(), dict(count_over="process"), dict(count_over="batch"), dict(counted="locations")],
)
def test_parts_of_a_batch_weigh_as_the_whole(settings):
    module = ready(MODULES["bofl"](eta=0.5, **settings))
    whole = module(GT_CLASSES, GT_LABELS)
    halves = [(GT_CLASSES[:1], GT_LABELS[:1]), (GT_CLASSES[1:], GT_LABELS[1:])]
    statistics = [module.batch_statistics(*half) for half in halves]
    is_known = settings.get("count_over", "image") != "image"
    assert all((x is not None) == is_known for x in statistics)
    with module.whole_batch(sum(statistics) if is_known else None):
        parts = [module(*half) for half in halves]
        in_force = module.weights_in_force
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)
    assert in_force.is_one_table and torch.equal(in_force.own, whole)
    module(*halves[1])  # no part of that batch
    assert module.weights_in_force.own.shape == (1, K)


def test_tables_of_parts_are_joined_by_image():
    own, row = torch.rand(3, K), torch.rand(K + 1)
    parts = [ClassWeights(own=own[:2], row=row), ClassWeights(own=own[2:], row=row)]
    joined = join_tables(parts)
    assert torch.equal(joined.own, own) and joined.row is row
    assert joined.other is joined.background is None


def test_class_balanced_weights_have_the_sum_of_as_many_classes():
    """Those of Eq. 2 at beta = 0.5, counts 2 and 1: 0.5 / 0.75 and 0.5 / 0.5."""
    settings = dict(num_classes=2, beta=0.5, class_counts=[2, 1])
    assert ClassBalanced(**settings).alpha.tolist() == pytest.approx([0.8, 1.2])
    as_they_are = ClassBalanced(**settings, normalize=False).alpha
    assert as_they_are.tolist() == pytest.approx([2 / 3, 1])
    weights = ready(MODULES["cbl"](intensity=0.5))(GT_CLASSES, GT_LABELS).row
    full = ready(MODULES["cbl"]())(GT_CLASSES, GT_LABELS).row
    torch.testing.assert_close(weights - 1, (full - 1) / 2)
