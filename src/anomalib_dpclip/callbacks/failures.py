"""What ends a run with a reason: a loss that is no number any more, and a target that is not there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class RequireFiniteLoss(Callback):
    """Ends a training in a FloatingPointError at a loss that is not finite, before a checkpoint is written.

    On an accelerator losses are looked at every `log_every_n_steps` only: reading a value makes the CPU wait.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, list[str], Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Mapping[str, Any], batch: ImageBatch, batch_idx: int
    ) -> None:
        """Keep the loss of a step."""
        self._steps.append((batch_idx, list(batch.image_path or ()), outputs["loss"].detach()))
        if pl_module.device.type == "cpu" or len(self._steps) >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self.on_train_epoch_end()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Look at the losses that nobody has looked at yet."""
        steps, self._steps = self._steps, []
        if not steps or torch.stack([step[2] for step in steps]).isfinite().all():
            return
        batch_idx, paths, _loss = next(step for step in steps if not step[2].isfinite())
        raise FloatingPointError(
            f"the loss of batch {batch_idx} is not finite; its images are {', '.join(paths)}. Training stops before a "
            f"checkpoint is written: check these images and masks, lower learning_rate, and use bf16-mixed where the "
            f"precision is 16-true"
        )

    on_save_checkpoint = on_train_epoch_end  # type: ignore[assignment]


class MissingTarget(Callback):
    """Turns the bare network error of a data module's download into one that names the data and the remedy."""

    def on_exception(self, trainer: Trainer, _: LightningModule, exception: BaseException) -> None:
        """A FileNotFoundError in place of the network error; the model's own downloads end in errors of their own."""
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(exception, URLError) and datamodule is not None:
            name, root = type(datamodule).__name__, Path(getattr(datamodule, "root", ".")).resolve()
            raise FileNotFoundError(
                f"the data set {name} is not in {root} and could not be downloaded ({exception.reason}). Point to it with "
                f"--data.root, or fetch it elsewhere; to try without any download: --data Surfaces"
            ) from exception
