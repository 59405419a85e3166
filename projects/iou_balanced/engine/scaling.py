"""The linear scaling rule (Goyal et al., arXiv 1706.02677), which the paper follows."""

import logging
from collections.abc import Collection

from omegaconf import DictConfig, OmegaConf

logger = logging.getLogger(__name__)

_SCALED = ("optimizer.lr", "train.max_iter", "train.eval_period", "train.checkpointer.period")


def scale_to_batch_size(cfg: DictConfig, keep: Collection[str] = ()) -> float:
    """Fit learning rate and length to the total batch size, in place.

    With s = dataloader.train.total_batch_size / train.reference_batch_size, optimizer.lr is
    multiplied by s, and train.max_iter, train.eval_period and train.checkpointer.period are
    divided by it, so that as many images are seen. Schedules are relative to max_iter.
    train.reference_batch_size is then the new size, so that the saved config means itself.

    Args:
        cfg: a LazyConfig.
        keep: keys that the user has set for this run by hand, for example "optimizer.lr"; they
            stay as they are.

    Returns:
        s; 1.0 where there is nothing to do, or where train.reference_batch_size is None.
    """
    reference = cfg.train.get("reference_batch_size")
    total = cfg.dataloader.train.get("total_batch_size")
    if not reference or not total or reference == total:
        return 1.0
    scale = total / reference
    changes = []
    for key in _SCALED:
        old = OmegaConf.select(cfg, key)
        if not old or old < 0:  # eval_period=0 is no period
            continue
        if key in keep:
            changes.append(f"{key} stays {old:g} as given")
            continue
        new = old * scale if key == "optimizer.lr" else max(round(old / scale), 1)
        OmegaConf.update(cfg, key, new)
        changes.append(f"{key} {old:g} -> {new:g}")
    cfg.train.reference_batch_size = total
    logger.warning(
        "Linear scaling rule: this config was written for a batch of %d, and the batch is %d. %s. "
        "train.reference_batch_size=null switches this off.",
        reference,
        total,
        ", ".join(changes),
    )
    return scale
