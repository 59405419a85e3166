"""Hooks that Detectron2 lacks. They work with any of its trainers."""

import difflib
import json
import logging
import os
from collections.abc import Callable

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils.file_io import PathManager
from torch.nn.parallel import DistributedDataParallel

from .class_balance import lazy_config_key
from .errors import UserError

logger = logging.getLogger(__name__)


class ResumeStateHook(HookBase):
    """Keeps the losses' state in the trainer's checkpoint: normaliser, measured w_loc.

    Detectron2 saves a hook's state with the trainer and gives it back on `--resume` only, so
    that fine-tuning from the same file starts afresh. In one's own trainer, before the
    checkpointer's `resume_or_load`: `trainer.register_hooks([ResumeStateHook(model)])`.

    Args:
        model: every submodule with `resume_state_dict` and `load_resume_state_dict` takes part.
        config_key: see `ClassBalanceHook`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        config_key: Callable[[str, str], str] = lazy_config_key,
    ):
        self._config_key = config_key
        if isinstance(model, DistributedDataParallel):
            model = model.module
        self._modules = {
            name: module
            for name, module in model.named_modules()
            if hasattr(module, "resume_state_dict")
        }

    def state_dict(self) -> dict:
        return {name: module.resume_state_dict() for name, module in self._modules.items()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Give each module what the interrupted run had of it.

        Args:
            state_dict: module name -> its `resume_state_dict`.

        Raises:
            UserError: a module does not go on with it, such as with other class counts.
        """
        for name, module in self._modules.items():
            if name in state_dict:
                try:
                    module.load_resume_state_dict(state_dict[name])
                except ValueError as e:
                    raise UserError(f"{self._config_key(name, '')}: {e}") from e
            else:
                logger.warning("The checkpoint has no state of %s: it starts afresh", name)


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's, which after a resume has forgotten what the best was.

    The best value is kept beside model_best.pth, in model_best.json.
    """

    def before_train(self) -> None:
        path = self._json_path()
        if self.trainer.start_iter > 0 and PathManager.isfile(path):
            with PathManager.open(path) as f:
                best = json.load(f)
            if best["metric"] == self._val_metric:
                self.best_metric, self.best_iter = best["value"], best["iteration"]

    def _best_checking(self) -> None:
        before = self.best_iter
        latest = self.trainer.storage.latest()
        if self._val_metric not in latest:
            near = difflib.get_close_matches(self._val_metric, latest, n=1)
            logger.warning(
                "train.best_checkpoint.metric=%s is no metric of the evaluation%s",
                self._val_metric,
                f"; did you mean {near[0]}?" if near else "",
            )
            return
        super()._best_checking()
        if self.best_iter != before:
            with PathManager.open(self._json_path(), "w") as f:
                json.dump(
                    {
                        "metric": self._val_metric,
                        "value": self.best_metric,
                        "iteration": self.best_iter,
                    },
                    f,
                )

    def after_train(self) -> None:
        super().after_train()
        if self.trainer.iter + 1 < self.trainer.max_iter:  # an error ended the training
            return
        # A model_best.pth that is saved after the loop becomes "last", and its iteration number is
        # one too high. A run that is resumed with a higher max_iter has to go on from the regular
        # checkpoint.
        name = "model_final.pth"
        checkpointer = self._checkpointer
        if PathManager.isfile(os.path.join(checkpointer.save_dir, name)):
            checkpointer.tag_last_checkpoint(name)

    def _json_path(self) -> str:
        return os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.json")


class ProgressBar(HookBase):
    """A tqdm bar with iterations, ETA and the total loss, for a person at a terminal."""

    _bar = None

    def before_train(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            initial=self.trainer.start_iter,
            total=self.trainer.max_iter,
            desc="train",
            unit="it",
            dynamic_ncols=True,
        )

    def after_step(self) -> None:
        loss = self.trainer.storage.latest().get("total_loss")
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss[0]:.3f}", refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        if self._bar is not None:  # another hook's before_train may have failed
            self._bar.close()
