"""Logging from the micro-batches of one optimizer step."""

import contextlib
from collections.abc import Iterator

from detectron2.utils.events import EventStorage, get_event_storage


class _PartStorage(EventStorage):
    """Takes the scalars of all parts; images and histograms go to the whole's storage at once."""

    def __init__(self, whole: EventStorage):
        super().__init__(whole.iter)
        self._whole = whole

    def put_image(self, img_name, img_tensor):
        self._whole.put_image(img_name, img_tensor)

    def put_histogram(self, *args, **kwargs):
        self._whole.put_histogram(*args, **kwargs)


@contextlib.contextmanager
def mean_of_parts() -> Iterator[None]:
    """What a model logs several times within, the current event storage gets once, as the mean.

    Without this the last micro-batch's value would stand for the whole batch in the log. What was
    logged in earlier iterations is not to be seen within.
    """
    whole = get_event_storage()
    with _PartStorage(whole) as parts:
        yield
    hints = parts.smoothing_hints()
    for name, history in parts.histories().items():
        whole.put_scalar(name, history.global_avg(), smoothing_hint=hints[name])
