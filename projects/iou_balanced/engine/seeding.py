"""What a model draws in an iteration is a function of the seed and the iteration."""

import logging

from detectron2.engine import HookBase
from detectron2.utils import comm

from iou_balanced.data.stream import seed_generators

__all__ = ["SeedHook"]

logger = logging.getLogger(__name__)

_STEP = 3  # other numbers are for the data, see data/stream.py


class SeedHook(HookBase):
    """Seeds the random generators at the beginning of each iteration, on each process otherwise.

    So dropout and the sampling of proposals are after a resume what they would have been, without
    a state of the generators in the checkpoint. A seed that is drawn is kept there.

    Args:
        seed: from 0 on; a negative one, or None, draws one that all processes share.
        key: of the seed in the config, for messages.
    """

    def __init__(self, seed: int | None, *, key: str = "train.seed"):
        self._given = seed is not None and seed >= 0
        self.seed = int(seed) if self._given else comm.shared_random_seed()
        self._key = key

    def before_step(self) -> None:
        seed_generators(self.seed, _STEP, self.trainer.iter, comm.get_rank(), devices=True)

    def state_dict(self) -> dict:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on with the seed of the interrupted run, unless the config has one.

        Args:
            state_dict: of the run.
        """
        if not self._given:
            self.seed = state_dict["seed"]
        elif self.seed != state_dict["seed"]:
            logger.warning(
                "%s=%d, but the run began with %d: it goes on with another order of the images",
                self._key,
                self.seed,
                state_dict["seed"],
            )
