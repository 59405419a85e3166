"""Detectron2's `train`, and what tools/train_net.py knows beyond it."""

from detectron2 import model_zoo
from omegaconf import OmegaConf

train = OmegaConf.merge(
    model_zoo.get_config("common/train.py").train,
    dict(
        # The total batch size that optimizer.lr and train.max_iter are for. Another
        # dataloader.train.total_batch_size scales both; None switches that off.
        reference_batch_size=16,
        # Micro-batches that the total batch comes in, where it is too large for the GPU. An
        # iteration is one optimizer step on all of it, and everything else stays as it is.
        accumulation_steps=1,
        amp=dict(enabled=False, dtype="auto"),
        clip_grad=dict(max_norm=None, norm_type=2.0),
        best_checkpoint=dict(metric="bbox/AP", mode="max"),
        seed=-1,
        cudnn_benchmark=False,
        # Memory format of the weights: faster for depthwise convolutions, and on a GPU under AMP.
        channels_last=False,
        progress_bar=True,
        # A page with curves and numbers of the last evaluation, output_dir/report.html.
        report=True,
    ),
)
