"""State of the losses that a resumed run needs, as seen from a detector in training."""

import logging

from detectron2.utils import events
from detectron2.utils.events import EventStorage
from torch import nn

from iou_balanced.losses import ClassBalance

logger = logging.getLogger(__name__)


def event_storage() -> EventStorage | None:
    """Detectron2's current event storage; None outside of one, where nothing is logged."""
    if hasattr(events, "has_event_storage"):  # the main branch
        return events.get_event_storage() if events.has_event_storage() else None
    return events._CURRENT_STORAGE_STACK[-1] if events._CURRENT_STORAGE_STACK else None


def put_scalar(name: str, value: float, **kwargs) -> None:
    """`EventStorage.put_scalar`, where there is a storage."""
    storage = event_storage()
    if storage is not None:
        storage.put_scalar(name, value, **kwargs)


def record_w_loc(box_loss: nn.Module, name: str = "w_loc") -> None:
    """Log the w_loc in force, in the storage's scope, which tells the stages of a cascade apart."""
    w_loc = getattr(box_loss, "w_loc", None)
    if w_loc is not None:
        put_scalar(name, w_loc, smoothing_hint=False)


def warn_if_state_was_lost(model: nn.Module) -> None:
    """Warn where a training goes on from a checkpoint, but without the losses' state.

    Call it before the first batch; the iteration is known in an event storage only. Detectron2's
    own trainers do not keep this state; one with `iou_balanced.engine.ResumeStateHook` does.
    """
    storage = event_storage()
    states = {
        name: state
        for name, module in model.named_modules()
        if hasattr(module, "resume_state_dict")
        and not isinstance(module, ClassBalance)  # its counts come from the data anew
        and (state := module.resume_state_dict())
    }
    fresh = all(value is None for state in states.values() for value in state.values())
    if storage is not None and storage.iter > 0 and states and fresh:
        logger.warning(
            "Training goes on at iteration %d without the state of %s: moving averages, a w_loc of "
            "'auto' and statistics of the classes start afresh. Register "
            "iou_balanced.engine.ResumeStateHook(model) with the trainer before resume_or_load, "
            "or use tools/train_net.py.",
            storage.iter,
            ", ".join(states),
        )
