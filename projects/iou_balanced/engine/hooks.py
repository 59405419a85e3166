"""Hooks that Detectron2 lacks. They work with any of its trainers."""

import difflib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.engine import HookBase, hooks
from torch.nn.parallel import DistributedDataParallel

from iou_balanced.files import write_atomically
from iou_balanced.losses import ClassStatistics

from .checkpoint_files import problem_of
from .class_balance import lazy_config_key
from .durable import full_disk_as_user_error
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
        for name in set(state_dict).difference(self._modules):
            if any(value is not None for value in state_dict[name].values()):
                logger.warning("The interrupted run kept a state of %s, which is lost", name)
        for name, module in self._modules.items():
            if name in state_dict:
                try:
                    module.load_resume_state_dict(state_dict[name])
                except ValueError as e:
                    # Statistics are no key of a config, but a part of their loss.
                    is_part = isinstance(module, ClassStatistics)
                    key = self._config_key(name.rpartition(".")[0] if is_part else name, "")
                    raise UserError(f"{key}: {e}") from e
            else:
                logger.warning("The checkpoint has no state of %s: it starts afresh", name)


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's, which after a resume has forgotten what the best was.

    The best value is kept in model_best.pth, and for readers in model_best.json beside it. After a
    resume with another metric the file of the former one is best_<metric>.pth.
    """

    def before_train(self) -> None:
        path = self._path(".pth")
        if self.trainer.start_iter == 0 or not path.is_file():
            return
        problem = problem_of(path)
        if problem is not None:
            logger.warning("%s is given up: %s. The next evaluation is the best", path, problem)
            return
        best = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get("best")
        if best is None:  # of an earlier version
            best = self._read_json()
        if best is None:
            return
        if best["metric"] == self._val_metric:
            self.best_metric, self.best_iter = best["value"], best["iteration"]
            return
        kept = path.with_name(f"best_{best['metric'].replace('/', '_')}.pth")
        path.replace(kept)
        logger.warning(
            "%s is the best by %s, which is not %s: it is %s now",
            path,
            best["metric"],
            self._val_metric,
            kept,
        )

    def _best_checking(self) -> None:
        latest = self.trainer.storage.latest()
        if self._val_metric not in latest:
            near = difflib.get_close_matches(self._val_metric, latest, n=1)
            logger.warning(
                "train.best_checkpoint.metric=%s is no metric of the evaluation%s",
                self._val_metric,
                f"; did you mean {near[0]}?" if near else "",
            )
            return
        value, iteration = latest[self._val_metric]
        is_best = self.best_metric is None or self._compare(value, self.best_metric)
        if not math.isfinite(value) or not is_best:
            logger.info(
                "%s is %.5f; the best is %s, of iteration %s",
                self._val_metric,
                value,
                self.best_metric,
                self.best_iter,
            )
            return
        best = {"metric": self._val_metric, "value": value, "iteration": iteration}
        self._checkpointer.save(self._file_prefix, iteration=iteration, best=best)
        path = self._path(".json")
        with full_disk_as_user_error(path):
            write_atomically(path, lambda file: json.dump(best, file), durable=True)
        self.best_metric, self.best_iter = value, iteration
        logger.info("%s is %.5f, the best so far: %s", self._val_metric, value, self._path(".pth"))

    def after_train(self) -> None:
        super().after_train()
        if self.trainer.iter + 1 < self.trainer.max_iter:  # an error ended the training
            return
        # A run that is resumed with a higher max_iter goes on from the regular checkpoint.
        final = self._path(".pth").with_name("model_final.pth")
        if final.is_file():
            self._checkpointer.tag_last_checkpoint(final.name)

    def _read_json(self) -> dict | None:
        try:
            return json.loads(self._path(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _path(self, suffix: str) -> Path:
        return Path(self._checkpointer.save_dir, f"{self._file_prefix}{suffix}")


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
