"""The training data loader, which a resumed run enters where the interrupted one stopped."""

import contextlib
import itertools

from detectron2.config import instantiate
from detectron2.data.samplers import TrainingSampler
from detectron2.utils.comm import get_rank
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig, OmegaConf

from iou_balanced.data.image_reading import NamedErrors, install_reader

from .bad_images import SkipCounter, training_mapper
from .config import accepts, locate_target
from .errors import UserError


class ContinuingSampler(TrainingSampler):
    """Detectron2's endless shuffled stream of indices, from its `start`-th element on.

    Args:
        size: images of the data set.
        seed: of the shuffle, the same in all processes; None draws one.
        start: elements to leave out, counted over all processes.
    """

    def __init__(self, size: int, *, seed: int | None = None, start: int = 0):
        super().__init__(size, seed=seed)
        self._start = start

    def _infinite_indices(self):
        yield from itertools.islice(super()._infinite_indices(), self._start, None)


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


def build_train_loader(cfg: DictConfig, start_iter: int = 0, dataset=None):
    """Instantiate dataloader.train so that it goes on at iteration `start_iter`.

    With train.seed set, the order of the images is that of an uninterrupted run (with several
    workers, or grouping by aspect ratio, up to the few images that were loaded ahead); without a
    seed there is no order to go on with. A loader of one's own, or with a sampler of its own, is
    built as it is.

    Its batches have total_batch_size / train.accumulation_steps images: an iteration draws
    train.accumulation_steps of them.

    Args:
        cfg: a LazyConfig.
        start_iter: iterations that were done before.
        dataset: what `read_train_dataset` gave, which saves reading it again.
    """
    node, seed = cfg.dataloader.train, cfg.train.seed
    if seed >= 0 and start_iter:
        # Else a resumed run would repeat the random augmentations of the beginning.
        seed_all_rng(seed + get_rank() + start_iter)
    # As `instantiate` does, but the list of images must not become an omegaconf object.
    target = locate_target(node._target_)
    known = {"_target_"} if dataset is None else {"_target_", "dataset"}
    kwargs = {name: instantiate(value) for name, value in node.items() if name not in known}
    if dataset is not None:
        kwargs["dataset"] = dataset
    if (
        accepts(target, "sampler")
        and kwargs.get("sampler") is None
        and isinstance(kwargs.get("dataset"), list)
    ):
        kwargs["sampler"] = ContinuingSampler(
            len(kwargs["dataset"]),
            seed=seed if seed >= 0 else None,
            start=start_iter * kwargs["total_batch_size"],
        )
    if cfg.train.accumulation_steps > 1:
        kwargs["total_batch_size"] //= cfg.train.accumulation_steps
    skips = cfg.train.on_bad_image == "skip"
    if "mapper" in kwargs:
        kwargs["mapper"] = training_mapper(
            kwargs["mapper"], kwargs.get("dataset"), cfg.train.on_bad_image
        )
    loader = target(**kwargs)
    return SkipCounter(loader, "train.on_bad_image") if skips else loader


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
