"""Stops a training whose loss is not a number any more, and says at which images."""

import torch
from torch import Tensor


class LossWatch:
    """Remembers losses, and looks at them now and then: reading a value makes the host wait for an accelerator.

    Args:
        interval: Batches between two looks.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self._recent: list[tuple[int, list[str], Tensor]] = []

    def add(self, loss: Tensor, batch_idx: int, paths: list[str]) -> None:
        """Remember a batch's loss.

        Args:
            loss: Scalar loss.
            batch_idx: Number of the batch.
            paths: Its images.

        Raises:
            FloatingPointError: As `check`.
        """
        self._recent.append((batch_idx, paths, loss.detach()))
        if len(self._recent) >= self.interval:
            self.check()

    def check(self) -> None:
        """Look at the losses since the last look.

        Raises:
            FloatingPointError: If one is not finite; names its images. No checkpoint has been written since.
        """
        recent, self._recent = self._recent, []
        if not recent or torch.stack([loss for _, _, loss in recent]).isfinite().all():
            return
        batch_idx, paths = next((index, paths) for index, paths, loss in recent if not loss.isfinite())
        raise FloatingPointError(
            f"the loss of batch {batch_idx} is not finite; its images are {', '.join(paths)}. Training stops before a "
            f"checkpoint is written: check these images and masks, lower learning_rate, and use bf16-mixed "
            f"where the precision is 16-true"
        )
