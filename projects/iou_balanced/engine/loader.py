"""The training data loader, which a resumed run enters where the interrupted one stopped."""

import itertools

from detectron2.config import instantiate
from detectron2.data.samplers import TrainingSampler
from detectron2.utils.comm import get_rank
from detectron2.utils.env import seed_all_rng
from omegaconf import DictConfig

from .config import accepts, locate_target


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
    """What `dataset` of dataloader.train gives, most often a list of dicts; None without one."""
    node = cfg.dataloader.train
    return instantiate(node.dataset) if "dataset" in node else None


def build_train_loader(cfg: DictConfig, start_iter: int = 0, dataset=None):
    """Instantiate dataloader.train so that it goes on at iteration `start_iter`.

    With train.seed set, the order of the images is that of an uninterrupted run (with several
    workers, or grouping by aspect ratio, up to the few images that were loaded ahead); without a
    seed there is no order to go on with. A loader of one's own, or with a sampler of its own, is
    built as it is.

    Its batches have total_batch_size / train.accumulation_steps images: an iteration draws
    train.accumulation_steps of them.

    Args:
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
    return target(**kwargs)
