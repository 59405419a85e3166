"""Training images that cannot be read: the end of the run, or another image in their place."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator

from detectron2.data import DatasetFromList
from detectron2.utils.events import get_event_storage

from iou_balanced.data.image_reading import SKIPPED, NamedErrors, install_reader

logger = logging.getLogger(__name__)


def training_mapper(mapper: Callable, dataset, on_bad_image: str) -> Callable:
    """A training's mapper, whose errors name the image; with "skip" another image is taken.

    Args:
        mapper: from a dict of the data set to the model's input.
        dataset: list of dicts. With another kind of data set, or none, an error stays an error,
            because there is nothing to take instead.
        on_bad_image: "error" or "skip".
    """
    install_reader()
    if not callable(mapper):
        return mapper
    if isinstance(mapper, NamedErrors):
        mapper = mapper.mapper
    replacements = None
    if on_bad_image == "skip" and isinstance(dataset, list) and dataset:
        # In one block of memory, which processes share: lists of dicts would be copied to each.
        replacements = DatasetFromList(dataset, copy=False)
    return NamedErrors(mapper, replacements)


class SkipCounter:
    """A loader that says which images were skipped, and how many by now.

    Each is told once, with its reason; the number of different ones goes to metrics.json as
    "skipped_images", of the main process there. All other attributes are the loader's.

    Args:
        loader: gives lists of dicts, as Detectron2's do.
        key: what sets the skipping, for the message.
    """

    def __init__(self, loader: Iterable[list[dict]], key: str):
        self.loader, self.key = loader, key
        self.skipped: set[str] = set()

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in self.loader:
            for data in batch:
                for file_name, reason in data.pop(SKIPPED, ()):
                    self._count(file_name, reason)
            if self.skipped:
                with contextlib.suppress(AssertionError):  # not in a training
                    storage = get_event_storage()
                    storage.put_scalar(SKIPPED, len(self.skipped), smoothing_hint=False)
            yield batch

    def _count(self, file_name: str, reason: str) -> None:
        if file_name in self.skipped:
            return
        self.skipped.add(file_name)
        logger.warning(
            "%s: another image takes its place, now and later (%s=skip); %d so far",
            *(reason, self.key, len(self.skipped)),
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str):
        return getattr(self.__dict__["loader"], name)
