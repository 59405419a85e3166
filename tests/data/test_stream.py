"""The stream of training images: no worker, process, group or restart changes it."""

import itertools
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm
from torch.utils.data import Sampler

from iou_balanced.data.stream import (
    SeededDataset,
    StreamBatchSampler,
    build_stream_loader,
    global_batches,
    seed_generators,
)

SIZES = [(20, 10), (10, 20), (10, 10), (30, 10), (10, 30), (20, 30), (30, 20)]  # width, height
RECORDS = [
    {"image_id": i, "file_name": f"{i}.png", "width": w, "height": h}
    for i, (w, h) in enumerate(SIZES)
]


def draw(record):
    """A mapper that draws from all three generators."""
    drawn = (random.random(), float(np.random.rand()), float(torch.rand(())))
    return {"image_id": record["image_id"], "drawn": drawn}


def batches(number, **kwargs):
    kwargs = {"mapper": draw, "seed": 5, "total_batch_size": 2, **kwargs}
    loader = build_stream_loader(RECORDS, **kwargs)
    return list(itertools.islice(loader, number))


def ids(found):
    return [[record["image_id"] for record in batch] for batch in found]


@pytest.fixture
def as_process(monkeypatch):
    """Be process `rank` of `world_size`."""

    def be(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return be


def test_without_groups_the_order_is_detectron2s():
    sampler = iter(TrainingSampler(len(RECORDS), seed=5))
    expected = [[next(sampler) for _ in range(2)] for _ in range(12)]
    assert ids(batches(12, aspect_ratio_grouping=False)) == expected


def test_images_of_a_batch_are_wide_or_high():
    """Square ones are with the high ones, as in Detectron2; and nothing is lost or doubled."""
    found = ids(batches(21))
    wide = [{SIZES[i][0] > SIZES[i][1] for i in batch} for batch in found]
    assert all(len(kinds) == 1 for kinds in wide) and {True} in wide and {False} in wide
    counts = np.bincount(list(itertools.chain(*found)), minlength=7)
    assert counts.sum() == 42 and counts.min() >= 5 and counts.max() <= 7


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_workers_and_start_change_nothing(workers, grouped):
    whole = batches(12, aspect_ratio_grouping=grouped)
    for start in (0, 1, 5):
        later = batches(12 - start, start=start, num_workers=workers, aspect_ratio_grouping=grouped)
        assert later == whole[start:]


def test_augmentations_are_drawn_anew_for_each_position():
    drawn = [record["drawn"] for batch in batches(20) for record in batch]
    assert len(set(drawn)) == 40
    assert drawn != [record["drawn"] for batch in batches(20, seed=6) for record in batch]


def test_loading_leaves_the_generators_of_the_training_alone():
    seed_generators(1)
    expected = random.random(), np.random.rand(), torch.rand(3)
    seed_generators(1)
    batches(3)
    batches(3, num_workers=1)
    assert expected[:2] == (random.random(), np.random.rand())
    assert torch.equal(expected[2], torch.rand(3))


def repeat_factors():
    return torch.tensor([1.0, 2.5, 1.0, 1.5, 3.0, 1.0, 1.25])


SAMPLERS = {
    "shuffled": lambda: TrainingSampler(7, seed=3),
    "repeat factors": lambda: RepeatFactorTrainingSampler(repeat_factors(), seed=3),
    "subset": lambda: RandomSubsetTrainingSampler(7, 0.6, seed_shuffle=3, seed_subset=4),
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("parts", [1, 2])
def test_processes_share_the_batches_of_one(as_process, kind, grouped, parts):
    """Position by position, with the same draws; also with micro-batches."""
    kwargs = {"total_batch_size": 4, "parts": parts, "aspect_ratio_grouping": grouped}
    one = batches(6 * parts, sampler=SAMPLERS[kind](), **kwargs)
    shares = []
    for rank in range(2):
        as_process(rank, 2)
        shares.append(batches(6 * parts, sampler=SAMPLERS[kind](), **kwargs))
    for whole, first, second in zip(one, *shares, strict=True):
        assert len(first) == len(second)
        assert whole == [x for pair in zip(first, second, strict=True) for x in pair]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_accumulation_takes_the_images_of_the_whole_batch(kind):
    whole = batches(4, sampler=SAMPLERS[kind](), total_batch_size=4)
    parts = batches(8, sampler=SAMPLERS[kind](), total_batch_size=4, parts=2)
    assert whole == [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]


class OwnSampler(Sampler):
    """Of one process each, which it knows itself."""

    def __init__(self, rank):
        self.rank = rank

    def __iter__(self):
        yield from itertools.cycle(range(self.rank, 7, 2))


def test_a_sampler_of_ones_own_goes_on_in_each_process(as_process):
    drawn = set()
    for rank in range(2):
        as_process(rank, 2)
        whole = batches(9, sampler=OwnSampler(rank), total_batch_size=4)
        assert {i % 2 for batch in ids(whole) for i in batch} == {rank}
        assert batches(5, sampler=OwnSampler(rank), total_batch_size=4, start=4) == whole[4:]
        drawn |= {record["drawn"] for batch in whole for record in batch}
    assert len(drawn) == 36


def test_the_order_of_batches_whatever_the_numbers(as_process):
    """Random sizes, groups, processes, micro-batches and starts: checked by their definition."""
    for case in range(150):
        check_order(as_process, case)


def check_order(as_process, case):
    rng = np.random.default_rng(case)
    size, world_size, parts = rng.integers(1, 40), rng.integers(1, 5), rng.integers(1, 4)
    batch_size = int(world_size * parts * rng.integers(1, 4))
    groups = rng.integers(0, 3, size).tolist()
    seed, start = int(rng.integers(1000)), int(rng.integers(0, 12))
    stream = list(itertools.islice(TrainingSampler(int(size), seed=seed)._infinite_indices(), 3000))
    pairs = [(index, position) for position, index in enumerate(stream)]
    number = start + 3
    # By definition: the k-th batch of a group is the k-th `batch_size` of its pairs, and batches
    # stand in the order of their last pairs.
    expected = []
    for group in set(groups):
        own = [pair for pair in pairs if groups[pair[0]] == group]
        chunks = [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
        expected += [chunk for chunk in chunks if len(chunk) == batch_size]
    expected = sorted(expected, key=lambda chunk: chunk[-1][1])[:number]
    assert list(itertools.islice(global_batches(pairs, batch_size, groups), number)) == expected
    found = [[] for _ in range(3 * parts)]
    for rank in range(world_size):
        as_process(rank, world_size)
        sampler = StreamBatchSampler(
            TrainingSampler(int(size), seed=seed), batch_size=batch_size, parts=int(parts),
            start=start, groups=groups,
        )  # fmt: skip
        for part, share in zip(found, sampler, strict=False):
            assert len(share) == batch_size // (world_size * parts)
            part.extend(share)
    merged = [itertools.chain(*found[i * parts : (i + 1) * parts]) for i in range(3)]
    merged = [sorted(batch, key=lambda pair: pair[1]) for batch in merged]
    assert merged == expected[start:]


def keep_even(record):
    return draw(record) if record["image_id"] % 2 == 0 else None


def test_an_image_that_the_mapper_leaves_out_is_replaced():
    whole = batches(10, mapper=keep_even)
    assert all(i % 2 == 0 for batch in ids(whole) for i in batch)
    assert batches(7, mapper=keep_even, start=3, num_workers=2) == whole[3:]
    with pytest.raises(RuntimeError, match="left out 1000 images one after another"):
        SeededDataset(RECORDS, lambda record: None, 0)[0, 0]


def test_an_image_without_size_cannot_be_grouped():
    records = [*RECORDS, {"file_name": "a.png", "width": 3}]
    with pytest.raises(ValueError, match=r"image a\.png has no width or height"):
        build_stream_loader(records, mapper=None, seed=0, total_batch_size=2)


def test_a_batch_that_cannot_be_shared(as_process):
    as_process(0, 2)
    with pytest.raises(
        ValueError, match="a multiple of 2 processes with 2 micro-batches, but got 6"
    ):
        StreamBatchSampler([0], batch_size=6, parts=2)


def slow(record):
    time.sleep(0.05)
    return {"image_id": record["image_id"], "process": os.getpid()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_to_all_processes_does_not_end_those_that_load(number):
    """The training needs their images to finish its iteration."""
    loader = iter(build_stream_loader(RECORDS, mapper=slow, seed=0, total_batch_size=1,
                                      num_workers=1))  # fmt: skip
    (process,) = {record["process"] for record in next(loader)}
    os.kill(process, number) if number != signal.SIGTERM else _kill_from_elsewhere(process)
    assert [next(loader)[0]["process"] for _ in range(4)] == [process] * 4
    start = time.monotonic()
    del loader
    assert time.monotonic() - start < 4  # and it ends with its parent


def _kill_from_elsewhere(process):
    """A SIGTERM of the parent's ends it, as multiprocessing wants it."""
    child = os.fork()
    if child == 0:
        os.kill(process, signal.SIGTERM)
        os._exit(0)
    os.waitpid(child, 0)
