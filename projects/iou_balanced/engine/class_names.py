"""The names of a model's classes: where they come from, and what they are compared with.

A checkpoint file has them under "class_names". Both kinds of config, LazyConfig and yaml, use this.
"""

import contextlib
import inspect
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from iou_balanced.formats.class_names import check_spelling, list_names, match_class_names

from .checkpoint_files import checkpoints_in, order_by_age
from .class_mapping import INIT_CLASSES, ClassMapping
from .errors import UserError, data_errors_as_user_errors

logger = logging.getLogger(__name__)

KEY = "class_names"
"""The key in a checkpoint file: a list of str at its top level."""


class ModelClasses(NamedTuple):
    """The classes of a model."""

    names: list[str] | None  # in the order of its outputs; None where they are not known
    of: str  # whose they are, for messages


def class_names_of(data_set: str) -> list[str] | None:
    """The classes of a registered data set; None where they are not known (yet)."""
    if data_set not in MetadataCatalog:
        return None
    names = MetadataCatalog.get(data_set).get("thing_classes")
    return [str(name) for name in names] if names else None


def common_classes(data_sets: Sequence[str], key: str) -> ModelClasses:
    """The classes of the training sets, which all have to have the same.

    Args:
        data_sets: names of registered data sets.
        key: where the config has them, for messages.

    Raises:
        UserError: two of them have other classes, or the same in another order.
    """
    found = {name: class_names_of(name) for name in data_sets}
    known = {name: classes for name, classes in found.items() if classes is not None}
    if not known:
        return ModelClasses(None, key)
    first, *others = known
    for other in others:
        if known[other] != known[first]:
            raise UserError(
                f"{key} has data sets of other classes: {first!r} has {list_names(known[first])}, "
                f"but {other!r} {list_names(known[other])}. Give all the same, in the same order: "
                "the register functions take class_names"
            )
    return ModelClasses(known[first], f"data set {first!r} ({key})")


def check_number(classes: ModelClasses, num_classes: int | None, *, but: str, give: str) -> None:
    """Refuse classes that are not as many as the model's outputs.

    Args:
        classes: of a data set.
        num_classes: the model's; None where it is not known.
        but: the words for it, such as "model.num_classes=80".
        give: the key with the sign that follows it, such as "model.num_classes=".

    Raises:
        UserError: it names both numbers.
    """
    if classes.names is None or num_classes in (None, len(classes.names)):
        return
    names, number = classes.names, len(classes.names)
    raise UserError(
        f"{classes.of} has {number} classes ({', '.join(names[:5])}"
        f"{', ...' if number > 5 else ''}), but {but}: give {give}{number}"
    )


def check_tested(data_sets: Sequence[str], classes: ModelClasses) -> None:
    """Refuse a test set with a class that the model does not have; it may lack some.

    Raises:
        UserError: it names the lists of both, or names that are spelled otherwise.
    """
    for name in data_sets:
        own = class_names_of(name)
        if own is not None and classes.names is not None:
            with data_errors_as_user_errors():
                match_class_names(own, classes.names, of=f"data set {name!r}", model=classes.of)


def same_classes(data_set: str, names: Sequence[str]) -> bool:
    """Whether a data set has these classes in this order, so that their numbers are enough."""
    return class_names_of(data_set) == list(names)


def no_names_error(evaluator: str, data_set: str, classes: Sequence[str], remedy: str) -> UserError:
    """For an evaluator that goes by the classes' numbers, where these are not the same."""
    return UserError(
        f"{evaluator} compares classes by their number, but data set {data_set!r} has "
        f"{list_names(class_names_of(data_set) or [])} and the model {list_names(classes)}. "
        f"COCOBoxEvaluator and VOCDetectionEvaluator of iou_balanced.evaluation go by the names: "
        f"{remedy}"
    )


def classes_of_evaluated(
    of_checkpoint: Sequence[str] | None, file: str, training: ModelClasses | None
) -> ModelClasses:
    """The classes of a model that is only evaluated, the same for all processes; logs which.

    Args:
        of_checkpoint: those that its file names.
        file: the words for it.
        training: the training set's, where it is there and they are as many as the model's.
    """
    if training is not None and training.names is None:
        training = None
    if of_checkpoint is not None:
        classes = ModelClasses(list(of_checkpoint), file)
        if training is not None and training.names != classes.names:
            logger.warning(
                "The model's classes are those of %s: %s. Those of %s are others: %s",
                file,
                list_names(classes.names),
                training.of,
                list_names(training.names),
            )
    elif training is not None:
        classes = training
        logger.info("%s names no classes: they are taken to be those of %s", file, training.of)
    else:
        classes = ModelClasses(None, file)
        logger.warning("%s names no classes: they are taken to be in the test set's order", file)
    # The training set may be on one machine only.
    return comm.all_gather(classes)[0]


def names_in(checkpoint: Mapping) -> list[str] | None:
    """The class names of a checkpoint's content; None where it has none."""
    names = checkpoint.get(KEY)
    if not isinstance(names, (list, tuple)) or not names:
        return None
    return [str(name) for name in names]


def peek(path: str) -> Mapping:
    """The content of a checkpoint file, its tensors left on disk; {} if it is no such file here."""
    if not os.path.isfile(path):
        return {}
    kwargs = {"mmap": True} if "mmap" in inspect.signature(torch.load).parameters else {}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, **kwargs)
    except Exception:  # another format: who loads it knows, or says what is wrong with it
        return {}
    return content if isinstance(content, Mapping) else {}


def last_checkpoint(folder: str) -> str:
    """The newest checkpoint of a run that can be read; "" if there is none."""
    files = [file for file in order_by_age(checkpoints_in(folder)) if file.problem is None]
    return str(files[0].path) if files else ""


def check_resumed(
    found: Sequence[str] | None, classes: ModelClasses, file: str, weights_key: str
) -> None:
    """Refuse to go on with a run of other classes.

    Args:
        found: the classes that `file` names; None passes.
        classes: of the training set.
        file: the checkpoint.
        weights_key: what starts a new run from a file.

    Raises:
        UserError: it names both lists.
    """
    if found is None or classes.names is None or list(found) == classes.names:
        return
    raise UserError(
        f"{file} is of a run with the classes {list_names(found)}, but {classes.of} has "
        f"{list_names(classes.names)}: a resumed run needs the same in the same order. A new one, "
        f"with {weights_key}={file} and another output folder, finds them by name"
    )


def initial_mapping(
    found: Sequence[str] | None,
    classes: ModelClasses,
    init_classes: Sequence[str] | bool | None,
    *,
    file: str,
    way_out: str,
) -> ClassMapping | None:
    """How the classifier of a file comes to the classes of a new run; None: as it is.

    Args:
        found: the classes that `file` names, if it does.
        classes: of the training set.
        init_classes: train.init_classes as a list, False or None.
        file: the words for it.
        way_out: what loads the file as it is, for errors.

    Raises:
        UserError: `init_classes` is not what the file says; names are spelled otherwise.
    """
    names = classes.names
    if names is None:
        return None
    if init_classes is False:
        if found is not None and list(found) != names:
            logger.warning(
                "%s=False: rows of the classifier in %s are taken as they are, though its classes "
                "are %s, and those of %s %s",
                INIT_CLASSES,
                file,
                list_names(found),
                classes.of,
                list_names(names),
            )
        return None
    if init_classes is not None:
        if found is not None and list(found) != list(init_classes):
            raise UserError(
                f"{INIT_CLASSES} has the classes {list_names(init_classes)}, but {file} says that "
                f"it was trained on {list_names(found)}: leave {INIT_CLASSES} out"
            )
        return ClassMapping(source=init_classes, target=names)
    if found is None or list(found) == names:
        return None
    try:
        check_spelling(found, names, of=file, of_others=classes.of)
    except ValueError as e:
        raise UserError(f"{e}. Or give {way_out}, which takes the rows as they are") from e
    origin = f"the class list in {file}"
    return ClassMapping(source=found, target=names, origin=origin, way_out=way_out, strict=False)


@contextlib.contextmanager
def on_every_process() -> Iterator[None]:
    """A `UserError` of one process is raised by all, lest the others wait for it.

    Raises:
        UserError: of this process, or with the words of another one's.
    """
    error = None
    try:
        yield
    except UserError as e:
        error = e
    messages = comm.all_gather(None if error is None else str(error))
    if error is not None:
        raise error
    for message in filter(None, messages):
        raise UserError(message)
