"""Tracebacks in log files only: the terminal gets one from Python, or a line in its place."""

import contextlib
import logging
import sys
from collections.abc import Iterator

__all__ = ["log_to_files", "tracebacks_in_files_only"]


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


def _is_on_terminal(handler: logging.Handler) -> bool:
    return getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
