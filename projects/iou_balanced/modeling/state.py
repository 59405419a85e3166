"""State of the losses that a resumed run needs, as seen from a detector in training."""

import logging

from detectron2.utils.events import EventStorage
from torch import nn

from iou_balanced.losses import ClassBalance

logger = logging.getLogger(__name__)


def warn_if_state_was_lost(model: nn.Module, storage: EventStorage) -> None:
    """Say so where training goes on in mid-run and the losses' state did not come back.

    Call it before the first batch counts. Detectron2's own loops know nothing of this state; a
    trainer with `iou_balanced.engine.ResumeStateHook` keeps it.
    """
    states = {
        name: state
        for name, module in model.named_modules()
        if hasattr(module, "resume_state_dict")
        and not isinstance(module, ClassBalance)  # the data says the counts again
        and (state := module.resume_state_dict())
    }
    fresh = all(value is None for state in states.values() for value in state.values())
    if storage.iter > 0 and states and fresh:
        logger.warning(
            "Training goes on at iteration %d without the state of %s: moving averages and a w_loc "
            "of 'auto' start afresh. Register iou_balanced.engine.ResumeStateHook(model) with the "
            "trainer before resume_or_load, or use tools/train_net.py.",
            storage.iter,
            ", ".join(states),
        )
