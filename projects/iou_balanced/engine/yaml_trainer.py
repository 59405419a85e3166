"""The trainer for users of yaml (yacs) configs."""

import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, hooks
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm

from iou_balanced.backbones import register_weights_handler
from iou_balanced.data import ClassCounts
from iou_balanced.data.image_reading import install_reader

from .class_balance import COUNTS_FILE, ClassBalanceHook, class_balances
from .class_names import on_every_process
from .denormals import flushed_denormals
from .errors import UserError
from .hooks import ResumeStateHook
from .loader import ContinuingLoader
from .loop import ResumableLoop
from .periodic_checkpointer import PeriodicCheckpointer
from .preemption import StopHook
from .records import RecordWriter
from .report import evaluation_times, write_yaml_report
from .resumed_state import check_iterations
from .run_lock import only_run_in
from .seeding import SeedHook
from .trainer import Trainer
from .yaml_class_names import (
    YamlCheckpointer,
    check_classes,
    remember_classes,
    training_classes,
)
from .yaml_evaluation import TrainerWithEvaluation
from .yaml_loader import (
    build_yaml_loader,
    count_classes,
    mapper_of,
    micro_batch_config,
    no_counts,
    read_train_dataset,
    weighs_classes,
)
from .yaml_logit_adjustment import refuse_in_training
from .yaml_options import check_yaml_options

logger = logging.getLogger(__name__)


class BalancedDefaultTrainer(ResumableLoop, TrainerWithEvaluation):
    """Detectron2's trainer for yaml configs, with what our detectors need beyond it.

    - Checkpoints keep the losses' state too, for `resume_or_load(resume=True)`, and the optimizer's
      with Detectron2 v0.6 as well, whose own trainer keeps it on the main branch only.
    - Class weights (`MODEL.CLASS_BALANCE`) get the counts of `DATASETS.TRAIN`, and the iteration.
      The counts, class_counts.json in `OUTPUT_DIR`, are for evaluations too: AP_tail and AP_head,
      and `TEST.LOGIT_ADJUSTMENT`.
    - CenterNet gets the images of `iou_balanced.data.centernet_augmentations`. Those that it trains
      on all have one shape, so that `DATALOADER.ASPECT_RATIO_GROUPING` is left aside.
    - `MODEL.WEIGHTS` may be "timm://..." or "torchvision://...".
    - `SOLVER.OPTIMIZER: "ADAM"`, where the config has this key: Adam with L2 weight decay.
    - `SOLVER.ACCUMULATION_STEPS: 4`, where the config has this key: the IMS_PER_BATCH images of an
      iteration pass through the model as 4 micro-batches, by our `Trainer` in the place of
      Detectron2's SimpleTrainer or AMPTrainer. It calls `build_train_loader`, also a subclass's,
      with the config of a micro-batch.
    - A resumed run goes on as if it had not been broken off, with the same images and random
      augmentations, which `SEED` repeats; a `build_train_loader` of a subclass has to return what
      this one does, else it starts at the beginning of its data. A run that is asked to stop
      writes a checkpoint, see docs/reliability.md. One run a folder.
    - `DATASETS.TEST` is evaluated by `build_evaluator`. At the end of a training `report.html` is
      written into `OUTPUT_DIR`, unless the config has `TEST.REPORT: False`.
    - `DATALOADER.ON_BAD_IMAGE: "skip"`, where the config has this key: another image takes the
      place of a training image that cannot be read, with a count; "error" names it and ends.
    - Classes are matched by name. Checkpoints have the names of `DATASETS.TRAIN`; a resume needs
      the same, and in `MODEL.WEIGHTS` the rows of a classifier are those of the classes of the same
      names. A test set may have its classes in another order, or lack some.

    Args:
        cfg: a yaml (yacs) config.

    Raises:
        UserError: a number that makes no sense (see `yaml_options`); the classes of
            `DATASETS.TRAIN` are not as many as the model's, or cannot be counted, or not weighed; a
            test set has others; a batch that the processes and micro-batches cannot share.
    """

    _class_counts: ClassCounts | None = None

    def __init__(self, cfg: CfgNode):
        check_yaml_options(cfg)
        register_weights_handler()
        training_classes(cfg)  # first: Detectron2 only says that they differ
        steps = cfg.SOLVER.get("ACCUMULATION_STEPS", 1)
        if steps != 1:
            # Detectron2's constructor calls it, with the batch of as many processes as there are.
            build = self.build_train_loader
            self.build_train_loader = lambda cfg: build(micro_batch_config(cfg))
        super().__init__(cfg)
        if steps != 1:
            stock = self._trainer
            self._trainer = Trainer(
                stock.model,
                # Detectron2 v0.6 has opened the loader already: its workers are on their way.
                vars(stock).get("_data_loader_iter", stock.data_loader),
                stock.optimizer,
                amp_dtype="auto" if cfg.SOLVER.AMP.ENABLED else None,
                accumulation_steps=steps,
            )
            self._trainer.data_loader = stock.data_loader

    def train(self):
        """Train to the last iteration, from where the loaded checkpoint stopped.

        Raises:
            UserError: another run is or was in OUTPUT_DIR; the loaded one has more iterations; or
                the config has a `TEST.LOGIT_ADJUSTMENT`.
        """
        refuse_in_training(self.cfg)
        check_iterations(self.start_iter, self.max_iter, "SOLVER.MAX_ITER")
        with on_every_process():
            if self.start_iter == 0 and self.checkpointer.has_checkpoint():
                raise UserError(
                    f"{self.cfg.OUTPUT_DIR} holds a run ({self.checkpointer.get_checkpoint_file()})"
                    ": resume_or_load(resume=True) goes on with it; for a new one, give another "
                    "OUTPUT_DIR"
                )
        loader, (seeding,) = self.data_loader, _of_kind(self._hooks, SeedHook)
        if isinstance(loader, ContinuingLoader):
            loader.start = self.start_iter * self.cfg.SOLVER.get("ACCUMULATION_STEPS", 1)
            loader.seed = seeding.seed
        elif self.start_iter > 0:
            logger.warning(
                "The loader is not that of BalancedDefaultTrainer.build_train_loader: it starts "
                "at the beginning of its data, and not where the run was broken off"
            )
        for hook in _of_kind(self._hooks, hooks.PreciseBN):
            hook._data_loader.start = self.start_iter // self.cfg.TEST.EVAL_PERIOD * hook._num_iter
            hook._data_loader.seed = seeding.seed
        folder = self.cfg.OUTPUT_DIR
        with only_run_in(folder, "OUTPUT_DIR"), flushed_denormals(self.cfg.MODEL.DEVICE):
            self.checkpointer.remove_leftovers()
            return self._train()

    def _train(self):
        if self._class_counts is not None and comm.is_main_process():
            # For `build_evaluator`. After `resume_or_load`, which may have refused them.
            self._class_counts.save(os.path.join(self.cfg.OUTPUT_DIR, COUNTS_FILE))
        before = evaluation_times(self.cfg)
        results = super().train()
        write_yaml_report(self.cfg, before)
        return results

    # Detectron2's main branch does the same; v0.6 loses the optimizer's state.
    def state_dict(self) -> dict:
        state = {**super(DefaultTrainer, self).state_dict(), "_trainer": self._trainer.state_dict()}
        return {**state, "iteration": self.last_iteration()}

    def load_state_dict(self, state_dict: dict) -> None:
        super(DefaultTrainer, self).load_state_dict(state_dict)
        if "_trainer" in state_dict:
            state = dict(state_dict["_trainer"])
            scaler = getattr(self._trainer, "grad_scaler", None)
            if scaler is not None:  # the interrupted run may have been without AMP
                state["grad_scaler"] = state.get("grad_scaler") or scaler.state_dict()
            self._trainer.load_state_dict(state)
        else:
            logger.warning("The checkpoint has no state of the optimizer: it starts afresh")

    def build_hooks(self) -> list:
        classes = training_classes(self.cfg)
        check_classes(self.cfg, self.model, classes)
        remember_classes(self.model, classes)
        # Here, because the hooks that Detectron2 makes below hold the checkpointer.
        stock = self.checkpointer
        self.checkpointer = YamlCheckpointer(
            self.model, stock.save_dir, classes=classes, **stock.checkpointables
        )
        # The counts are there before `resume_or_load`, which compares the checkpoint's with them.
        own = [*self._class_balance_hooks(), ResumeStateHook(self.model, config_key=_yaml_key)]
        own.append(SeedHook(self.cfg.SEED, key="SEED"))
        return [*own, *self._resumable(super().build_hooks())]

    def _resumable(self, stock: list) -> list:
        """Detectron2's hooks, with ours in the place of its checkpoints and records."""
        found, periodic = [], None
        is_main = comm.is_main_process()
        for hook in stock:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                hook = periodic = PeriodicCheckpointer(self.checkpointer, hook.period)
            elif isinstance(hook, hooks.PeriodicWriter):
                hook = RecordWriter(hook._writers, hook._period, self.cfg.OUTPUT_DIR)
            elif isinstance(hook, hooks.EvalHook):
                found.append(StopHook(periodic))
            found.append(hook)
        if not is_main:
            found.append(RecordWriter([], 1, self.cfg.OUTPUT_DIR))
        return found

    def _class_balance_hooks(self) -> list[ClassBalanceHook]:
        modules = class_balances(self.model).values()
        if not modules and weighs_classes(self.cfg):
            raise UserError(
                f"MODEL.META_ARCHITECTURE {self.cfg.MODEL.META_ARCHITECTURE} does not read "
                f"MODEL.CLASS_BALANCE.NAME {self.cfg.MODEL.CLASS_BALANCE.NAME}: give "
                "BalancedRetinaNet or CenterNet, or NAME ''"
            )
        counts = getattr(self.data_loader, "class_counts", None)
        columns = getattr(self.data_loader, "repeat_columns", None)
        if any(m.class_counts is None and m.image_counts is None for m in modules):
            if counts is None:  # of a subclass with a loader of its own
                counts = count_classes(self.cfg, read_train_dataset(self.cfg))
            if counts is None:
                raise no_counts(self.cfg)
        self._class_counts = counts
        if not modules and columns is None:
            return []
        return [ClassBalanceHook(self.model, counts, config_key=_yaml_key, columns=columns)]

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_yaml_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        install_reader()
        mapper = mapper_of(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer that `SOLVER.OPTIMIZER` names.

        Raises:
            UserError: it is neither "SGD" nor "ADAM".
        """
        name = cfg.SOLVER.get("OPTIMIZER", "SGD")
        if name == "SGD":
            return super().build_optimizer(cfg, model)
        if name != "ADAM":
            raise UserError(f"SOLVER.OPTIMIZER={name}: give SGD or ADAM")
        params = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        return maybe_add_gradient_clipping(cfg, torch.optim.Adam)(
            params, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY
        )


def _of_kind(hooks_: list, kind: type) -> list:
    return [hook for hook in hooks_ if isinstance(hook, kind)]


def _yaml_key(name: str, argument: str) -> str:
    """What a yaml config calls a module, or its argument."""
    group = "MODEL.CLASS_BALANCE"
    if "class_balance" not in name.split("."):
        group = "MODEL.IOU_BALANCED.CLS_LOSS"
    return f"{group}.{argument.upper()}".rstrip(".")
