"""The names of the classes in a LazyConfig: of its data sets, of its model, for its evaluators."""

import logging
from collections.abc import Sequence

from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from .class_mapping import INIT_CLASSES
from .class_names import (
    ModelClasses,
    check_number,
    check_resumed,
    check_tested,
    class_names_of,
    classes_of_evaluated,
    common_classes,
    last_checkpoint,
    names_in,
    no_names_error,
    on_every_process,
    peek,
    same_classes,
)
from .errors import UserError, data_errors_as_user_errors
from .node_options import argument_of, written_at
from .targets import accepts

logger = logging.getLogger(__name__)

WEIGHTS_KEY = "train.init_checkpoint"


def data_set_names(cfg: DictConfig, split: str) -> list[str]:
    """The names of dataloader.<split>.dataset.names, whose calls register them; [] without any.

    Raises:
        UserError: a register function says what is missing; names the key.
    """  # noqa: DOC501
    names = OmegaConf.select(cfg.dataloader, f"{split}.dataset.names")
    if names is None:
        return []
    key = written_at(cfg.dataloader[split].dataset, "names", f"dataloader.{split}.dataset.names")
    registered = []
    for i, node in enumerate(names if OmegaConf.is_list(names) else [names]):
        try:
            with data_errors_as_user_errors():
                registered.append(instantiate(node))
        except (UserError, TypeError) as e:
            if not isinstance(e, UserError) and "required" not in str(e):
                raise  # an error in the function, and not in its call
            at = f"{key}.{i}" if OmegaConf.is_list(names) else key
            raise UserError(f"{argument_of(e, node, at)}: {e}") from e
    return registered


def training_classes(cfg: DictConfig) -> ModelClasses:
    """The classes of dataloader.train, which are the model's that is trained.

    Raises:
        UserError: its data sets have other classes.
    """
    return common_classes(data_set_names(cfg, "train"), "dataloader.train.dataset.names")


def check_classes(cfg: DictConfig, classes: ModelClasses) -> None:
    """Compare the model's classes with its number of outputs, and with the test sets.

    Where their names are not known, the test sets have to have as many.

    Raises:
        UserError: they do not fit, or `evaluator_with_names` raises it.
    """
    key, num_classes = _num_classes(cfg)
    check = {"but": f"{key}={num_classes}", "give": f"{key}="}
    check_number(classes, num_classes, **check)
    test_sets = data_set_names(cfg, "test")
    check_tested(test_sets, classes)
    if classes.names is None:
        for name in test_sets:
            own = ModelClasses(class_names_of(name), f"data set {name}")
            check_number(own, num_classes, **check)
    elif cfg.dataloader.get("evaluator") is not None:
        evaluator_with_names(cfg, classes.names)  # rather now than after the first epoch


def check_resume(cfg: DictConfig) -> None:
    """Refuse to resume a run of other classes, before anything is written to its folder.

    Raises:
        UserError: train.output_dir holds such a run; on every process.
    """
    with on_every_process():
        file = last_checkpoint(cfg.train.output_dir)
        found = names_in(peek(file)) if file else None
        if found is not None:
            check_resumed(found, training_classes(cfg), file, WEIGHTS_KEY)


def evaluated_classes(cfg: DictConfig, of_checkpoint: Sequence[str] | None) -> ModelClasses:
    """The classes of the model in train.init_checkpoint, compared with the test sets.

    The file's own; else those of the training set, if it is on this machine.

    Args:
        cfg: a LazyConfig.
        of_checkpoint: the names in the file.

    Raises:
        UserError: a test set has a class that the model does not have; on every process.
    """
    classes = classes_of_evaluated(
        of_checkpoint, f"{WEIGHTS_KEY}={cfg.train.init_checkpoint}", _training_classes_if_there(cfg)
    )
    with on_every_process():
        check_classes(cfg, classes)
    return classes


def default_class_names(cfg: DictConfig) -> list[str] | None:
    """The names of the training set's classes; None where they cannot be the model's.

    They are the main process's: the training set may be on one machine only.
    """
    classes = _training_classes_if_there(cfg)
    return comm.all_gather(None if classes is None else classes.names)[0]


def _training_classes_if_there(cfg: DictConfig) -> ModelClasses | None:
    try:
        names = data_set_names(cfg, "train")
        if any(name not in DatasetCatalog for name in names):
            return None
        classes = training_classes(cfg)
    except Exception as e:  # a user's function that does not find its files
        logger.debug("The training set is not there: %s", e)
        return None
    # A config's training set may be another than the one of the evaluated model.
    fits = classes.names is None or _num_classes(cfg)[1] in (None, len(classes.names))
    return classes if fits else None


def evaluator_with_names(cfg: DictConfig, class_names: Sequence[str] | None):
    """A copy of dataloader.evaluator, a call or a list of them, that knows the model's classes.

    An evaluator that scores a data set with the same classes needs no names.

    Raises:
        UserError: an evaluator does not take them, and the classes of its data set are others.
    """
    evaluator = cfg.dataloader.evaluator.copy()
    evaluator._set_parent(cfg.dataloader)  # it refers to its neighbours
    if class_names is not None:
        for node in evaluator if OmegaConf.is_list(evaluator) else [evaluator]:
            _give_class_names(node, class_names, cfg)
    return evaluator


def _give_class_names(node: DictConfig, class_names: Sequence[str], cfg: DictConfig) -> None:
    if node.get("class_names") is not None:
        return
    with data_errors_as_user_errors():
        name = instantiate(node.get("dataset_name"))
    names = [name] if isinstance(name, str) else data_set_names(cfg, "test")
    others = [name for name in names if not same_classes(name, class_names)]
    if names and not others:
        return
    if accepts(node._target_, "class_names"):
        node.class_names = list(class_names)
        return
    for name in others:
        if class_names_of(name) is not None:
            target = node._target_ if isinstance(node._target_, str) else node._target_.__name__
            raise no_names_error(
                target, name, class_names, "give dataloader.evaluator._target_=... one of these"
            )


def init_classes_of(cfg: DictConfig) -> list[str] | bool | None:
    """train.init_classes as names; False and None as they are.

    Raises:
        UserError: no such data set, or one whose classes are not known; or a name occurs twice.
    """
    value = cfg.train.get("init_classes")
    if value is None or value is False:
        return value
    if isinstance(value, str):
        names = class_names_of(value)
        if names is None:
            raise UserError(
                f"{INIT_CLASSES}={value}: no data set with known classes has this name; "
                f"{INIT_CLASSES} may also be a list of the names: {INIT_CLASSES}='[person,car]'"
            )
    elif OmegaConf.is_list(value):
        names = [str(name) for name in value]
    else:
        raise UserError(
            f"{INIT_CLASSES} has to be a data set's name, a list of class names, or False for rows "
            f"that are taken as they are, but is {value!r}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{INIT_CLASSES} has {', '.join(twice)} more than once")
    return names


def _num_classes(cfg: DictConfig) -> tuple[str, int | None]:
    """The key of the model's number of classes, of a dense detector or an R-CNN, and the number."""
    for key in ("num_classes", "roi_heads.num_classes"):
        number = OmegaConf.select(cfg.model, key)
        if number:
            return f"model.{key}", number
    return "model.num_classes", None
