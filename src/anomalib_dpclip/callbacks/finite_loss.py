"""Stops a training whose loss is not a number any more, and says at which images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class StepLoss(NamedTuple):
    """The loss of a training step, a scalar, and what it is of."""

    batch_idx: int
    image_paths: list[str]
    loss: Tensor


def require_finite_losses(losses: Sequence[StepLoss]) -> None:
    """Look at losses of one or more steps.

    Raises:
        FloatingPointError: If one is not finite; names its images. No checkpoint has been written since.
    """
    if torch.stack([each.loss for each in losses]).isfinite().all():
        return
    first = next(each for each in losses if not each.loss.isfinite())
    raise FloatingPointError(
        f"the loss of batch {first.batch_idx} is not finite; its images are {', '.join(first.image_paths)}. Training stops "
        f"before a checkpoint is written: check these images and masks, lower learning_rate, and use bf16-mixed where the "
        f"precision is 16-true"
    )
