"""Stops a training whose loss is not a number any more, and says at which images."""

from collections.abc import Mapping
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class RequireFiniteLoss(Callback):
    """Looks at the loss of every step, on an accelerator every `log_every_n_steps` only, and before a checkpoint is written.

    Reading a value makes the CPU wait for an accelerator; without one it costs nothing.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, list[str], Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any], batch: ImageBatch, batch_idx: int
    ) -> None:
        """Keep the loss of a step.

        Raises:
            FloatingPointError: If a loss is not finite; names its images.
        """
        self._steps.append((batch_idx, list(batch.image_path or ()), outputs["loss"].detach()))
        if pl_module.device.type == "cpu" or len(self._steps) >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self._check()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the losses that are left.

        Raises:
            FloatingPointError: If one is not finite; names its images.
        """
        del trainer, pl_module
        self._check()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the losses that are left before anything is written.

        Raises:
            FloatingPointError: If one is not finite; names its images.
        """
        del trainer, pl_module, checkpoint
        self._check()

    def _check(self) -> None:
        steps, self._steps = self._steps, []
        if not steps or torch.stack([loss for _, _, loss in steps]).isfinite().all():
            return
        batch_idx, paths, _ = next(step for step in steps if not step[2].isfinite())
        raise FloatingPointError(
            f"the loss of batch {batch_idx} is not finite; its images are {', '.join(paths)}. Training stops before a "
            f"checkpoint is written: check these images and masks, lower learning_rate, and use bf16-mixed where the "
            f"precision is 16-true"
        )
