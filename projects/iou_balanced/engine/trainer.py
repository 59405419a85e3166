"""Detectron2's SimpleTrainer with mixed precision on any device, clipping, and a finite check."""

import math
import time
from collections.abc import Callable

import torch
from detectron2.engine import DefaultTrainer, SimpleTrainer
from detectron2.utils.events import get_event_storage

from .hooks import ResumeStateHook

_AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class LazyLoader:
    """An iterable that is built when it is first iterated over.

    Detectron2 v0.6 opens the loader when the trainer is made, but where to start in the data is
    known only after the checkpoint was read, which needs the trainer.
    """

    def __init__(self, build: Callable):
        self._build = build

    def __iter__(self):
        yield from self._build()


class Trainer(SimpleTrainer):
    """One optimizer step on one batch a time.

    Detectron2's AMPTrainer needs CUDA; this one runs bfloat16 on a CPU too.

    Args:
        model, data_loader, optimizer: see `SimpleTrainer`.
        amp_dtype: None (float32), "float16", "bfloat16", or "auto": float16 with a gradient
            scaler on a GPU, bfloat16 on a CPU.
        clip_max_norm: largest norm of the gradient, None for no clipping.
        clip_norm_type: the p of that norm.

    Raises:
        ValueError: `amp_dtype` is none of these.
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
        self.clip_max_norm, self.clip_norm_type = clip_max_norm, clip_norm_type

    def run_step(self) -> None:
        """Forward, backward, finite check, clipping, step."""
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        with torch.autocast(
            self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        ):
            loss_dict = self.model(data)
        losses = torch.stack([loss.float() for loss in loss_dict.values()])

        self.optimizer.zero_grad(set_to_none=True)
        total = losses.sum()
        if self.grad_scaler is not None:
            total = self.grad_scaler.scale(total)
        total.backward()
        if hasattr(self, "after_backward"):  # hooks of Detectron2's main branch
            self.after_backward()
        # One transfer for all losses, after the backward pass is under way on a GPU.
        values = dict(zip(loss_dict, losses.detach().cpu(), strict=True))
        self._check_finite(values, data)
        self._write_metrics(values, data_time)
        self._clip(data)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def _check_finite(self, values: dict, data: list[dict]) -> None:
        """Stop before the step, so that the weights are still those of the last good one."""
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


class BalancedDefaultTrainer(DefaultTrainer):
    """Detectron2's trainer for yaml configs, whose checkpoints keep the losses' state too."""

    def build_hooks(self) -> list:
        return [ResumeStateHook(self.model), *super().build_hooks()]
