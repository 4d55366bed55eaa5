"""What was predicted of the photos of a bare path, in the terminal: where nothing else lists results."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_only

from anomalib_dpclip.callbacks.decision_report import Decision, decisions_of
from anomalib_dpclip.post_processing.score_text import score_text

MAX_LISTED = 20
"""Photos listed in the terminal; of more, it is how many and how many of them are anomalous."""


class PredictionReport(Callback):
    """Prints score, decision and picture of each of the first photos, unless a writer of results is there for that.

    A batch is listed after the next one: until then its pictures are drawn.
    """

    def __init__(self) -> None:
        self._held: list[Decision] = []
        self._count = self._anomalous = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier run."""
        del trainer, pl_module
        self._held, self._count, self._anomalous = [], 0, 0

    @rank_zero_only
    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: ImageBatch, *_: Any
    ) -> None:
        """List the batch before."""
        del pl_module, outputs
        self._list_held(trainer)
        self._held = decisions_of(batch)

    @rank_zero_only
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List the last batch."""
        del pl_module
        self._list_held(trainer)
        if self._count > MAX_LISTED:
            print(f"and {self._count - MAX_LISTED} more: {self._anomalous} of {self._count} anomalous")  # noqa: T201

    def _list_held(self, trainer: Trainer) -> None:
        callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]  # Lightning's trainer has them
        if any(isinstance(each, BasePredictionWriter) for each in callbacks):
            return
        pictures: Mapping[str, Path] = next((each.pictures for each in callbacks if hasattr(each, "pictures")), {})
        for decision in self._held:
            self._count += 1
            self._anomalous += decision.label == "anomalous"
            if self._count <= MAX_LISTED:
                print(prediction_line(decision, pictures.get(decision.path)), flush=True)  # noqa: T201
        self._held = []


def prediction_line(decision: Decision, picture: Path | None) -> str:
    """Score, decision, photo and picture, paths as they are shortest.

    Example:
        >>> prediction_line(Decision("/photos/0.png", 0.8765, "anomalous"), None)
        '0.876  anomalous  /photos/0.png'
    """
    shortest = [min(str(path), os.path.relpath(path), key=len) for path in (decision.path, picture) if path is not None]
    line = "  ".join([score_text(decision.score), f"{decision.label:9}", *shortest])
    return line.encode(errors="replace").decode()
