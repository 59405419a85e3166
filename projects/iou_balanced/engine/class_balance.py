"""Gives a detector's `class_balance` the training set's counts and the trainer's iteration."""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from omegaconf import DictConfig, OmegaConf
from torch import nn

from iou_balanced.data import ClassCounts, warn_extreme
from iou_balanced.losses import ClassBalance

from .errors import UserError, data_errors_as_user_errors

logger = logging.getLogger(__name__)

COUNTS_FILE = "class_counts.json"


def class_balances(model: nn.Module) -> dict[str, ClassBalance]:
    """The class-balance modules of a model by name: none, one, or one for each stage."""
    return {name: x for name, x in model.named_modules() if isinstance(x, ClassBalance)}


def lazy_config_key(name: str, argument: str = "") -> str:
    """The key of a module's argument, or of the module itself, in a LazyConfig.

    The stages of a cascade are a list of another name there.
    """
    key = re.sub(r"\bbox_predictor\.(?=\d)", "box_predictors.", f"model.{name}")
    return f"{key}.{argument}" if argument else key


class ClassBalanceHook(HookBase):
    """Tells every `ClassBalance` of a model the iteration, and logs the weights in force.

    In one's own trainer: `trainer.register_hooks([ClassBalanceHook(model, counts)])`, before the
    checkpointer's `resume_or_load`, and after it `ResumeStateHook(model)`, which keeps the counts.

    Every `period` iterations the event storage gets "class_weight/min" and "/max", over classes and
    images, and "class_weight/<class>", the mean over the batch. A table that applies to a part of
    the elements only has its kind in the name: "class_weight_background/min".

    Args:
        model: of the trainer, wrapped for several processes or not.
        class_counts: of the training set; None where the modules have their counts already.
        period: in iterations.
        config_key: called with a module's name and one of its arguments; returns the key of the
            config that messages are to name.
        columns: what else the table of the classes shows, K numbers by header, also where the
            model weighs no classes; of `repeat_columns`, for example.

    Raises:
        UserError: a module has no counts, or none of a class and no floor.
    """

    def __init__(
        self,
        model: nn.Module,
        class_counts: ClassCounts | None = None,
        *,
        period: int = 20,
        config_key: Callable[[str, str], str] = lazy_config_key,
        columns: Mapping[str, Sequence[float]] | None = None,
    ):
        self._columns = columns
        self._modules = class_balances(getattr(model, "module", model))
        self._period, self._config_key = period, config_key
        self._counts = class_counts
        self._names = None if class_counts is None else class_counts.class_names
        for name, module in self._modules.items():
            _give_counts(partial(config_key, name), module, class_counts)

    def before_train(self) -> None:
        tables = set()  # the stages of a cascade have the same one
        for name, module in self._modules.items():
            weights = module.final_weights(self.trainer.max_iter).tolist()
            text = _describe(module, self._counts, weights, self._columns)
            if text not in tables:
                logger.info("Class weights of %s at the end of the training:\n%s", name, text)
                key = self._config_key(name, "intensity")
                _warn(key, module, weights, self._class_names(len(weights)))
            tables.add(text)
        if self._columns and self._counts is not None and not self._modules:
            logger.info("Classes as they are sampled:\n%s", self._counts.table(more=self._columns))

    def before_step(self) -> None:
        for module in self._modules.values():
            module.set_iteration(self.trainer.iter, self.trainer.max_iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1  # as Detectron2's writer counts
        if done % self._period and done < self.trainer.max_iter:
            return
        for module in list(self._modules.values())[:1]:
            if module.weights_in_force is not None:
                self._log(module.weights_in_force)

    def _log(self, weights) -> None:
        if weights.is_one_table:
            weights = {"": weights.own}
        else:
            weights = {f"_{kind}": x for kind, x in weights._asdict().items() if x is not None}
        storage = self.trainer.storage
        for kind, table in weights.items():
            table = table.reshape(-1, table.shape[-1])
            table = torch.cat([table.min()[None], table.max()[None], table.mean(dim=0)]).tolist()
            names = self._class_names(len(table) - 2)
            for name, value in zip(("min", "max", *names), table, strict=True):
                storage.put_scalar(f"class_weight{kind}/{name}", value, smoothing_hint=False)

    def _class_names(self, columns: int) -> Sequence[str]:
        names = list(self._names or map(str, range(columns)))
        return [*names, "background"][:columns]


def _give_counts(
    key: Callable[[str], str], module: ClassBalance, counts: ClassCounts | None
) -> None:
    if module.class_counts is not None or module.image_counts is not None:
        return  # given by hand
    if counts is None:
        raise UserError(
            f"{key('')} needs the class counts of the training set, which cannot be had from "
            "dataloader.train: it has no `dataset` that is a list of images. Give them, "
            f"{key('class_counts')}=[...] (image_counts for Equalization)"
        )
    absent = [n for n, k in zip(counts.class_names, counts.instances, strict=True) if not k]
    if absent and getattr(module, "floor", 0) is None:
        raise UserError(
            f"data set {counts.name}: no instance of {', '.join(map(repr, absent))}, so that the "
            "class weight would be infinite: leave the class out, or give "
            f"{key('floor')}=1, a number of instances that such a class counts as having"
        )
    try:
        module.set_class_counts(counts.instances, counts.images, counts.class_names)
    except ValueError as e:
        raise UserError(f"{key('')}, data set {counts.name}: {e}") from e


def _describe(
    module: ClassBalance,
    counts: ClassCounts | None,
    weights: list[float],
    columns: Mapping[str, Sequence[float]] | None,
) -> str:
    if counts is None:
        return ", ".join(f"{w:.3g}" for w in weights)
    return counts.table(module.alpha.tolist(), weights, columns)


def _warn(key: str, module: ClassBalance, weights: list[float], names: Sequence[str]) -> None:
    # What counts is the weights after the intensity.
    if not warn_extreme(weights, names):
        return
    text = warn_extreme(module.alpha.tolist(), names, instances=module.class_counts)
    if text is not None:
        logger.warning("%s Override: %s=...", text, key)


def count_classes(cfg: DictConfig, dataset) -> ClassCounts | None:
    """The class counts of the training set that `dataloader.train` is made from.

    Args:
        cfg: a LazyConfig.
        dataset: what its `dataset` gives; counted where it is a list of Detectron2's dicts.

    Returns:
        None where the data or their classes are not known.

    Raises:
        UserError: a box is of a class that the data set does not have.
    """
    if not isinstance(dataset, list) or not dataset or "annotations" not in dataset[0]:
        return None
    names = OmegaConf.select(cfg.dataloader, "train.dataset.names")
    if names is None:
        return None
    with data_errors_as_user_errors():
        names = _registered(names)
        classes = MetadataCatalog.get(names[0]).get("thing_classes")
        if classes is None:
            return None
        ignore_difficult = ignores_difficult(cfg)
        counts = ClassCounts.from_dicts(
            dataset, classes, name=" + ".join(names), ignore_difficult=ignore_difficult
        ).with_fractal_dimensions(dataset, ignore_difficult=ignore_difficult)
    if ignore_difficult and not sum(counts.instances):
        raise UserError(
            f"data set {counts.name}: no box to train on, because all are difficult or crowds and "
            "dataloader.train.mapper.ignore_difficult=True leaves these out"
        )
    return counts


def ignores_difficult(cfg: DictConfig) -> bool:
    """Whether the training's mapper leaves difficult boxes out."""
    return bool(OmegaConf.select(cfg.dataloader, "train.mapper.ignore_difficult"))


def _registered(names) -> list[str]:
    from detectron2.config import instantiate

    names = instantiate(names)
    return [names] if isinstance(names, str) else list(names)


def find_counts_file(folders: Sequence[str], class_names: Sequence[str] | None) -> str | None:
    """The class counts that a training left in one of `folders`, for an evaluation.

    Nobody asked for them: what does not fit the classes is left out, and the log says so.

    Args:
        folders: where it is looked for, in this order.
        class_names: the model's classes, in any order; with None there is no file.
    """
    for folder in folders:
        path = os.path.join(folder, COUNTS_FILE)
        if not folder or class_names is None or not os.path.isfile(path):
            continue
        try:
            ClassCounts.load(path).reordered(class_names)
        except (OSError, ValueError) as e:
            logger.info("%s is left out of the evaluation: %s", path, e)
            continue
        logger.info("AP_tail and AP_head are by %s", path)
        return path
    return None
