"""How long a run will take, once its first steps have shown it."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

WARM_UP = 2
"""Steps that are not counted: the first ones also read files and allocate memory."""

COUNTED = 5
"""Steps, after those, that the time is told from."""

WORTH_SAYING = 120
"""Seconds; whoever waits less needs no forecast."""


class ExpectedTime(Callback):
    """Prints how long a training, test or prediction will take if that is long; validation is not counted."""

    def __init__(self) -> None:
        self._steps, self._start = 0, 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start counting anew."""
        del trainer, pl_module, stage
        self._steps = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Count a step of a training."""
        del pl_module
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        left = (epochs - trainer.current_epoch) * batches if epochs is not None and epochs > 0 else math.inf
        # A step of the optimiser may take several batches.
        by_steps = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        self._count(min(left, by_steps if trainer.max_steps >= 0 else math.inf))

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Count a batch of a test."""
        del pl_module
        self._count(sum(trainer.num_test_batches))

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Count a batch of a prediction."""
        del pl_module
        self._count(sum(trainer.num_predict_batches))

    @rank_zero_only
    def _count(self, total: float) -> None:
        self._steps += 1
        if self._steps == WARM_UP:
            self._start = time.monotonic()
        if self._steps == WARM_UP + COUNTED:
            seconds = (time.monotonic() - self._start) / COUNTED * total
            if WORTH_SAYING < seconds < math.inf:
                print(f"This will take about {in_words(seconds)}: {total:.0f} steps of {seconds / total:.2g} s.", flush=True)  # noqa: T201


def in_words(seconds: float) -> str:
    """A time as it is said.

    Example:
        >>> in_words(300), in_words(7200)
        ('5 minutes', '2.0 hours')
    """
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
