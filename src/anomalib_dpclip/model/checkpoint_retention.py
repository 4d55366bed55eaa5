"""Checkpoints that outlive a killed write: the last two are kept, and one that cannot be read is passed over.

Lightning writes to its system's temporary folder and moves the file over the only checkpoint there is. Where that folder
lies on another disk the move is a copy, and a process killed in it leaves half a checkpoint and no other.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.engine.plugins import AnomalibCheckpointIO
from anomalib.utils.serialization import anomalib_safe_globals
from lightning.pytorch.strategies import Strategy

from anomalib_dpclip.files.safe_load import load_plain

logger = logging.getLogger(__name__)


def previous_of(path: Path) -> Path:
    """Where the checkpoint goes that a newer one replaces: ``model.ckpt`` to ``model-previous.ckpt``."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


class RetainingCheckpointIO(AnomalibCheckpointIO):
    """anomalib's reading and writing of checkpoints, which keeps the one before.

    A checkpoint is written under another name beside its place. When it is complete, the one in its place becomes
    `previous_of` it, and it takes the place. Whenever the process dies, a complete checkpoint has one of the two names.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, and keep the one that it replaces.

        Args:
            checkpoint: What to write.
            path: The file.
            storage_options: Of remote storage, which is left to Lightning.
        """
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")  # one name: what a killed process left is written over
        try:
            torch.save(checkpoint, unfinished)
            if path.is_file():
                path.replace(previous_of(path))
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint to the CPU; if it cannot be read, the one before it, with a warning.

        Args:
            path: The file.
            map_location: Where tensors go, if the user asks Lightning for more than plain data (``weights_only=False``).
            weights_only: Whether to refuse everything but plain data and anomalib's own types.

        Raises:
            FileNotFoundError: If there is neither the file nor one before it.
            ValueError: If neither can be read; names what is wrong with the file.
        """
        if weights_only is False or _is_remote(path):
            return super().load_checkpoint(path, map_location, weights_only is not False)
        path = Path(path)
        previous = previous_of(path)
        if not path.is_file() and not previous.is_file():
            raise FileNotFoundError(f"there is no checkpoint {path}")
        with anomalib_safe_globals(extra=self.extra_safe_globals):
            try:
                return load_plain(path)
            except ValueError as error:
                if not previous.is_file():
                    raise
                logger.warning("going on with %s, the checkpoint before the one asked for: %s", previous, error)
                return load_plain(previous)


def retain_checkpoints(strategy: Strategy) -> None:
    """Keep the last two checkpoints, unless the user reads and writes them in a way of their own."""
    current = strategy.checkpoint_io
    if type(current) is AnomalibCheckpointIO:
        strategy.checkpoint_io = RetainingCheckpointIO(current.extra_safe_globals)


def _is_remote(path: str | Path) -> bool:
    return "://" in str(path)
