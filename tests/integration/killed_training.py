"""Train until the process is killed while it writes its second checkpoint; run by test_resume in a process of its own.

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

save = torch.save


class KillInWrite(Callback):
    """Dies with half of the second epoch's checkpoint on the disk."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        if trainer.current_epoch == 1:
            torch.save = self.write_half_and_die

    def write_half_and_die(self, content, path) -> NoReturn:
        buffer = io.BytesIO()
        save(content, buffer)
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL does not return")


def train(settings: dict) -> None:
    """Train with the settings of `test_resume.settings`."""
    torch.set_num_threads(settings["threads"])
    engine = Engine(callbacks=[KillInWrite()], **settings["engine"])
    engine.fit(model=make_dpclip(**settings["model"]), datamodule=Surfaces(root=settings["root"], category="weave"))
