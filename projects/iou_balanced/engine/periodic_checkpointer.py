"""Periodic checkpoints, counted over all starts of a run."""

import logging
from pathlib import Path

from detectron2.engine import hooks

from .checkpoint_files import checkpoints_in, number_of

__all__ = ["PeriodicCheckpointer"]

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's, whose `max_to_keep` counts the files of earlier starts too.

    An old file is removed only after a newer one is on the disk; model_final.pth and model_best.pth
    never are.

    Args:
        checkpointer, period, max_iter, max_to_keep, file_prefix: see fvcore.
    """

    _saved = -1

    def before_train(self) -> None:
        super().before_train()
        folder, start = self.checkpointer.save_dir, self.trainer.start_iter
        if folder and "://" not in folder:
            # What is newer than the start could not be resumed, and is written anew.
            files = [file for file in checkpoints_in(folder) if 0 <= number_of(file) < start]
            self.recent_checkpoints = [str(file) for file in sorted(files, key=number_of)]

    def step(self, iteration: int, **kwargs) -> None:
        """Save where the period or the last iteration asks for it.

        Args:
            iteration: that was done.
            **kwargs: further entries of the file.
        """
        if (iteration + 1) % self.period == 0:
            self.save_now(iteration, **kwargs)
        if self.max_iter is not None and iteration >= self.max_iter - 1:
            self.checkpointer.save(f"{self.file_prefix}_final", iteration=iteration, **kwargs)

    def save_now(self, iteration: int, **kwargs) -> None:
        """Save, unless this iteration was saved.

        Args:
            iteration: that was done.
            **kwargs: further entries of the file.
        """
        if self._saved == iteration:
            return
        name = f"{self.file_prefix}_{iteration:07d}"
        self.checkpointer.save(name, iteration=iteration, **kwargs)
        self._saved = iteration
        path = str(Path(self.checkpointer.save_dir, f"{name}.pth"))
        self.recent_checkpoints = [f for f in self.recent_checkpoints if f != path] + [path]
        while self.max_to_keep is not None and len(self.recent_checkpoints) > self.max_to_keep:
            old = self.recent_checkpoints.pop(0)
            if self.path_manager.exists(old):
                self.path_manager.rm(old)
