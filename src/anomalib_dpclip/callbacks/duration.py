"""How long a run takes: said once its first steps have shown it, and no longer than it must."""

import math
import os
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from anomalib_dpclip.clip.pretraining import MINI

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

    def setup(self, *_: Any, **__: Any) -> None:
        """Start counting anew."""
        self._steps = 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count a step of a training."""
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        left = (epochs - trainer.current_epoch) * batches if epochs is not None and epochs > 0 else math.inf
        # A step of the optimiser may take several batches.
        by_steps = (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        self._count(min(left, by_steps if trainer.max_steps >= 0 else math.inf))

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count a batch of a test."""
        self._count(sum(trainer.num_test_batches))

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count a batch of a prediction."""
        self._count(sum(trainer.num_predict_batches))

    @rank_zero_only
    def _count(self, total: float) -> None:
        self._steps += 1
        if self._steps == WARM_UP:
            self._start = time.monotonic()
        if self._steps == WARM_UP + COUNTED:
            seconds = (time.monotonic() - self._start) / COUNTED * total
            if WORTH_SAYING < seconds < math.inf:
                words = f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
                print(f"This will take about {words}: {total:.0f} steps of {seconds / total:.2g} s.", flush=True)  # noqa: T201


class ChooseThreads(Callback):
    """Computes the mini backbone in one thread on a CPU, and gives the threads back; ``OMP_NUM_THREADS`` has the last word.

    On two processors one thread is as fast as two, and beside another job forty times as fast: threads that share an image of
    so few tokens wait for each other more than they compute.
    """

    def __init__(self) -> None:
        self._before: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Compute in one thread."""
        is_small = pl_module.hparams.get("backbone") == MINI
        if is_small and trainer.strategy.root_device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            self._before = torch.get_num_threads()
            torch.set_num_threads(1)

    def teardown(self, *_: Any, **__: Any) -> None:
        """Compute as before."""
        if self._before is not None:
            torch.set_num_threads(self._before)
            self._before = None

    on_exception = teardown
