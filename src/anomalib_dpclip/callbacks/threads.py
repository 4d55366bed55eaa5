"""How many threads compute: one where the model is so small that threads cost more than they save."""

import os

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_dpclip.clip.pretraining import MINI


class ChooseThreads(Callback):
    """Computes the mini backbone in one thread on a CPU, and gives the threads back; ``OMP_NUM_THREADS`` has the last word.

    On two processors one thread is as fast as two, and beside another job forty times as fast: threads that share an image of
    so few tokens wait for each other more than they compute.
    """

    def __init__(self) -> None:
        self._before: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute in one thread."""
        del stage
        is_small = pl_module.hparams.get("backbone") == MINI
        if is_small and trainer.strategy.root_device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            self._before = torch.get_num_threads()
            torch.set_num_threads(1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute as before."""
        del trainer, pl_module, stage
        if self._before is not None:
            torch.set_num_threads(self._before)
            self._before = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Compute as before."""
        del exception
        self.teardown(trainer, pl_module, "")
