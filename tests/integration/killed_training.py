"""Train until the process is killed, at a place that the settings name; run by test_resume in a process of its own.

SIGKILL cannot be caught: nothing is flushed, closed or tidied up. The process sends it to itself, so that the place is exact.
"""

import io
import os
import signal
from typing import NoReturn

import torch
from anomalib.engine import Engine
from lightning.pytorch import Callback
from tests.arguments import make_dpclip

from anomalib_dpclip import Surfaces

SECOND_EPOCH = 1


def kill() -> NoReturn:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL does not return")


class KillInEpoch(Callback):
    """Dies after the second batch of the second epoch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == SECOND_EPOCH and batch_idx == 1:
            kill()


class KillInWrite(Callback):
    """Dies with half of the second epoch's checkpoint on the disk."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.current_epoch == SECOND_EPOCH:
            torch.save = self.write_half_and_die

    def write_half_and_die(self, content, path):
        buffer = io.BytesIO()
        save(content, buffer)
        with path.open("wb") as file:
            file.write(buffer.getvalue()[: len(buffer.getvalue()) // 2])
            file.flush()
            kill()


save = torch.save


def train(settings: dict) -> None:
    """Train with the settings of `test_resume.killed`."""
    torch.set_num_threads(settings["threads"])
    engine = Engine(callbacks=[{"epoch": KillInEpoch, "write": KillInWrite}[settings["kill"]]()], **settings["engine"])
    engine.fit(model=make_dpclip(**settings["model"]), datamodule=Surfaces(root=settings["root"], category="weave"))
