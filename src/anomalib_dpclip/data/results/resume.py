"""Going on with earlier results: those of the same model, references and settings, and of no other."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from anomalib_dpclip.data.results.rows import DONE, RESULTS, Result, read_parts, read_rows, write_results

logger = logging.getLogger(__name__)

_NO_PREDICTION = ("num_workers",)
"""Hyper-parameters that change no prediction."""


def prediction_digest(model: LightningModule, images: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Digest of everything predictions depend on: they are comparable where it is the same.

    Args:
        model: The model. Its method ``prediction_digest(images)`` knows; of one that has none weights and hyper-parameters
            count.
        images: Paths of all images of the run.
        settings: Settings of the data module and the trainer that change predictions.
    """
    own = getattr(model, "prediction_digest", None)
    if own is not None:
        return _digest(own(images), settings)
    weights = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            weights.update(name.encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    hyper_parameters = {name: value for name, value in model.hparams.items() if name not in _NO_PREDICTION}
    return _digest([weights.hexdigest(), hyper_parameters], settings)


def _digest(model: Any, settings: Mapping[str, Any]) -> str:
    # Objects count by their class: their addresses differ from run to run.
    plain = json.dumps([model, dict(settings)], sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


class EarlierResults:
    """What a folder holds that need not be predicted again.

    Args:
        folder: Folder of the results.
        model: Digest of what is to predict now, see `prediction_digest`.
        fresh: Forget everything.

    Attributes:
        done: Paths of images with results.

    Raises:
        ValueError: If a file there is none of results.
    """

    def __init__(self, folder: Path, model: str, fresh: bool = False) -> None:
        self.folder, self.model, self.fresh = folder, model, fresh
        self._others = set() if fresh else {row.model for row in read_parts(folder) if row.status == DONE} - {model}
        self.done = {row.path for row in self._rows()}

    def take_over(self) -> None:
        """Leave only these results in the folder; those of another model go into a file named by its digest."""
        if self._others:
            other = self._file_of(min(self._others))
            write_results(self.folder, read_parts(self.folder))
            (self.folder / RESULTS).rename(other)
            logger.info("results of another model, class name or setting are now in %s", other)
        write_results(self.folder, self._rows())

    def _rows(self) -> Iterator[Result]:
        """Rows of images that have results of this model, of each image one."""
        if self.fresh:
            return
        known = set()
        for row in read_rows(self._file_of(self.model)) if self._others else read_parts(self.folder):
            if row.status == DONE and row.path not in known:
                known.add(row.path)
                yield row

    def _file_of(self, model: str) -> Path:
        return self.folder / f"results-{model}.csv"
