"""A run on a disk that is full; of checkpoints see test_damaged_checkpoints.py."""

import contextlib
import logging
import resource
import signal

import pytest

from iou_balanced.engine import UserError, main
from iou_balanced.engine.checks import check_config

from .helpers import make_args, tiny_config


@contextlib.contextmanager
def full_disk(size):
    """No file can be longer than `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_is_full_at_the_start_is_one_line(tmp_path, capsys):
    """Of the run: neither its lock nor the log adds a traceback."""
    check_config(tiny_config())  # makes the data
    args = make_args(opts=[f"train.output_dir={tmp_path}"])
    with full_disk(0), pytest.raises(UserError, match=r"could not be written \(File too large\)"):
        main(args)
    for _ in range(2):
        with full_disk(0):
            logging.getLogger("iou_balanced").warning("a line of the log")
    assert "Logging error" not in capsys.readouterr().err
