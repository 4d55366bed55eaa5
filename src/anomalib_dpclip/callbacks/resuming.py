"""A training that is interrupted, and what goes on from it: said to whoever interrupts it, resumes it or uses its adapters."""

import logging
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

logger = logging.getLogger(__name__)


class Resuming(Callback):
    """Says how an interrupted training goes on, and what checkpoints do not hold: the end of a training, or its state."""

    @rank_zero_only
    def on_exception(self, trainer: Trainer, _: LightningModule, exception: BaseException) -> None:
        """Say, last of all, what goes on from the last checkpoint of an interrupted training."""
        if not isinstance(exception, KeyboardInterrupt) or trainer.state.fn != TrainerFn.FITTING:
            return
        checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "")
        command = f". It goes on with\n{resuming_command(sys.argv, checkpoint)}" if checkpoint else ""
        how = command or ", before there was a checkpoint."
        print(f"Interrupted in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}{how}")  # noqa: T201

    def on_load_checkpoint(self, trainer: Trainer, _: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say that a training starts anew from a checkpoint that no training has made."""
        if trainer.state.fn == TrainerFn.FITTING and not checkpoint.get("optimizer_states"):
            message = "%s holds no state of a training: a new one starts from its adapters, at the first epoch"
            logger.warning(message, trainer.ckpt_path)

    @rank_zero_only
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Say that the adapters are of an unfinished training."""
        known: Any = pl_module.provenance
        if known.epochs < known.max_epochs:
            print(f"These adapters are of an unfinished training: {known.epochs} of {known.max_epochs} epochs.")  # noqa: T201

    on_predict_start = on_test_start


def resuming_command(arguments: Sequence[str], checkpoint: str) -> str:
    """What to type to go on from a checkpoint with the training of a command line, its program first.

    Example:
        >>> resuming_command(["/bin/anomalib", "train", "--ckpt_path=a.ckpt", "--data", "my set"], "b.ckpt")
        "anomalib fit --data 'my set' --ckpt_path b.ckpt"
        >>> resuming_command(["script.py"], "b.ckpt")
        "engine.fit(..., ckpt_path='b.ckpt')"
    """
    if Path(arguments[0]).stem != "anomalib" or not {"train", "fit"} & {*arguments[1:2]}:
        return f"engine.fit(..., ckpt_path={checkpoint!r})"
    option = "--ckpt_path"
    kept = [word for before, word in pairwise(arguments[1:]) if option not in {before, word.partition("=")[0]}]
    return shlex.join(["anomalib", "fit", *kept, option, checkpoint])
