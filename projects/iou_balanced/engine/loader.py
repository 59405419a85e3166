"""The training data loader, which a resumed run enters where the interrupted one stopped."""

import contextlib
from collections.abc import Callable

from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import IterableDataset

from iou_balanced.data import ClassCounts
from iou_balanced.data.image_reading import NamedErrors, install_reader
from iou_balanced.data.stream import build_stream_loader, temporary_seed

from .bad_images import SkipCounter, training_mapper
from .class_balance import ignores_difficult
from .errors import UserError
from .repeat_sampling import KEY as REPEAT_KEY
from .repeat_sampling import repeat_columns, repeat_sampler
from .targets import accepts, locate_target


class ContinuingLoader:
    """The training's loader, which is built when the first batch is asked for.

    By then the checkpoint was read, which says where to start; Detectron2 v0.6 asks for the loader
    before, when the trainer is made.

    Args:
        build: called with the batches to leave out and the seed; returns an iterable.
        seed: of the stream.
        errors: a context for the reading of images.

    Attributes:
        start: batches to leave out.
    """

    def __init__(self, build: Callable, seed: int | None = None, *, errors: Callable | None = None):
        self.build, self.seed, self.start = build, seed, 0
        self._errors = errors or contextlib.nullcontext

    def __iter__(self):
        with self._errors():
            yield from self.build(self.start, self.seed)


def read_train_dataset(cfg: DictConfig):
    """What `dataset` of dataloader.train gives, most often a list of dicts; None without one.

    Raises:
        UserError: no image has a box to train on.
    """
    node = cfg.dataloader.train
    if "dataset" not in node:
        return None
    with empty_data_as_user_error():
        return instantiate(node.dataset)


@contextlib.contextmanager
def empty_data_as_user_error():
    """Say what Detectron2's assertions mean when they end the reading of a data set.

    Raises:
        UserError: in the place of such an assertion.
    """  # noqa: DOC501
    try:
        yield
    except AssertionError as e:
        text = str(e)
        if "No valid data found" not in text and "is empty" not in text:
            raise
        raise UserError(
            f"{text.rstrip('!.')}: no image of the training set has a box to train on. Crowd "
            "regions do not count, and neither do boxes that the summary above says are dropped. "
            "Is it the right split, and does class_names have its classes? python -m "
            "iou_balanced.data.check tells what is in a data set"
        ) from e


def build_train_loader(
    cfg: DictConfig, start_iter: int = 0, dataset=None, *, seed: int | None = None
):
    """Instantiate dataloader.train so that it goes on at iteration `start_iter`.

    In the place of Detectron2's `build_detection_train_loader` it is `build_stream_loader`: the
    images and their random augmentations are those of an uninterrupted run. A loader of one's own,
    or an iterable data set, is built as it is, and starts at its beginning.

    An iteration draws its total_batch_size images in train.accumulation_steps micro-batches.

    Args:
        cfg: a LazyConfig.
        start_iter: iterations that were done before.
        dataset: what `read_train_dataset` gave, which saves reading it again.
        seed: of the stream; by default train.seed, or 0 where it is negative.

    Raises:
        UserError: train.repeat_threshold does not go with the rest of the loader.
    """
    node = cfg.dataloader.train
    if seed is None:
        seed = max(cfg.train.seed, 0)
    # As `instantiate` does, but the list of images must not become an omegaconf object.
    target = locate_target(node._target_)
    known = {"_target_"} if dataset is None else {"_target_", "dataset"}
    with temporary_seed(seed):  # a sampler without a seed draws one
        kwargs = {name: instantiate(value) for name, value in node.items() if name not in known}
    if dataset is not None:
        kwargs["dataset"] = dataset
    goes_on_anywhere = target is build_detection_train_loader and goes_on(kwargs.get("dataset"))
    threshold = cfg.train.repeat_threshold
    if threshold is not None:
        if not accepts(target, "sampler") or kwargs.get("sampler") is not None:
            raise UserError(
                f"{REPEAT_KEY}={threshold} is a sampler, but dataloader.train has one of its own, "
                "or takes none: give one of them"
            )
        kwargs["sampler"] = repeat_sampler(
            kwargs.get("dataset"),
            threshold,
            seed=seed,
            start=0 if goes_on_anywhere else start_iter * kwargs["total_batch_size"],
            ignore_difficult=ignores_difficult(cfg),
        )
    skips = cfg.train.on_bad_image == "skip"
    if "mapper" in kwargs:
        kwargs["mapper"] = training_mapper(
            kwargs["mapper"], kwargs.get("dataset"), cfg.train.on_bad_image
        )
    steps = cfg.train.accumulation_steps
    if goes_on_anywhere:
        loader = build_stream_loader(**kwargs, seed=seed, start=start_iter, parts=steps)
    else:
        if steps > 1:
            kwargs["total_batch_size"] //= steps
        loader = target(**kwargs)
    return SkipCounter(loader, "train.on_bad_image") if skips else loader


def sampling_columns(
    cfg: DictConfig, dataset, counts: ClassCounts | None
) -> dict[str, list[float]] | None:
    """`repeat_columns` of train.repeat_threshold; None without one, or without counts.

    Args:
        cfg: a LazyConfig.
        dataset: see `build_train_loader`.
        counts: of the data set.
    """
    threshold = cfg.train.repeat_threshold
    if threshold is None or counts is None:
        return None
    return repeat_columns(dataset, threshold, counts, ignore_difficult=ignores_difficult(cfg))


def goes_on(dataset) -> bool:
    """Whether a stream of its images can be entered anywhere: a list, or a map-style data set."""
    return hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)


def build_test_loader(cfg: DictConfig):
    """Instantiate dataloader.test; errors of its mapper name the image.

    An evaluation never skips an image: its metrics would be those of other images.
    """
    node = cfg.dataloader.test
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return instantiate(node)
    kwargs = {name: instantiate(value) for name, value in node.items() if name != "_target_"}
    install_reader()
    if callable(kwargs.get("mapper")) and not isinstance(kwargs["mapper"], NamedErrors):
        kwargs["mapper"] = NamedErrors(kwargs["mapper"])
    return locate_target(node._target_)(**kwargs)


def prepare_masks(cfg: DictConfig) -> None:
    """Have masks read where the training's mapper wants them: `masks=True` of the data sets.

    Where the function that registers a data set has no such argument, or it is set, nothing
    changes. The test set gets it too, because it may be the same one.
    """
    if not OmegaConf.select(cfg.dataloader, "train.mapper.use_instance_mask"):
        return
    for part in ("train", "test"):
        names = OmegaConf.select(cfg.dataloader, f"{part}.dataset.names")
        for node in names if OmegaConf.is_list(names) else [names]:
            is_call = isinstance(node, DictConfig) and "_target_" in node
            if is_call and "masks" not in node and accepts(node._target_, "masks"):
                node.masks = True
