"""Checkpoints that outlive a killed write, and reading that runs no code and notices damage."""

import shutil
from pathlib import Path
from typing import Any

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch.strategies import Strategy

from anomalib_dpclip.files.atomic_write import atomic_write
from anomalib_dpclip.files.safe_load import load_plain


class AtomicCheckpointIO(AnomalibCheckpointIO):
    """anomalib's reading and writing of checkpoints; whenever the process dies, a complete one is in its place.

    Lightning writes to the temporary folder. Where that is on another disk, a process killed in the move leaves half a file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, the whole file or none; remote storage is left to Lightning.

        Raises:
            OSError: If it cannot be written, or would replace one that a training can go on from by one that it cannot.
        """
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if not checkpoint.get("optimizer_states") and holds_training_state(Path(path)):
            raise FileExistsError(f"{path} holds the state of a training, which would be lost: give another --default_root_dir")
        with atomic_write(Path(path)) as unfinished:
            try:
                torch.save(checkpoint, unfinished)
            except RuntimeError as error:  # torch's writer says "unexpected pos" of a disk that is full
                free = shutil.disk_usage(unfinished.parent).free
                raise OSError(
                    f"checkpoint {path} could not be written, {free / 1e6:.0f} MB are free there; the one before is untouched"
                ) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read plain data and anomalib's own types to the CPU, raising as `load_plain`; else whatever Lightning reads."""
        if weights_only is False or _is_remote(path):
            return super().load_checkpoint(path, map_location, weights_only is not False)
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        if Path(path).suffix == ".safetensors":
            raise ValueError(f"{path} is an adapter file, no checkpoint: give it as --model.weights instead of --ckpt_path")
        with anomalib_safe_globals(extra=self.extra_safe_globals):
            return load_plain(Path(path))


def write_checkpoints_whole(strategy: Strategy) -> None:
    """Read and write checkpoints by `AtomicCheckpointIO`, unless the user does it in a way of their own."""
    current = strategy.checkpoint_io
    if type(current) is AnomalibCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO(current.extra_safe_globals)


def holds_training_state(path: Path) -> bool:
    """Whether a training can go on from a checkpoint: it holds an optimiser."""
    try:
        content = load_plain(path) if path.is_file() else {}
    except ValueError:  # nothing can go on from what cannot be read
        return False
    return isinstance(content, dict) and bool(content.get("optimizer_states"))


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)
