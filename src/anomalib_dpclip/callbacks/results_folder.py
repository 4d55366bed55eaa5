"""The folder of a run's results."""

import os
import re
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

LATEST = "latest"
"""What anomalib calls the link to the last training's results, and the folder of tests and predictions."""


def link_latest(trainer: Trainer) -> None:
    """Make ``latest`` a link to a numbered folder, where anomalib would make it a folder.

    anomalib puts the results of a test without an earlier training into a real folder of that name, and then cannot replace it
    by the link that the first training makes: `IsADirectoryError`.

    Args:
        trainer: Whose results are about to be written.
    """
    folder = Path(trainer.default_root_dir)
    if folder.name != LATEST or folder.is_symlink() or os.name == "nt" or not trainer.is_global_zero:
        return
    numbers = [int(match[1]) for path in folder.parent.glob("v*") if (match := re.fullmatch(r"v(\d+)", path.name))]
    numbered = folder.with_name(f"v{max(numbers, default=-1) + 1}")
    if folder.exists():
        folder.rename(numbered)
    else:
        numbered.mkdir(parents=True)
    folder.symlink_to(numbered, target_is_directory=True)


def keep_config(trainer: Trainer) -> None:
    """Leave the ``config.yaml`` of a training alone: those of validations, tests and predictions bear their names.

    Lightning's callback, which anomalib's command line adds, writes over it whatever the command.

    Args:
        trainer: Whose callbacks have not been set up yet.
    """
    command = trainer.state.fn
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's trainer has them
        if isinstance(callback, SaveConfigCallback) and command not in {None, TrainerFn.FITTING}:
            callback.config_filename = f"config-{command.value}.yaml"
