"""Tracebacks in log files only: the terminal gets one from Python, or a line in its place."""

import contextlib
import functools
import logging
import sys
from collections.abc import Iterator

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

__all__ = ["log_to_files", "set_up_logs", "tracebacks_in_files_only"]


@contextlib.contextmanager
def tracebacks_in_files_only(name: str) -> Iterator[None]:
    """Keep records with a traceback off the terminal.

    Args:
        name: of the logger whose handlers are meant.
    """

    def has_none(record: logging.LogRecord) -> bool:
        return not record.exc_info

    handlers = [x for x in logging.getLogger(name).handlers if _is_on_terminal(x)]
    for handler in handlers:
        handler.addFilter(has_none)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(has_none)


def log_to_files(logger: logging.Logger, message: str, error: Exception) -> None:
    """Write a message with the traceback of an error.

    Args:
        logger: of the module that writes it; the handlers are those of its package.
        message: one line.
        error: that was raised.
    """
    with tracebacks_in_files_only(logger.name.partition(".")[0]):
        logger.debug(message, exc_info=error)


def set_up_logs(folder: str) -> None:
    """Detectron2's loggers and ours, into `folder`/log.txt; a full disk there is not told by them.

    Python would say of each record that it cannot be written. What else cannot be written then ends
    the run, and is said once.

    Args:
        folder: of the run.
    """
    rank = comm.get_rank()
    # Called as `default_setup` does, so that it finds them.
    loggers = [
        setup_logger(folder, distributed_rank=rank, name="fvcore"),
        setup_logger(folder, distributed_rank=rank),
        setup_logger(folder, distributed_rank=rank, name="iou_balanced"),
    ]
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if not _is_on_terminal(handler):
            handler.handleError = functools.partial(_handle_error, type(handler), handler)


def _handle_error(kind: type[logging.Handler], handler: logging.Handler, record) -> None:
    if not isinstance(sys.exc_info()[1], OSError):
        kind.handleError(handler, record)


def _is_on_terminal(handler: logging.Handler) -> bool:
    return getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
