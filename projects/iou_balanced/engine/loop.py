"""What the trainers for LazyConfigs and for yaml configs share: how a training ends."""

import contextlib
import logging
from collections.abc import Iterator

from detectron2.engine import TrainerBase

from .errors import UserError
from .preemption import stop_signals
from .tracebacks import tracebacks_in_files_only

__all__ = ["ResumableLoop"]


class ResumableLoop(TrainerBase):
    """A training that may be asked to stop, with its iterations counted right at the end.

    To be put before one of Detectron2's trainers among the bases of a class.
    """

    def train(self, *args):
        """Train; a mistake of the user's is one line in the log, any other error a traceback there.

        Args:
            *args: of Detectron2's trainer.
        """
        quiet = tracebacks_in_files_only("detectron2")  # the error itself is seen by the caller
        with stop_signals(), _one_line_for_user_errors(), quiet:
            return super().train(*args)

    def after_train(self) -> None:
        # One too many where a finished run is resumed, so that nothing is left to do.
        self.iter = min(self.iter, self.max_iter)
        super().after_train()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "iteration": self.last_iteration()}

    def last_iteration(self) -> int:
        """The last iteration that was done; after the training, `iter` is one more."""
        return min(self.iter, getattr(self, "max_iter", self.iter + 1) - 1)


@contextlib.contextmanager
def _one_line_for_user_errors() -> Iterator[None]:
    """Detectron2 logs whatever ends a training with its traceback."""
    logger = logging.getLogger("detectron2.engine.train_loop")

    def shorten(record: logging.LogRecord) -> bool:
        error = record.exc_info and record.exc_info[1]
        if isinstance(error, UserError):
            record.exc_info = record.exc_text = None
            record.msg, record.args = f"The training ended: {error}", ()
        return True

    logger.addFilter(shorten)
    try:
        yield
    finally:
        logger.removeFilter(shorten)
