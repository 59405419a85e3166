"""The endless stream of training images: the same for any workers, processes and restarts.

An element of the stream is a pair (index of the image, position in the stream). The order of the
pairs is a function of the seed, and so are the images of a batch, which are the same whatever
the number of processes. What a mapper draws for an image is a function of seed and position. So a
run that is broken off goes on exactly when it is told how many batches to leave out.
"""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils import data

from .loading_processes import leave_signals_to_the_parent

__all__ = [
    "PackedDataset",
    "SeededDataset",
    "StreamBatchSampler",
    "aspect_ratio_groups",
    "build_stream_loader",
    "global_batches",
    "seed_generators",
    "temporary_seed",
]

Pair = tuple[int, int]
"""Index of an image, and its position in the stream."""
_TRIES = 1000
"""For one position, where a mapper leaves images out."""
# What a seed is for; numpy takes missing numbers for zeros, so that these cannot be told by length.
_MAPPING, _REPLACING = 1, 2


def seed_generators(*entropy: int, devices: bool = False) -> None:
    """Seed Python's, numpy's and torch's generators by one or several numbers.

    Args:
        entropy: numbers from 0 on; other numbers, or another order, are another seed.
        devices: seed those of the GPUs too.
    """
    for_python, for_numpy, *for_torch = np.random.SeedSequence(entropy).generate_state(4).tolist()
    random.seed(for_python)
    np.random.seed(for_numpy)
    seed = for_torch[0] << 31 | for_torch[1] >> 1  # 63 bits
    if devices:
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def temporary_seed(*entropy: int) -> Iterator[None]:
    """Seed the CPU's generators for the block only; afterwards they go on as if it had not been.

    Args:
        entropy: see `seed_generators`.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(*entropy)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def global_batches(
    pairs: Iterable[Pair], batch_size: int, groups: Sequence[int] | None = None
) -> Iterator[list[Pair]]:
    """Batches of a stream, in the order in which they become full.

    Args:
        pairs: the stream.
        batch_size: over all processes.
        groups: of each image of the data set; the images of a batch are of one group. None: all are
            of one.
    """
    waiting: dict[int, list[Pair]] = {}
    for pair in pairs:
        group = 0 if groups is None else groups[pair[0]]
        batch = waiting.setdefault(group, [])
        batch.append(pair)
        if len(batch) == batch_size:
            del waiting[group]
            yield batch


class StreamBatchSampler(data.Sampler):
    """This process's share of the batches of a stream, from the `start`-th batch on.

    Args:
        sampler: one of Detectron2's, whose stream all processes share; of any other, each process
            takes its own.
        batch_size: of all processes together.
        parts: micro-batches that a batch comes in.
        start: batches to leave out.
        groups: see `global_batches`.

    Raises:
        ValueError: the batch cannot be shared by all processes and micro-batches.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        *,
        batch_size: int,
        parts: int = 1,
        start: int = 0,
        groups: Sequence[int] | None = None,
    ):
        self.sampler, self.groups = sampler, groups
        self.parts, self.start = parts, start
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        if batch_size < 1 or batch_size % (self.world_size * parts):
            raise ValueError(
                f"Expected argument `batch_size` to be a multiple of {self.world_size} processes "
                f"with {parts} micro-batches, but got {batch_size}"
            )
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Pair]]:
        rank, world_size = self.rank, self.world_size
        if hasattr(self.sampler, "_infinite_indices"):
            pairs = ((i, position) for position, i in enumerate(self.sampler._infinite_indices()))
        else:  # by its nature the process's own
            own = itertools.count(rank, world_size)
            pairs = zip(self.sampler, own, strict=False)
            rank, world_size = 0, 1
        size = self.batch_size * world_size // self.world_size
        batches = global_batches(pairs, size, self.groups)
        part = size // self.parts
        for batch in itertools.islice(batches, self.start, None):
            for first in range(0, size, part):
                yield batch[first + rank : first + part : world_size]


def aspect_ratio_groups(dataset: Sequence[dict]) -> Sequence[int]:
    """Of each image, 0 where it is wider than high, else 1, as Detectron2 has it.

    Args:
        dataset: of dicts with "width" and "height".

    Raises:
        ValueError: an image lacks them.
    """
    groups = bytearray(len(dataset))
    for i in range(len(dataset)):
        record = dataset[i]
        if "width" not in record or "height" not in record:
            raise ValueError(
                f"image {record.get('file_name', i)} has no width or height, which "
                "aspect_ratio_grouping needs: give them, or switch it off"
            )
        groups[i] = record["width"] <= record["height"]
    return groups


class PackedDataset(DatasetFromList):
    """Detectron2's list of dicts in one block of memory, which remembers the groups of the images.

    Args:
        records: list of dicts.
        grouped: find the groups; see `aspect_ratio_groups`.
    """

    def __init__(self, records: list[dict], *, grouped: bool):
        self.groups = aspect_ratio_groups(records) if grouped else None
        super().__init__(records, copy=False)


class SeededDataset(data.Dataset):
    """Maps images, each with its own state of the random generators.

    Where the mapper returns None, the image is left out, and another one, drawn for the position,
    takes its place.

    Args:
        dataset: of dicts.
        mapper: from such a dict to the model's input, or None; None leaves the dicts as they are.
        seed: of the run.

    Raises:
        RuntimeError: by `[]`, the mapper leaves everything out.
    """

    def __init__(self, dataset: Sequence[dict], mapper: Callable | None, seed: int):
        self.dataset, self.mapper, self.seed = dataset, mapper, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, pair: Pair):
        index, position = pair
        with temporary_seed(self.seed, _MAPPING, position):
            for attempt in range(_TRIES):
                record = self.dataset[index]
                record = record if self.mapper is None else self.mapper(record)
                if record is not None:
                    return record
                drawn = np.random.default_rng((self.seed, _REPLACING, position, attempt))
                index = int(drawn.integers(len(self.dataset)))
        raise RuntimeError(f"the mapper left out {_TRIES} images one after another")


def build_stream_loader(
    dataset,
    *,
    mapper: Callable | None,
    seed: int,
    total_batch_size: int | None,
    sampler: Iterable[int] | None = None,
    start: int = 0,
    parts: int = 1,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable | None = None,
    single_gpu_batch_size: int | None = None,
    drop_last: bool = True,
    prefetch_factor: int | None = None,
    **kwargs,
) -> data.DataLoader:
    """In the place of Detectron2's `build_detection_train_loader`, with batches of a seeded stream.

    Images are grouped by aspect ratio before they are loaded, over all processes, so that all of a
    batch are wide, or all high.

    Args:
        dataset: a list of dicts, or a map-style data set of dicts.
        mapper: see Detectron2.
        seed: of the order and of what the mapper draws.
        total_batch_size: of all processes together.
        sampler: of indices; by default one that shuffles.
        start: batches of total_batch_size to leave out.
        parts: micro-batches in which a batch comes.
        aspect_ratio_grouping: needs "width" and "height" in the dicts.
        num_workers: processes that load, of each process that trains; each loads whole batches.
        collate_fn: from a list of mapped dicts to a batch.
        single_gpu_batch_size: in the place of `total_batch_size`, of one process.
        drop_last: without effect, as the stream has no end.
        prefetch_factor: batches that each worker loads ahead.
        **kwargs: of torch's `DataLoader`.

    Raises:
        ValueError: an image lacks the size that grouping needs.
    """
    if single_gpu_batch_size:
        total_batch_size = single_gpu_batch_size * comm.get_world_size()
    if isinstance(dataset, list):
        dataset = PackedDataset(dataset, grouped=aspect_ratio_grouping)
    groups = None
    if aspect_ratio_grouping:
        packed = isinstance(dataset, PackedDataset)
        groups = dataset.groups if packed else aspect_ratio_groups(dataset)
    if sampler is None:
        sampler = TrainingSampler(len(dataset), seed=seed)
    if num_workers > 0 and prefetch_factor is not None:
        kwargs["prefetch_factor"] = prefetch_factor
    return data.DataLoader(
        SeededDataset(dataset, mapper, seed),
        batch_sampler=StreamBatchSampler(
            sampler, batch_size=total_batch_size, parts=parts, start=start, groups=groups
        ),
        num_workers=num_workers,
        collate_fn=_as_list if collate_fn is None else collate_fn,
        worker_init_fn=leave_signals_to_the_parent,
        generator=torch.Generator(),  # else a loader would draw from that of the training
        **kwargs,
    )


def _as_list(batch: list) -> list:
    return batch
