"""The linear scaling rule (Goyal et al., arXiv 1706.02677), which the paper follows."""

import logging

from omegaconf import DictConfig

logger = logging.getLogger(__name__)


def scale_to_batch_size(cfg: DictConfig) -> float:
    """Fit learning rate and length to the total batch size, in place.

    With s = dataloader.train.total_batch_size / train.reference_batch_size, optimizer.lr is
    multiplied by s, and train.max_iter, train.eval_period and train.checkpointer.period are
    divided by it, so that as many images are seen. Schedules are relative to max_iter.
    train.reference_batch_size is then the new size, so that the saved config means itself.

    Returns:
        s; 1.0 where there is nothing to do, or where train.reference_batch_size is None.
    """
    reference = cfg.train.get("reference_batch_size")
    total = cfg.dataloader.train.get("total_batch_size")
    if not reference or not total or reference == total:
        return 1.0
    scale = total / reference
    before = (cfg.optimizer.lr, cfg.train.max_iter)
    cfg.optimizer.lr *= scale
    cfg.train.max_iter = max(round(cfg.train.max_iter / scale), 1)
    if cfg.train.eval_period > 0:
        cfg.train.eval_period = max(round(cfg.train.eval_period / scale), 1)
    cfg.train.checkpointer.period = max(round(cfg.train.checkpointer.period / scale), 1)
    cfg.train.reference_batch_size = total
    logger.warning(
        "Linear scaling rule: this config was written for a batch of %d, and the batch is %d. "
        "optimizer.lr %g -> %g, train.max_iter %d -> %d (and the periods of evaluation and "
        "checkpoints). train.reference_batch_size=null switches this off.",
        reference,
        total,
        before[0],
        cfg.optimizer.lr,
        before[1],
        cfg.train.max_iter,
    )
    return scale
