"""Going on with earlier results: those of the same model, references and settings, and of no other."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from anomalib_dpclip.data.results.rows import DONE, RESULTS, Result, read_parts, read_rows, write_results

logger = logging.getLogger(__name__)

_NO_PREDICTION = ("num_workers",)
"""Hyper-parameters that change no prediction."""


def prediction_digest(model: Any, images: Sequence[str], settings: Mapping[str, Any]) -> str:
    """Digest of everything predictions depend on: they are comparable where it is the same.

    Args:
        model: The model. Its method ``prediction_digest(images)`` knows; of one that has none weights and hyper-parameters
            count.
        images: Paths of all images of the run.
        settings: Settings of the data module and the trainer that change predictions.
    """
    if hasattr(model, "prediction_digest"):
        known = model.prediction_digest(images)
    else:
        weights = hashlib.sha256()
        for name, value in model.state_dict().items():
            if isinstance(value, torch.Tensor):
                weights.update(name.encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        known = [weights.hexdigest(), {name: value for name, value in model.hparams.items() if name not in _NO_PREDICTION}]
    # Objects count by their class: their addresses differ from run to run.
    plain = json.dumps([known, dict(settings)], sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def earlier_rows(folder: Path, model: str) -> Iterator[Result]:
    """Results that a folder has of a model, of each image one, be they in force or set aside.

    Raises:
        ValueError: If a file there is none of results.
    """
    rows = read_parts(folder) if _other_model(folder, model) is None else read_rows(_aside(folder, model))
    return _first_of_each(row for row in rows if row.status == DONE)


def take_over(folder: Path, model: str) -> None:
    """Leave only the results of a model in a folder; those of another go into a file named by its digest."""
    rows, other = earlier_rows(folder, model), _other_model(folder, model)
    if other is not None:
        write_results(folder, read_parts(folder))
        (folder / RESULTS).rename(_aside(folder, other))
        logger.info("results of another model, class name or setting are now in %s", _aside(folder, other))
    write_results(folder, rows)


def _first_of_each(rows: Iterable[Result]) -> Iterator[Result]:
    known = set()
    for row in rows:
        if row.path not in known:
            known.add(row.path)
            yield row


def _other_model(folder: Path, model: str) -> str | None:
    """Digest of the model whose results are in force in a folder, if it is not this one."""
    return min({row.model for row in read_parts(folder) if row.status == DONE} - {model}, default=None)


def _aside(folder: Path, model: str) -> Path:
    return folder / f"results-{model}.csv"
