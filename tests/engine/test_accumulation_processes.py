"""Gradient accumulation in two processes: together they give the gradient of the whole batch."""

from functools import partial

from torch.nn.parallel import DistributedDataParallel

from ..modeling.centernet.test_centernet import small_centernet
from ..processes import run_in_two_processes
from .test_accumulation import assert_same_training, batches, plain_retinanet, train
from .test_accumulation_statistics import with_class_weights

CONFIGS = [
    small_centernet,
    plain_retinanet,
    with_class_weights(small_centernet, eta=0.5, count_over="batch"),
]


def work(rank):
    """Two micro-batches of an image each, of every batch of four."""
    wrap = partial(DistributedDataParallel, broadcast_buffers=False)
    data = [batch[rank::2] for batch in batches()]
    return [train(config, 2, data, wrap=wrap) for config in CONFIGS]


def test_two_processes_with_two_micro_batches_each(tmp_path):
    (first, second) = run_in_two_processes(work, tmp_path)
    for config, result, other in zip(CONFIGS, first, second, strict=True):
        expected = train(config, 1, batches())
        assert_same_training(result, expected, tolerance=1e-3)
        # The first process logs for both.
        assert_same_training((other[0], [], other[2]), (expected[0], [], expected[2]), 1e-3)
