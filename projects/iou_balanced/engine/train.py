"""Training and evaluation of a LazyConfig."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.engine import create_ddp_model, default_setup, default_writers, hooks
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from iou_balanced.backbones import register_weights_handler
from iou_balanced.losses.debug import set_debug

from .blame import naming_overrides
from .checkpoint import Checkpointer, load_for_evaluation, load_initial_weights
from .checks import (
    check_accumulation,
    check_config,
    check_output_dir,
    instantiate_model,
    instantiate_optimizer,
    warn_of_other_images,
)
from .class_balance import COUNTS_FILE, ClassBalanceHook, count_classes, find_counts_file
from .class_names import ModelClasses, check_tested, class_names_of, names_in
from .config import load_config, overridden_keys
from .denormals import flushed_denormals
from .durable import full_disk_as_user_error
from .errors import UserError, data_errors_as_user_errors
from .hooks import BestCheckpointer, ProgressBar, ResumeStateHook
from .kept_arguments import warn_of_kept_arguments
from .kept_config import former_config_kept
from .lazy_class_names import (
    check_resume,
    data_set_names,
    default_class_names,
    evaluated_classes,
    evaluator_with_names,
    training_classes,
)
from .loader import (
    ContinuingLoader,
    build_test_loader,
    build_train_loader,
    prepare_masks,
    read_train_dataset,
    sampling_columns,
)
from .logit_adjustment import adjust_for_evaluation
from .missing import leave_out_missing
from .periodic_checkpointer import PeriodicCheckpointer
from .preemption import StopHook, stop_before_training, stop_signals
from .records import METRICS, RecordWriter, append_record
from .report import write_report
from .resumed_state import check_iterations
from .run_lock import only_run_in
from .scaling import scale_to_batch_size
from .seeding import SeedHook
from .targets import accepts
from .tracebacks import set_up_logs
from .trainer import Trainer

logger = logging.getLogger(__name__)


def do_test(
    cfg: DictConfig,
    model: torch.nn.Module,
    *,
    counts_folders: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
) -> dict:
    """Evaluate `model` on dataloader.test; {} where there is no evaluator or no annotation.

    Args:
        cfg: a LazyConfig.
        model: the detector, in training or evaluation mode.
        counts_folders: where the class counts of the training are looked for; by default in
            train.output_dir.
        class_names: the model's classes, in the order of its outputs; by default those of the
            training set, where it is there and they are as many as the model's. The test set's are
            matched with them by name.

    Returns:
        {task: {metric: value}} on the main process, as the evaluator gives it.

    Raises:
        UserError: the test set has a class that the model does not have; or its classes are not the
            model's in the same order, and an evaluator takes no `class_names`.
    """
    if cfg.dataloader.get("evaluator") is None:
        return {}
    # First, because reading the data set tells the names of its classes.
    with data_errors_as_user_errors():
        loader = build_test_loader(cfg)
    if class_names is None:
        class_names = default_class_names(cfg)
    check_tested(data_set_names(cfg, "test"), ModelClasses(class_names, "the model"))
    evaluator = evaluator_with_names(cfg, class_names)
    for node in evaluator if OmegaConf.is_list(evaluator) else [evaluator]:
        if node.get("output_dir") is None and accepts(node._target_, "output_dir"):
            node.output_dir = os.path.join(cfg.train.output_dir, "inference")
        if node.get("class_counts") is None and accepts(node._target_, "class_counts"):
            with data_errors_as_user_errors():
                dataset_name = instantiate(node.dataset_name)
            node.class_counts = find_counts_file(
                counts_folders or [cfg.train.output_dir],
                node.get("class_names") or class_names or class_names_of(dataset_name),
            )
    with data_errors_as_user_errors():
        evaluator = instantiate(evaluator)
    if OmegaConf.is_list(evaluator):
        evaluator = DatasetEvaluators(list(evaluator))
    with data_errors_as_user_errors():
        results = inference_on_dataset(model, loader, evaluator)
    if results and comm.is_main_process():
        print_csv_format(results)
    return results or {}


def do_train(args, cfg: DictConfig) -> Trainer:
    """Train `cfg`, or with `args.resume` go on with its last checkpoint.

    Args:
        args: of Detectron2's `default_argument_parser`.
        cfg: a LazyConfig.

    Raises:
        UserError: the output folder holds another run, or the weights or their classes do not fit.
    """
    warn_of_other_images(cfg)
    model = instantiate_model(cfg).to(cfg.train.device)
    if cfg.train.channels_last:
        model.to(memory_format=torch.channels_last)
    logger.info("Model:\n%s", model)
    check_accumulation(cfg, model)
    optimizer_cfg = cfg.optimizer.copy()
    optimizer_cfg.params.model = model
    optimizer = instantiate_optimizer(optimizer_cfg)

    main = comm.is_main_process()
    with data_errors_as_user_errors():
        dataset = read_train_dataset(cfg)
    # After the data set was read, which for some of Detectron2's own tells the names.
    classes = training_classes(cfg)
    counts = count_classes(cfg, dataset)
    columns = sampling_columns(cfg, dataset, counts)
    # Evaluations group the classes by it, also those of a run without class weights.
    counts_file = os.path.join(cfg.train.output_dir, COUNTS_FILE)

    pending = [dataset]  # the loader keeps a packed copy: let go of this one
    del dataset
    loader = ContinuingLoader(
        lambda start, seed: build_train_loader(cfg, start, pending.pop(), seed=seed),
        errors=data_errors_as_user_errors,
    )
    if cfg.train.accumulation_steps > 1:
        logger.info(
            "Gradient accumulation: an iteration takes a batch of %d images in %d micro-batches",
            cfg.dataloader.train.total_batch_size,
            cfg.train.accumulation_steps,
        )
    trainer = Trainer(
        wrap_distributed(model, cfg),
        loader,
        optimizer,
        amp_dtype=cfg.train.amp.dtype if cfg.train.amp.enabled else None,
        clip_max_norm=cfg.train.clip_grad.max_norm,
        clip_norm_type=cfg.train.clip_grad.norm_type,
        accumulation_steps=cfg.train.accumulation_steps,
    )
    checkpointer = Checkpointer(
        trainer.model,
        cfg.train.output_dir,
        classes=classes,
        optimizer=optimizer,
        trainer=trainer,
    )
    best, periodic = cfg.train.best_checkpoint, None
    if main:
        periodic = PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer)
    seeding = SeedHook(cfg.train.seed)
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter) if main else []
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            seeding,
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            ClassBalanceHook(model, counts, period=cfg.train.log_period, columns=columns),
            ResumeStateHook(model),
            periodic,
            StopHook(periodic),
            hooks.EvalHook(
                cfg.train.eval_period, lambda: do_test(cfg, model, class_names=classes.names)
            ),
            BestCheckpointer(cfg.train.eval_period, checkpointer, best.metric, best.mode)
            if main and best.metric
            else None,
            RecordWriter(writers, cfg.train.log_period, cfg.train.output_dir),
            ProgressBar() if main and cfg.train.progress_bar and sys.stderr.isatty() else None,
        ]
    )

    start_iter = 0
    if args.resume and checkpointer.has_checkpoint():
        checkpointer.unsafe = cfg.train.unsafe_load
        checkpointer.resume_or_load("", resume=True)
        # The checkpoint stores the iteration that was just finished.
        start_iter = trainer.iter + 1
        check_iterations(start_iter, cfg.train.max_iter, "train.max_iter")
    else:
        if checkpointer.has_checkpoint():
            raise UserError(
                f"{cfg.train.output_dir} holds a run ({checkpointer.get_checkpoint_file()}): "
                "--resume goes on with it; for a new one, give another train.output_dir"
            )
        load_initial_weights(checkpointer, cfg)
    checkpointer.remove_leftovers()
    loader.start, loader.seed = start_iter, seeding.seed
    if main and counts is not None:
        counts.save(counts_file)
    stop_before_training()
    trainer.train(start_iter, cfg.train.max_iter)
    return trainer


@naming_overrides
def main(args) -> dict:
    """What every process of tools/train_net.py runs; at its end `report.html` is written.

    Args:
        args: of Detectron2's `default_argument_parser`.

    Returns:
        The metrics with --eval-only, else {}.
    """
    register_weights_handler()  # a config saved as yaml cannot do it itself
    cfg = load_config(args.config_file, args.opts)
    check_output_dir(cfg.train.output_dir)
    set_up_logs(cfg.train.output_dir)
    warn_of_kept_arguments(cfg, args.opts)
    set_debug(True if cfg.train.check_values else None)
    prepare_masks(cfg)
    check_config(cfg, eval_only=args.eval_only)
    if args.resume and not args.eval_only:
        check_resume(cfg)
    scale_to_batch_size(cfg, keep=overridden_keys(args.opts))
    with flushed_denormals(cfg.train.device):
        return _run(args, cfg)


def _run(args, cfg: DictConfig) -> dict:
    folder = cfg.train.output_dir
    if args.eval_only:
        leave_out_missing(cfg)
        with full_disk_as_user_error(folder, then="start again"):
            return _evaluate(args, cfg)
    with stop_signals(), full_disk_as_user_error(folder), only_run_in(folder):
        _set_up(args, cfg)
        do_train(args, cfg)
        write_report(cfg)
    return {}


def _evaluate(args, cfg: DictConfig) -> dict:
    _set_up(args, cfg)
    model = instantiate_model(cfg).to(cfg.train.device)
    extra = load_for_evaluation(model, cfg)
    classes = evaluated_classes(cfg, names_in(extra))
    folders = [os.path.dirname(cfg.train.init_checkpoint), cfg.train.output_dir]
    adjust_for_evaluation(cfg, model, folders, classes.names)
    results = do_test(cfg, model, counts_folders=folders, class_names=classes.names)
    if results and comm.is_main_process():
        record = {**flatten_results_dict(results), "checkpoint": cfg.train.init_checkpoint}
        if "iteration" in extra:
            record["iteration"] = extra["iteration"]
        append_record(Path(cfg.train.output_dir, METRICS), record)
    write_report(cfg, eval_only=True)
    return results


def wrap_distributed(model: torch.nn.Module, cfg: DictConfig) -> torch.nn.Module:
    """Detectron2's data-parallel wrapper where there are several processes, on CPUs too."""
    kwargs = dict(cfg.train.ddp)
    if next(model.parameters()).device.type == "cpu":
        kwargs["device_ids"] = None  # Detectron2 would give it the rank as a GPU's number
    return create_ddp_model(model, **kwargs)


def _set_up(args, cfg: DictConfig) -> None:
    with former_config_kept(cfg.train.output_dir, args.eval_only):
        default_setup(cfg, args)
