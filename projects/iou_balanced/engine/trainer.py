"""Detectron2's SimpleTrainer with mixed precision on any device, gradient accumulation, clipping,
and a finite check.
"""

import contextlib
import math
import time
from itertools import chain

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import get_event_storage

from iou_balanced.losses.checks import check_counts, is_number
from iou_balanced.modeling.normalizer import whole_batch

from .loop import ResumableLoop
from .micro_batch_storage import mean_of_parts

_AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Trainer(ResumableLoop, SimpleTrainer):
    """One optimizer step on one batch a time, or on several micro-batches.

    Detectron2's AMPTrainer needs CUDA; this one runs bfloat16 on a CPU too.

    The gradient of several micro-batches is that of one batch with all their images, and so are
    the logged losses: a dense detector divides its sums by the positives of all of them, takes
    them into its moving average once, and class weights count the objects of all of them (see
    `iou_balanced.modeling.normalizer.whole_batch`; an R-CNN's cannot count its samples so). This
    does not hold for what a model computes over the images that it gets together: statistics of a
    BatchNorm in training mode; IoU-balanced classification and Eq. 7 (arXiv 1908.05641), which keep
    the sum over the positives of a micro-batch (and so does w_loc of "auto" while it is measured;
    the value is that of the whole batch); the padding of images to a common size; an R-CNN's
    division by its sampled proposals, where an image has fewer of them than the others. Of models
    without `count_positives`, the R-CNNs among them, the losses are averaged. What a model logs is
    the mean over the micro-batches.

    Args:
        model, data_loader, optimizer: see `SimpleTrainer`.
        amp_dtype: None (float32), "float16", "bfloat16", or "auto": float16 with a gradient
            scaler on a GPU, bfloat16 on a CPU.
        clip_max_norm: largest norm of the gradient, None for no clipping.
        clip_norm_type: the p of that norm, from 1 on; inf for the largest entry.
        accumulation_steps: batches of `data_loader` for one optimizer step; equally large.

    Raises:
        ValueError: a value is none of these.
    """

    def __init__(
        self,
        model,
        data_loader,
        optimizer,
        *,
        amp_dtype: str | None = None,
        clip_max_norm: float | None = None,
        clip_norm_type: float = 2.0,
        accumulation_steps: int = 1,
    ):
        super().__init__(model, data_loader, optimizer)
        self.device_type = next(model.parameters()).device.type
        if amp_dtype == "auto":
            amp_dtype = "float16" if self.device_type == "cuda" else "bfloat16"
        if amp_dtype is not None and amp_dtype not in _AMP_DTYPES:
            raise ValueError(
                f"Expected train.amp.dtype to be 'auto' or one of {list(_AMP_DTYPES)}, "
                f"but got {amp_dtype!r}"
            )
        self.amp_dtype = _AMP_DTYPES.get(amp_dtype)
        # Only float16 underflows.
        self.grad_scaler = None
        if self.amp_dtype is torch.float16:
            if hasattr(torch.amp, "GradScaler"):
                self.grad_scaler = torch.amp.GradScaler(self.device_type)
            else:  # torch before 2.3
                self.grad_scaler = torch.cuda.amp.GradScaler()
        if clip_max_norm is not None and not (
            is_number(clip_max_norm) and 0 < clip_max_norm < math.inf
        ):
            raise ValueError(  # a negative one would turn the gradient round
                "Expected argument `clip_max_norm` to be a finite number above 0, or None, "
                f"but got {clip_max_norm!r}"
            )
        if not is_number(clip_norm_type) or not clip_norm_type >= 1:
            raise ValueError(
                "Expected argument `clip_norm_type` to be a number from 1 on, "
                f"but got {clip_norm_type!r}"
            )
        self.clip_max_norm, self.clip_norm_type = clip_max_norm, clip_norm_type
        check_counts(least=1, accumulation_steps=accumulation_steps)
        self.accumulation_steps = accumulation_steps

    def run_step(self) -> None:
        """Forward and backward of each micro-batch, finite check, clipping, step."""
        start = time.perf_counter()
        micro_batches = [next(self._data_loader_iter) for _ in range(self.accumulation_steps)]
        data_time = time.perf_counter() - start

        self.optimizer.zero_grad(set_to_none=True)
        if len(micro_batches) == 1:
            losses = [self._backward(micro_batches[0])]
        else:
            losses = self._accumulate(micro_batches)
        if hasattr(self, "after_backward"):  # hooks of Detectron2's main branch
            self.after_backward()
        # One transfer for all losses, after the backward pass is under way on a GPU.
        values = torch.cat([x for _, x in losses]).cpu().split([len(x) for _, x in losses])
        totals = {}
        for data, (names, _), part in zip(micro_batches, losses, values, strict=True):
            part = dict(zip(names, part, strict=True))
            self._check_finite(part, data)
            for name, value in part.items():
                totals[name] = totals.get(name, 0) + value
        self._write_metrics(totals, data_time)
        self._clip(list(chain(*micro_batches)))
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def _accumulate(self, micro_batches: list[list[dict]]) -> list[tuple[list[str], torch.Tensor]]:
        """Add up the gradients; the processes exchange them once, in the last micro-batch."""
        losses = []
        with mean_of_parts(), whole_batch(self.model, micro_batches) as weight:
            for i, data in enumerate(micro_batches, start=1):
                early = hasattr(self.model, "no_sync") and i < len(micro_batches)
                with self.model.no_sync() if early else contextlib.nullcontext():
                    losses.append(self._backward(data, weight))
        return losses

    def _backward(self, data: list[dict], weight: float = 1.0) -> tuple[list[str], torch.Tensor]:
        """Add to the gradients; returns the losses' names and values times `weight`."""
        with torch.autocast(
            self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        ):
            loss_dict = self.model(data)
        losses = torch.stack([loss.float() for loss in loss_dict.values()]) * weight
        total = losses.sum()
        if self.grad_scaler is not None:
            total = self.grad_scaler.scale(total)
        total.backward()
        return list(loss_dict), losses.detach()

    def _check_finite(self, values: dict, data: list[dict]) -> None:
        """Stop before the step, so that the weights are still those of the last good one.

        Raises:
            FloatingPointError: a loss or the gradient is not finite; names the images.
        """
        bad = [f"{name} is {float(v)}" for name, v in values.items() if not math.isfinite(v)]
        if bad:
            images = [str(x.get("file_name", x.get("image_id", "?"))) for x in data]
            raise FloatingPointError(
                f"Iteration {self.iter}: {' and '.join(bad)}. Images of this process: "
                f"{', '.join(images)}. This iteration did not update the weights. Look at the "
                "boxes of these images, lower optimizer.lr, or set train.clip_grad.max_norm."
            )

    def _clip(self, data: list[dict]) -> None:
        if self.clip_max_norm is None:
            return
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, self.clip_max_norm, norm_type=self.clip_norm_type
        )
        norm = norm.cpu()
        if self.grad_scaler is None:  # a scaler skips such a step, and lowers its scale
            self._check_finite({"the norm of the gradient": norm}, data)
        get_event_storage().put_scalar("grad_norm", norm.item())

    def state_dict(self) -> dict:
        ret = super().state_dict()
        if self.grad_scaler is not None:
            ret["grad_scaler"] = self.grad_scaler.state_dict()
        return ret

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        # A checkpoint of a run without AMP has no scale to go on with.
        if self.grad_scaler is not None and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
